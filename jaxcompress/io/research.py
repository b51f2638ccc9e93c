"""The small published research models, from arrays in the layouts their authors use."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, tree
from jaxcompress.models.build import Model, create
from jaxcompress.models.config import ModelConfig

__all__ = ["from_haiku", "from_mingpt", "from_transformer_lens", "read_out"]

Arrays = Mapping[str, np.ndarray]

# Causal masks and what is put in their place; minGPT calls them biases.
_BUFFERS = re.compile(r"\.attn\.(mask|IGNORE|(masked_)?bias)$")


def from_transformer_lens(
    arrays: Arrays,
    *,
    layout: Literal["transformer_lens", "grokking"] = "transformer_lens",
    causal: bool = True,
    attention_coefficient: float = 1.0,
    name: str = "",
) -> Model:
    """A ReLU transformer without norms, such as those trained on modular addition.

    Args:
      arrays: by TransformerLens's names (`embed.W_E`, `blocks.0.attn.W_Q`, ...).
      layout: `transformer_lens` stores (in, out) and W_O as (head, head_dim, width); `grokking`,
        the layout of Nanda's and of the clock-and-pizza code, stores (out, in) and fuses W_O.
      causal: whether there is a causal mask.
      attention_coefficient: see `ModelConfig`.
      name: for reports.

    Returns:
      The model; biases are there if the arrays have them.

    Raises:
      ValueError: if an array is missing, or left over.

    Example:
      >>> from_transformer_lens({})
      Traceback (most recent call last):
      ...
      ValueError: arrays: expected 'embed.W_E' (names such as 'embed.W_E'), got no such array
    """
    check.known("layout", layout, ("transformer_lens", "grokking"))
    old = layout == "grokking"
    get = _Reader(arrays, "embed.W_E")
    embedding = get("embed.W_E").T if old else get("embed.W_E")
    layers = 1 + max(int(i) for key in arrays for i in re.findall(r"^blocks\.(\d+)\.", key))
    blocks = [_lens_block(get, f"blocks.{i}", old) for i in range(layers)]
    query, up = blocks[0]["attn"]["query"]["kernel"], blocks[0]["mlp"]["up"]["kernel"]
    head: dict[str, Any] = {"kernel": get("unembed.W_U")}
    if "unembed.b_U" in arrays:
        head["bias"] = get("unembed.b_U")
    config = ModelConfig(
        family="research",
        layers=layers,
        heads=query.shape[1],
        kv_heads=query.shape[1],
        head_dim=query.shape[2],
        width=embedding.shape[1],
        neurons=up.shape[1],
        vocab=embedding.shape[0],
        outputs=head["kernel"].shape[1],
        context=len(get("pos_embed.W_pos")),
        activation="relu",
        norm="none",
        final_norm=False,
        causal=causal,
        attention_coefficient=float(attention_coefficient),
        qkv_bias="blocks.0.attn.b_Q" in arrays,
        output_bias="blocks.0.attn.b_O" in arrays,
        mlp_bias="blocks.0.mlp.b_in" in arrays,
        tied=False,
        unembed_bias="bias" in head,
    )
    embed = {"tokens": embedding, "positions": get("pos_embed.W_pos")}
    return _model(get, config, embed, blocks, head, name)


def _lens_block(get: _Reader, at: str, old: bool) -> dict[str, Any]:
    heads = {}
    for letter, part in (("Q", "query"), ("K", "key"), ("V", "value")):
        kernel = get(f"{at}.attn.W_{letter}")  # (h, m, d), or (h, d, m) in the old layout
        kernel = np.transpose(kernel, (2, 0, 1) if old else (1, 0, 2))
        heads[part] = _with_bias(get, kernel, f"{at}.attn.b_{letter}")
    output = get(f"{at}.attn.W_O")
    if old:
        count, dim = heads["query"]["kernel"].shape[1:]
        output = output.T.reshape(count, dim, -1)
    heads["output"] = _with_bias(get, output, f"{at}.attn.b_O")
    mlp = {}
    for ending, part in (("in", "up"), ("out", "down")):
        kernel = get(f"{at}.mlp.W_{ending}")
        mlp[part] = _with_bias(get, kernel.T if old else kernel, f"{at}.mlp.b_{ending}")
    return {"attn": heads, "mlp": mlp}


def from_haiku(arrays: Arrays, config: Mapping[str, Any], *, name: str = "") -> Model:
    """A program compiled by Tracr (Lindner et al. 2023, arXiv 2301.05062).

    Its logits are the residual stream itself: one output per basis direction.

    Args:
      arrays: Haiku parameters by `module/name`.
      config: Tracr's: `num_heads`, `num_layers`, `key_size`, `causal`, `activation`, ...
      name: for reports.

    Raises:
      ValueError: if an array is missing, or left over, or the program has layer norms.

    Example:
      >>> from_haiku({}, {"layer_norm": True})
      Traceback (most recent call last):
      ...
      ValueError: config.layer_norm: expected False, got True
    """
    if config.get("layer_norm"):
        raise check.fail("config.layer_norm", "False", True)
    activation: Any = check.known("config.activation", config["activation"], ("relu", "gelu"))
    get = _Reader(arrays, "token_embed/embeddings")
    tokens, positions = get("token_embed/embeddings"), get("pos_embed/embeddings")
    heads, dim, width = config["num_heads"], config["key_size"], tokens.shape[1]
    blocks = []
    for i in range(config["num_layers"]):
        at = f"transformer/layer_{i}"
        shapes = {
            "query": (width, heads, dim),
            "key": (width, heads, dim),
            "value": (width, heads, dim),
            "linear": (heads, dim, width),
        }
        attn = {}
        for theirs, shape in shapes.items():
            kernel, bias = get(f"{at}/attn/{theirs}/w"), get(f"{at}/attn/{theirs}/b")
            attn["output" if theirs == "linear" else theirs] = {
                "kernel": kernel.reshape(shape),
                "bias": bias if theirs == "linear" else bias.reshape(shape[1:]),
            }
        mlp = {
            ours: {"kernel": get(f"{at}/mlp/{theirs}/w"), "bias": get(f"{at}/mlp/{theirs}/b")}
            for ours, theirs in (("up", "linear_1"), ("down", "linear_2"))
        }
        blocks.append({"attn": attn, "mlp": mlp})
    ours = ModelConfig(
        family="research",
        layers=config["num_layers"],
        heads=heads,
        kv_heads=heads,
        head_dim=dim,
        width=width,
        neurons=config["mlp_hidden_size"],
        vocab=len(tokens),
        outputs=width,
        context=len(positions),
        activation=activation,
        norm="none",
        final_norm=False,
        causal=config["causal"],
        tied=False,
    )
    embed = {"tokens": tokens, "positions": positions}
    head = {"kernel": np.eye(width, dtype=np.float32)}
    return _model(get, ours, embed, blocks, head, name)


def read_out(
    model: Model, config: Mapping[str, Any], variable: str, symbols: int, values: int
) -> Model:
    """A compiled program with tokens and logits that programs share, so that two can be compared.

    Args:
      model: from `from_haiku`.
      config: Tracr's, with `residual_labels` and `input_encoding`.
      variable: the output that is read, such as `hist_8`.
      symbols: token 0 is the start, 1 to `symbols` the first symbols of the program, in its order,
        and `symbols` + 1 the padding.
      values: logit v is the basis direction `variable:v`, and 0 where there is none.

    Raises:
      ValueError: if the variable has no direction.

    Example:
      >>> model, told = from_haiku(arrays, config), config  # doctest: +SKIP
      >>> read_out(model, told, "hist_8", 3, 6).config.vocab  # doctest: +SKIP
      6
    """
    encoding, labels = config["input_encoding"], list(config["residual_labels"])
    plain = [token for name, token in encoding.items() if name not in ("BOS", "compiler_pad")]
    rows = np.array([encoding["BOS"], *sorted(plain)[:symbols], encoding["compiler_pad"]])
    head = np.zeros((len(labels), values), np.float32)
    for value in range(values):
        if f"{variable}:{value}" in labels:
            head[labels.index(f"{variable}:{value}"), value] = 1.0
    if not head.any():
        raise check.fail("variable", f"one of {labels}", variable)
    # Answers are tokens too: rows that no input uses make the vocabulary as large.
    table = np.zeros((max(len(rows), values), len(labels)), np.float32)
    table[: len(rows)] = np.asarray(model.params["embed"]["tokens"])[rows]
    embed = model.params["embed"] | {"tokens": jnp.asarray(table)}
    sizes = {"vocab": len(table), "outputs": values}
    params = model.params | {"embed": embed, "head": {"kernel": jnp.asarray(head)}}
    return create(dataclasses.replace(model.config, **sizes), params, name=model.name)


def from_mingpt(arrays: Arrays, *, heads: int, name: str = "") -> Model:
    """A minGPT model: GPT-2's names, with linear layers stored (out, in) and an untied head.

    Args:
      arrays: by name (`transformer.h.0.attn.c_attn.weight`, ...); mask buffers are ignored.
      heads: attention heads, which no array says.
      name: for reports.

    Raises:
      ValueError: if an array is missing, or left over.

    Example:
      >>> from_mingpt({}, heads=3)
      Traceback (most recent call last):
      ...
      ValueError: arrays: expected 'transformer.wte.weight' (names such as ...), got no such array
    """
    get = _Reader(arrays, "transformer.wte.weight")
    tokens, positions = get("transformer.wte.weight"), get("transformer.wpe.weight")
    vocab, width = tokens.shape
    dim = width // check.integer("heads", heads, 1, width)
    layers = 1 + max(int(i) for key in arrays for i in re.findall(r"\.h\.(\d+)\.", key))
    blocks = []
    for i in range(layers):
        at = f"transformer.h.{i}"
        qkv = get(f"{at}.attn.c_attn.weight").T.reshape(width, 3, heads, dim)
        shifts = get(f"{at}.attn.c_attn.bias").reshape(3, heads, dim)
        attn = {
            part: {"kernel": qkv[:, j], "bias": shifts[j]}
            for j, part in enumerate(("query", "key", "value"))
        }
        attn["output"] = {
            "kernel": get(f"{at}.attn.c_proj.weight").T.reshape(heads, dim, width),
            "bias": get(f"{at}.attn.c_proj.bias"),
        }
        mlp = {
            part: {"kernel": get(f"{at}.mlp.{c}.weight").T, "bias": get(f"{at}.mlp.{c}.bias")}
            for part, c in (("up", "c_fc"), ("down", "c_proj"))
        }
        norms = {
            f"{part}_norm": {"scale": get(f"{at}.{ln}.weight"), "bias": get(f"{at}.{ln}.bias")}
            for part, ln in (("attn", "ln_1"), ("mlp", "ln_2"))
        }
        blocks.append({"attn": attn, "mlp": mlp} | norms)
    config = ModelConfig(
        family="gpt2",
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=dim,
        width=width,
        neurons=blocks[0]["mlp"]["up"]["kernel"].shape[1],
        vocab=vocab,
        context=len(positions),
        tied=False,
    )
    norm = {"scale": get("transformer.ln_f.weight"), "bias": get("transformer.ln_f.bias")}
    head = {"kernel": get("lm_head.weight").T, "final_norm": norm}
    embed = {"tokens": tokens, "positions": positions}
    return _model(get, config, embed, blocks, head, name)


class _Reader:
    """Arrays by name, of which every one has to be read."""

    def __init__(self, arrays: Arrays, example: str) -> None:
        self.arrays, self.example = arrays, example
        self.read: set[str] = set()

    def __call__(self, key: str) -> np.ndarray:
        if key not in self.arrays:
            expected = f"{key!r} (names such as {self.example!r})"
            raise check.fail("arrays", expected, "no such array")
        self.read.add(key)
        return np.asarray(self.arrays[key], dtype=np.float32)

    def left(self) -> list[str]:
        """What was not read and is no buffer."""
        return sorted(key for key in self.arrays.keys() - self.read if not _BUFFERS.search(key))


def _with_bias(get: _Reader, kernel: np.ndarray, key: str) -> dict[str, np.ndarray]:
    return {"kernel": kernel} | ({"bias": get(key)} if key in get.arrays else {})


def _model(
    get: _Reader, config: ModelConfig, embed: Any, blocks: list[Any], head: Any, name: str
) -> Model:
    if left := get.left():
        raise check.fail("arrays", "only those that are implemented", f"also {left}")
    params = {"embed": embed, "blocks": tree.stack(blocks), "head": head}
    check.finite("arrays", params)
    return create(config, jax.tree.map(jnp.asarray, params), name=name)
