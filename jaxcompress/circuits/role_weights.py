"""What the weights alone say of a head: copying, successor, previous-token, composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.matrices import readout
from jaxcompress.models.config import ModelConfig

__all__ = ["compositions", "heads_of", "weight_roles"]

_TOP = 5  # a token is copied if it is among so many
_MANY = 128  # tokens that are tried
_FAR = 32  # positions that are tried


def heads_of(config: ModelConfig, params: Any) -> list[dict[str, np.ndarray]]:
    """The attention weights of each layer, one for each query head.

    Returns:
      By layer `query`, `key`, `value` (head, width, head_dim), `query_bias` (head, head_dim),
      `output` (head, head_dim, width), `scale` and `bias` (width,) of the norm before them; for
      pre-norm models only, else 1 and 0.

    Example:
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=4, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> heads_of(config, create(config, key=jax.random.key(0)).params)[1]["key"].shape
      (4, 8, 4)
    """
    found = []
    for layer, size in enumerate(config.layer_sizes):
        blocks = params["blocks"]
        block = (
            jax.tree.map(lambda x, i=layer: x[i], blocks) if config.stacked else blocks[str(layer)]
        )
        one = {
            name: np.moveaxis(np.asarray(block["attn"][name]["kernel"], np.float64), 1, 0)
            for name in ("query", "key", "value")
        }
        groups = size.heads // max(size.kv_heads, 1)
        one |= {name: np.repeat(one[name], groups, axis=0) for name in ("key", "value")}
        shape = (size.heads, config.head_dim)
        one["query_bias"] = np.asarray(
            block["attn"]["query"].get("bias", np.zeros(shape)), np.float64
        )
        one["output"] = np.asarray(block["attn"]["output"]["kernel"], np.float64)
        plain = config.post_norm or config.norm == "none"
        norm = {} if plain else block["attn_norm"]
        one["scale"] = np.asarray(norm.get("scale", np.ones(config.width)), np.float64)
        one["bias"] = np.asarray(norm.get("bias", np.zeros(config.width)), np.float64)
        found.append(one)
    return found


def weight_roles(model: Any, *, members: Sequence[Sequence[int]] = ()) -> dict[str, np.ndarray]:
    """Scores that need no attention pattern; (layer, head) each, NaN where a layer lacks the head.

    * `copying_eigenvalues`: sum of the real parts over the sum of the sizes of the eigenvalues of
      the full OV circuit, embedding to logits; 1 copies, -1 suppresses, about 0 does neither.
    * `copying`: share of tokens that are among the top 5 logits of their own OV output.
    * `successor`: share of ordinal tokens whose successor has the highest logit of its class.
    * `previous`: attention to the position before if there were only position embeddings (and the
      mean token embedding); only where positions are learned.

    `copying` and `successor` start from the token as it enters the head's layer when it stands
    alone, after at most one block, which is what turns embeddings into words in many models.

    Args:
      model: with `config`, `params`, and an `apply` with the tap `resid`.
      members: classes of token ids in order.

    Returns:
      By name; without a plain linear head only what needs none.

    Example:
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> sorted(weight_roles(create(config, key=jax.random.key(0)), members=[[1, 2, 3]]))
      ['copying', 'copying_eigenvalues', 'previous', 'successor']

    References: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, section
    "Summarizing OV/QK Matrices"; the copy score of Wang et al. 2022 (arXiv 2211.00593), section
    3.1; Gould et al. 2023 (arXiv 2312.09230), section 2.
    """
    config, params = model.config, model.params
    layers, found = heads_of(config, params), {}
    if config.head == "linear" and (config.outputs or config.vocab) >= 2:
        found = _copying(model, layers, members)
    if config.positions == "learned":
        found["previous"] = _previous(config, params, layers)
    return found


def _copying(model: Any, layers: Sequence[Any], members: Any) -> dict[str, np.ndarray]:
    config, table = model.config, _unembedding(model.config, model.params)
    names = ("copying_eigenvalues", "copying", *(("successor",) if members else ()))
    found = {name: np.full((config.layers, config.heads), np.nan) for name in names}
    embed = np.asarray(model.params["embed"]["tokens"], np.float64)
    both = min(len(embed), table.shape[1])  # tokens that go in and come out
    through = table[:, :both] @ embed[:both]
    tried = np.unique(np.linspace(0, both - 1, _MANY).astype(int))
    ids = np.unique(np.concatenate([tried, *map(np.asarray, members)]))
    streams, said = _alone(model, ids), table.astype(np.float32)
    for layer, one in enumerate(layers):
        for head in range(len(one["query"])):
            # The circuit of all tokens has the eigenvalues of this head_dim x head_dim product.
            value = one["scale"][:, None] * one["value"][head]
            values = np.linalg.eigvals(one["output"][head] @ through @ value)
            share = values.real.sum() / max(np.abs(values).sum(), 1e-30)
            found["copying_eigenvalues"][layer, head] = share
            x = _normed(config, one, streams[min(layer, 1)]) @ one["value"][head]
            logits = (x @ one["output"][head]).astype(np.float32) @ said
            rows = np.searchsorted(ids, tried)
            found["copying"][layer, head] = _copied(logits[rows], tried)
            if members:
                found["successor"][layer, head] = _succeeded(logits, ids, members)
    return found


def _unembedding(config: ModelConfig, params: Any) -> np.ndarray:
    table = np.asarray(readout(params, tied=config.tied), np.float64)
    if config.final_norm and config.norm != "none":
        table = np.asarray(params["head"]["final_norm"]["scale"], np.float64)[:, None] * table
    return table - table.mean(axis=1, keepdims=True)  # what all logits share says nothing


def _alone(model: Any, ids: np.ndarray) -> list[np.ndarray]:
    """(token, width) stream of each token by itself, entering layer 0 and layer 1."""
    tokens = jnp.asarray(ids)[:, None]
    resid = model.apply(model.params, tokens, taps=("resid",)).taps["resid"]
    return [np.asarray(resid[i, :, 0], np.float64) for i in (0, 1)]


def _normed(config: ModelConfig, one: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """As the head sees it."""
    if config.post_norm or config.norm == "none":
        return x
    if config.norm == "layernorm":
        x = x - x.mean(axis=-1, keepdims=True)
    size = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + config.norm_eps)
    return x / size * one["scale"] + one["bias"]


def _copied(logits: np.ndarray, ids: np.ndarray) -> float:
    """Share of tokens that are in the top of their own row."""
    own = np.take_along_axis(logits, ids[:, None], axis=1)
    return float(((logits > own).sum(axis=1) < min(_TOP, logits.shape[1] // 2)).mean())


def _succeeded(logits: np.ndarray, ids: np.ndarray, members: Sequence[Sequence[int]]) -> float:
    right = []
    for names in map(np.asarray, members):
        best = logits[np.searchsorted(ids, names[:-1])][:, names].argmax(axis=1)
        right.extend(best == np.arange(1, len(names)))
    return float(np.mean(right))


def _previous(config: ModelConfig, params: Any, layers: Sequence[Any]) -> np.ndarray:
    count = min(config.context, _FAR)
    places = np.asarray(params["embed"]["positions"], np.float64)[:count]
    places = places + np.asarray(params["embed"]["tokens"], np.float64).mean(axis=0)
    found = np.full((config.layers, config.heads), np.nan)
    for layer, one in enumerate(layers):
        x = _normed(config, one, places)
        for head in range(len(one["query"])):
            # A bias of the keys adds the same to all scores of a query, which the softmax drops.
            queries = x @ one["query"][head] + one["query_bias"][head]
            scores = queries @ (x @ one["key"][head]).T * config.head_dim**-0.5
            scores = np.where(np.tri(count, dtype=bool) | (not config.causal), scores, -np.inf)
            pattern = np.exp(scores - scores.max(axis=1, keepdims=True))
            pattern = pattern / pattern.sum(axis=1, keepdims=True)
            found[layer, head] = np.diagonal(pattern, -1).mean() if count > 1 else np.nan
    return found


def compositions(model: Any, kind: str = "K") -> np.ndarray:
    """How much each head reads what each earlier head writes.

    |W_read W_OV| / (|W_read| |W_OV|), Frobenius, where W_read is W_QK on the side of the queries
    ("Q"), on that of the keys ("K"), or W_OV ("V"). Random matrices get about width^-0.5. Rotary
    positions are taken at distance 0. The scale of the norm before the reader is folded in.

    Args:
      model: with `config` and `params`.
      kind: "Q", "K" or "V".

    Returns:
      (writing layer, head, reading layer, head); 0 where the reader is not later.

    Raises:
      ValueError: for another kind.

    Example:
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> found = compositions(create(config, key=jax.random.key(0)))
      >>> found.shape, bool((found[1] == 0).all())
      ((2, 2, 2, 2), True)

    Reference: Elhage et al. 2021, section "Two-Layer Attention-Only Transformers", composition.
    """
    check.known("kind", kind, ("Q", "K", "V"))
    config: ModelConfig = model.config
    layers = heads_of(config, model.params)
    found = np.zeros((config.layers, config.heads) * 2)
    writers = [_roots(one["scale"][:, None] * one["value"], one["output"]) for one in layers]
    for later, one in enumerate(layers):
        first, second = {
            "Q": (one["query"], one["key"].swapaxes(1, 2) * one["scale"]),
            "K": (one["key"], one["query"].swapaxes(1, 2) * one["scale"]),
            "V": (one["value"], one["output"]),
        }[kind]
        # (head, width read, head_dim): what enters on the left is what the earlier head wrote.
        first = one["scale"][:, None] * first
        _, right, size = _roots(first, second)
        for head in range(len(first)):
            for earlier, (left, _, written) in enumerate(writers[:later]):
                between = layers[earlier]["output"] @ first[head]
                product = np.linalg.norm(left @ between @ right[head].T, axis=(1, 2))
                share = product / np.maximum(written * size[head], 1e-30)
                found[earlier, : len(share), later, head] = share
    return found


def _roots(left: np.ndarray, right: np.ndarray) -> tuple[Any, Any, Any]:
    """The triangles of left (head, width, head_dim) and of right transposed, and |left right|.

    The orthogonal factors change no norm, so products of head_dim x head_dim matrices have those of
    the width x width ones.
    """
    factors: Any = [np.linalg.qr(x, mode="r") for x in (left, right.swapaxes(1, 2))]
    first, second = factors
    return first, second, np.linalg.norm(first @ second.swapaxes(1, 2), axis=(1, 2))
