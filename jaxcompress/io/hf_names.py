"""Where each Hugging Face tensor goes: one table per family, read in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxcompress import check
from jaxcompress.models.config import ModelConfig

__all__ = ["BASES", "Slot", "ignored", "slots"]

BASES = ("transformer.", "model.", "gpt_neox.", "bert.", "distilbert.")
"""Prefixes that a checkpoint of the bare encoder or decoder lacks."""


class Slot(NamedTuple):
    """One tensor of a checkpoint and the parameters it holds.

    Attributes:
      name: Hugging Face's, with `{l}` for the layer.
      paths: ours; several if the tensor is a concatenation along its output axis.
      transposed: whether it is stored (out, in), as `torch.nn.Linear` does.
      inputs: how many of our leading axes are flattened into its input axis; 0 for a vector.
      heads: if not 0, the concatenation is one of heads: the parts of the first, of the second, ...
    """

    name: str
    paths: tuple[str, ...]
    transposed: bool = False
    inputs: int = 0
    heads: int = 0

    def order(self, outputs: int) -> np.ndarray:
        """Which output of our parts, laid side by side, stands where in the tensor.

        Example:
          >>> Slot("qkv.weight", ("query", "key"), heads=2).order(8).tolist()
          [0, 1, 4, 5, 2, 3, 6, 7]
        """
        places = np.arange(outputs)
        if not self.heads:
            return places
        return places.reshape(len(self.paths), self.heads, -1).swapaxes(0, 1).reshape(-1)

    @property
    def layered(self) -> bool:
        """Whether there is one such tensor for every layer."""
        return "{l}" in self.name


def _affine(
    name: str, *paths: str, bias: bool, inputs: int = 1, conv: bool = False, heads: int = 0
) -> list[Slot]:
    kernels, biases = (tuple(f"{p}/{leaf}" for p in paths) for leaf in ("kernel", "bias"))
    found = [Slot(f"{name}.weight", kernels, not conv, inputs, heads)]
    return [*found, Slot(f"{name}.bias", biases, heads=heads)] if bias else found


def _norm(name: str, path: str, bias: bool = True) -> list[Slot]:
    found = [Slot(f"{name}.weight", (f"{path}/scale",))]
    return [*found, Slot(f"{name}.bias", (f"{path}/bias",))] if bias else found


def _gpt2(config: ModelConfig) -> Iterator[Slot]:
    block, ours = "transformer.h.{l}", "blocks"
    yield Slot("transformer.wte.weight", ("embed/tokens",), inputs=1)
    yield Slot("transformer.wpe.weight", ("embed/positions",), inputs=1)
    yield from _norm(f"{block}.ln_1", f"{ours}/attn_norm")
    qkv = [f"{ours}/attn/{part}" for part in ("query", "key", "value")]
    yield from _affine(f"{block}.attn.c_attn", *qkv, bias=True, conv=True)
    yield from _affine(
        f"{block}.attn.c_proj", f"{ours}/attn/output", bias=True, inputs=2, conv=True
    )
    yield from _norm(f"{block}.ln_2", f"{ours}/mlp_norm")
    yield from _affine(f"{block}.mlp.c_fc", f"{ours}/mlp/up", bias=True, conv=True)
    yield from _affine(f"{block}.mlp.c_proj", f"{ours}/mlp/down", bias=True, conv=True)
    yield from _norm("transformer.ln_f", "head/final_norm")
    if not config.tied:
        yield from _affine("lm_head", "head", bias=False)


def _llama(config: ModelConfig) -> Iterator[Slot]:
    block, ours = "model.layers.{l}", "blocks"
    bias = config.qkv_bias
    yield Slot("model.embed_tokens.weight", ("embed/tokens",), inputs=1)
    yield from _norm(f"{block}.input_layernorm", f"{ours}/attn_norm", bias=False)
    for theirs, part in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        yield from _affine(f"{block}.self_attn.{theirs}", f"{ours}/attn/{part}", bias=bias)
    output = f"{ours}/attn/output"
    yield from _affine(f"{block}.self_attn.o_proj", output, bias=config.output_bias, inputs=2)
    yield from _norm(f"{block}.post_attention_layernorm", f"{ours}/mlp_norm", bias=False)
    for part in ("gate", "up", "down"):
        yield from _affine(f"{block}.mlp.{part}_proj", f"{ours}/mlp/{part}", bias=config.mlp_bias)
    yield from _norm("model.norm", "head/final_norm", bias=False)
    if not config.tied:
        yield from _affine("lm_head", "head", bias=False)


def _gpt_neox(config: ModelConfig) -> Iterator[Slot]:
    block, ours = "gpt_neox.layers.{l}", "blocks"
    bias, heads = config.qkv_bias, config.heads
    yield Slot("gpt_neox.embed_in.weight", ("embed/tokens",), inputs=1)
    yield from _norm(f"{block}.input_layernorm", f"{ours}/attn_norm")
    qkv = [f"{ours}/attn/{part}" for part in ("query", "key", "value")]
    yield from _affine(f"{block}.attention.query_key_value", *qkv, bias=bias, heads=heads)
    output = f"{ours}/attn/output"
    yield from _affine(f"{block}.attention.dense", output, bias=config.output_bias, inputs=2)
    yield from _norm(f"{block}.post_attention_layernorm", f"{ours}/mlp_norm")
    yield from _affine(f"{block}.mlp.dense_h_to_4h", f"{ours}/mlp/up", bias=True)
    yield from _affine(f"{block}.mlp.dense_4h_to_h", f"{ours}/mlp/down", bias=True)
    yield from _norm("gpt_neox.final_layer_norm", "head/final_norm")
    if not config.tied:
        yield from _affine("embed_out", "head", bias=False)


def _bert(config: ModelConfig) -> Iterator[Slot]:
    base = "bert." if config.head == "masked_lm" else ""
    block, ours = f"{base}encoder.layer.{{l}}", "blocks"
    for name in ("word", "position", "token_type"):
        ending = {"word": "tokens", "position": "positions", "token_type": "types"}[name]
        yield Slot(f"{base}embeddings.{name}_embeddings.weight", (f"embed/{ending}",), inputs=1)
    yield from _norm(f"{base}embeddings.LayerNorm", "embed/norm")
    for part in ("query", "key", "value"):
        yield from _affine(f"{block}.attention.self.{part}", f"{ours}/attn/{part}", bias=True)
    output = f"{block}.attention.output"
    yield from _affine(f"{output}.dense", f"{ours}/attn/output", bias=True, inputs=2)
    yield from _norm(f"{output}.LayerNorm", f"{ours}/attn_norm")
    yield from _affine(f"{block}.intermediate.dense", f"{ours}/mlp/up", bias=True)
    yield from _affine(f"{block}.output.dense", f"{ours}/mlp/down", bias=True)
    yield from _norm(f"{block}.output.LayerNorm", f"{ours}/mlp_norm")
    if config.pooler:
        yield from _affine(f"{base}pooler.dense", "pooler", bias=True)
    if config.head == "masked_lm":
        yield from _affine("cls.predictions.transform.dense", "head/transform", bias=True)
        yield from _norm("cls.predictions.transform.LayerNorm", "head/transform_norm")
        yield Slot("cls.predictions.bias", ("head/bias",))
        if not config.tied:  # the decoder's own bias counts, and being later, is what is read
            yield from _affine("cls.predictions.decoder", "head", bias=True)


def _distilbert(config: ModelConfig) -> Iterator[Slot]:
    base = "distilbert." if config.head == "masked_lm" else ""
    block, ours = f"{base}transformer.layer.{{l}}", "blocks"
    for name, ending in (("word", "tokens"), ("position", "positions")):
        yield Slot(f"{base}embeddings.{name}_embeddings.weight", (f"embed/{ending}",), inputs=1)
    yield from _norm(f"{base}embeddings.LayerNorm", "embed/norm")
    for theirs, part in (("q_lin", "query"), ("k_lin", "key"), ("v_lin", "value")):
        yield from _affine(f"{block}.attention.{theirs}", f"{ours}/attn/{part}", bias=True)
    yield from _affine(f"{block}.attention.out_lin", f"{ours}/attn/output", bias=True, inputs=2)
    yield from _norm(f"{block}.sa_layer_norm", f"{ours}/attn_norm")
    yield from _affine(f"{block}.ffn.lin1", f"{ours}/mlp/up", bias=True)
    yield from _affine(f"{block}.ffn.lin2", f"{ours}/mlp/down", bias=True)
    yield from _norm(f"{block}.output_layer_norm", f"{ours}/mlp_norm")
    if config.head == "masked_lm":
        yield from _affine("vocab_transform", "head/transform", bias=True)
        yield from _norm("vocab_layer_norm", "head/transform_norm")
        yield Slot("vocab_projector.bias", ("head/bias",))
        if not config.tied:
            yield from _affine("vocab_projector", "head", bias=False)


_FAMILIES = {
    "gpt2": _gpt2,
    "llama": _llama,
    "gpt_neox": _gpt_neox,
    "bert": _bert,
    "distilbert": _distilbert,
}

# Buffers and the heads of other tasks that ship in the same files; they do not reach the logits.
_IGNORED = {
    "gpt2": (r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
    "llama": (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"rotary_emb\.inv_freq"),
    "gpt_neox": (
        r"(gpt_neox\.)?layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",
        r"(gpt_neox\.)?rotary_emb\.inv_freq",
    ),
    "bert": (
        r"(bert\.)?embeddings\.position_ids",
        r"cls\.seq_relationship\.(weight|bias)",
        r"cls\.predictions\.decoder\.bias",  # if tied, the same tensor as cls.predictions.bias
    ),
    "distilbert": (r"(distilbert\.)?embeddings\.position_ids",),
}


def slots(config: ModelConfig) -> list[Slot]:
    """All tensors of a checkpoint of this configuration.

    Raises:
      ValueError: for a family that has no such checkpoints.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> [slot.name for slot in slots(config)][:3]
      ['transformer.wte.weight', 'transformer.wpe.weight', 'transformer.h.{l}.ln_1.weight']
    """
    return list(_FAMILIES[check.known("config.family", config.family, _FAMILIES)](config))


def ignored(config: ModelConfig) -> tuple[str, ...]:
    """Patterns of tensor names that may be left unread.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> len(ignored(config))
      1
    """
    return _IGNORED[config.family]
