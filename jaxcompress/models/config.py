"""The one description of a network; every family is a setting of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from jaxcompress import check

__all__ = ["LayerSize", "ModelConfig", "RopeScaling"]

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Norm = Literal["layernorm", "rmsnorm", "none"]
Head = Literal["linear", "masked_lm", "none"]

_CHOICES = {
    "family": ("gpt2", "llama", "gpt_neox", "bert", "distilbert", "research"),
    "activation": ("gelu", "gelu_tanh", "relu", "silu"),
    "norm": ("layernorm", "rmsnorm", "none"),
    "positions": ("learned", "rope", "none"),
    "head": ("linear", "masked_lm", "none"),
    "dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretching of the rotary wavelengths (`rope_type: llama3`).

    Attributes:
      factor: how much the long wavelengths are stretched.
      low_freq_factor: wavelengths above original / low_freq_factor are stretched fully.
      high_freq_factor: wavelengths below original / high_freq_factor are left alone.
      original: context length, in tokens, that the model was first trained with.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original: int

    def __post_init__(self) -> None:
        for name in ("factor", "low_freq_factor"):
            _number(f"rope_scaling.{name}", getattr(self, name), above=0)
        _number("rope_scaling.high_freq_factor", self.high_freq_factor, above=self.low_freq_factor)
        check.integer("rope_scaling.original", self.original, 1)


def _number(name: str, value: float | int, above: float | int = -math.inf) -> None:
    if not (math.isfinite(value) and value > above):
        raise check.fail(name, f"a finite number above {above:g}", value)


@dataclasses.dataclass(frozen=True)
class LayerSize:
    """Size of one layer of an unevenly shrunk model; fields as in `ModelConfig`."""

    heads: int
    kv_heads: int
    neurons: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and choices of a transformer.

    Attributes:
      family: whose checkpoints it reads and writes; `"research"` for the small models.
      layers: number of blocks.
      heads: query heads of a layer (the most of any, if layers differ; likewise the next).
      kv_heads: key/value heads; `heads` for multi-head, 1 for multi-query attention.
      head_dim: width of one head; not tied to `width / heads`.
      width: residual stream.
      neurons: hidden units of an MLP (the largest layer, if layers differ).
      vocab: tokens in.
      context: longest input, in tokens.
      outputs: tokens out, where that is not `vocab` (0: the same).
      activation: of the MLP; `gelu` is the exact one, `gelu_tanh` GPT-2's approximation.
      gated_mlp: SwiGLU-style `act(gate) * up`.
      norm: kind of normalisation.
      post_norm: normalise after the residual addition (BERT) instead of before the block.
      parallel: attention and MLP of a block both read the stream that enters it (GPT-NeoX).
      final_norm: normalise before the language-model head.
      norm_eps: added to the variance.
      positions: how a token knows where it is.
      rope_theta: base of the rotary wavelengths.
      rotary_dim: how many numbers of a head turn with its position, the first (0: all).
      rope_scaling: Llama 3's scaling, or `None`.
      causal: whether a token sees only its past.
      attention_coefficient: c in `softmax(scores) * c + (1 - c)`; 1 is attention, 0 is the uniform
        sum of the "pizza" networks (Zhong et al. 2023, arXiv 2306.17844, section 3).
      qkv_bias, output_bias, mlp_bias: whether these projections have biases.
      token_types: rows of a token-type embedding; row 0 is added to every token.
      embed_norm: normalise the embeddings (BERT).
      head: `linear` unembedding, BERT's `masked_lm` head, or `none` (an encoder).
      tied: whether the unembedding is the token embedding.
      unembed_bias: whether the unembedding has a bias.
      pooler: BERT's pooler is carried along from file to file; nothing here uses it.
      dtype: type of the computation; norms, softmax and logits are float32 always.
      scan: one compiled block scanned over the layers; `False` unrolls it (same numbers; what
        XLA's cost analysis needs, since it counts a scanned body once).
      remat: forget the activations of each block after the forward and compute them again for the
        gradient: less memory, about a third more time, the same numbers.
      sizes: per-layer sizes of an unevenly shrunk model, else `None`.
    """

    family: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    neurons: int
    vocab: int
    context: int
    outputs: int = 0
    activation: Activation = "gelu_tanh"
    gated_mlp: bool = False
    norm: Norm = "layernorm"
    post_norm: bool = False
    parallel: bool = False
    final_norm: bool = True
    norm_eps: float = 1e-5
    positions: Literal["learned", "rope", "none"] = "learned"
    rope_theta: float = 10000.0
    rotary_dim: int = 0
    rope_scaling: RopeScaling | None = None
    causal: bool = True
    attention_coefficient: float = 1.0
    qkv_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    token_types: int = 0
    embed_norm: bool = False
    head: Head = "linear"
    tied: bool = True
    unembed_bias: bool = False
    pooler: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan: bool = True
    remat: bool = False
    sizes: tuple[LayerSize, ...] | None = None

    def __post_init__(self) -> None:
        for name, options in _CHOICES.items():
            check.known(f"config.{name}", getattr(self, name), options)
        for name in ("layers", "heads", "kv_heads", "head_dim", "width", "vocab", "context"):
            check.integer(f"config.{name}", getattr(self, name), 1)
        for name in ("neurons", "outputs", "token_types"):
            check.integer(f"config.{name}", getattr(self, name), 0)
        if self.tied and self.outputs not in (0, self.vocab):
            raise check.fail("config.outputs", "0 or vocab, as tied says", self.outputs)
        if not 0 <= self.norm_eps < math.inf:
            raise check.fail("config.norm_eps", "a finite number >= 0", self.norm_eps)
        _number("config.rope_theta", self.rope_theta, above=0)
        _number("config.attention_coefficient", self.attention_coefficient)
        if self.sizes is not None and len(self.sizes) != self.layers:
            raise check.fail("config.sizes", f"{self.layers} layers", len(self.sizes))
        for i, size in enumerate(self.layer_sizes):
            if size.kv_heads < 0 or (
                size.heads and (not size.kv_heads or size.heads % size.kv_heads)
            ):
                got = f"{size.heads} heads over {size.kv_heads} in layer {i}"
                raise check.fail("config.heads", "a multiple of kv_heads", got)
            most = LayerSize(self.heads, self.kv_heads, self.neurons)
            if any(n > getattr(most, name) for name, n in vars(size).items()):
                raise check.fail(f"config.sizes[{i}]", "no more than the model's size", size)
        rotary = self.head_dim - 1 if self.positions == "rope" else 0  # 0 is the one way to say all
        check.integer("config.rotary_dim", self.rotary_dim, 0, rotary)
        if self.positions == "rope" and self.rotated % 2:
            name = "config.rotary_dim" if self.rotary_dim else "config.head_dim"
            raise check.fail(name, "even, as rotary positions pair it", self.rotated)
        if self.parallel and self.post_norm:
            raise check.fail("config.parallel", "false with post_norm", "true")

    @property
    def layer_sizes(self) -> tuple[LayerSize, ...]:
        """Heads, key/value heads and neurons of every layer, even or uneven."""
        even = LayerSize(self.heads, self.kv_heads, self.neurons)
        return self.sizes if self.sizes is not None else (even,) * self.layers

    @property
    def rotated(self) -> int:
        """How many numbers of a query or key turn with their position, if positions are rotary."""
        return self.rotary_dim or self.head_dim

    @property
    def stacked(self) -> bool:
        """Whether per-layer parameters share shapes and are stacked on a leading layer axis."""
        return self.sizes is None
