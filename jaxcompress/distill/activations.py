"""Losses on what two models compute on the way: which layers, which activations, how much of each.

Both models are run once, with `taps`; the loss is a pure function of what they return, so it can be
added to any loss on their logits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import check
from jaxcompress.cka import linear_cka
from jaxcompress.distill import features, mapping, relations
from jaxcompress.models.config import ModelConfig

__all__ = ["Activations", "ActivationsConfig", "activations"]

_STREAM = ("hidden_mse", "hidden_cosine", "hidden_cka", "attention_transfer")
_PROJECTED = ("hidden_mse", "hidden_cosine")
_QKV = ("queries", "keys", "values")
_TAPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_STREAM, ("resid",)),
    "attention_kl": ("pattern",),
    "attention_mse": ("scores",),
    "minilm": ("pattern", "values"),
    "minilm_v2": _QKV,
}
_MAPS = {
    "uniform": mapping.uniform,
    "strided": mapping.strided,
    "last": lambda ours, theirs: [(ours - 1, theirs - 1)],
}


@dataclasses.dataclass(frozen=True)
class ActivationsConfig:
    """How much of each loss is added; one of weight 0 costs nothing.

    Attributes:
      hidden_mse: squared difference of the residual streams after paired layers.
      hidden_cosine: their angle.
      hidden_cka: 1 - linear CKA of them, over the tokens of a batch.
      attention_transfer: where they are large.
      attention_kl: of the attention maps; as many heads in both models.
      attention_mse: of the attention scores, before the softmax; as many heads in both.
      minilm: attention maps and relations of values; its paper takes `layers` last.
      minilm_v2: relations of queries, keys and values.
      relation_heads: of minilm_v2; 0 takes the teacher's key and value heads.
      layers: uniform (from end to end), strided (TinyBERT's) or last.
      pairs: (student layer, teacher layer) pairs in place of `layers`.
    """

    hidden_mse: float = 0.0
    hidden_cosine: float = 0.0
    hidden_cka: float = 0.0
    attention_transfer: float = 0.0
    attention_kl: float = 0.0
    attention_mse: float = 0.0
    minilm: float = 0.0
    minilm_v2: float = 0.0
    relation_heads: int = 0
    layers: Literal["uniform", "strided", "last"] = "uniform"
    pairs: tuple[tuple[int, int], ...] = ()


class Activations(NamedTuple):
    """A loss on activations.

    Attributes:
      taps: those that it needs of both models.
      start: arrays to be trained with the student: `projection` (pair, student width, teacher
        width) if the widths differ, N(0, 1 / student width).
      loss: `(student taps, teacher taps, start, attention_mask) -> scalar`.
    """

    taps: tuple[str, ...]
    start: dict[str, jax.Array]
    loss: Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any], Any], jax.Array]


def activations(
    student: ModelConfig, teacher: ModelConfig, config: ActivationsConfig, key: Any
) -> Activations:
    """The weighted sum of the losses that are asked for, for models of these shapes.

    Args:
      student: of any depth and width.
      teacher: likewise.
      config: weights and layers.
      key: typed PRNG key of the projections, consumed.

    Raises:
      ValueError: for weights below 0, layers that are not there, and shapes that a loss cannot
        compare.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> asked = ActivationsConfig(hidden_mse=1.0, attention_kl=0.5)
      >>> made = activations(config, config, asked, jax.random.key(0))
      >>> made.taps, made.start
      (('pattern', 'resid'), {})
    """
    weights = {name: getattr(config, name) for name in _TAPS}
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise check.fail(f"activations.{name}", "a number of at least 0", weight)
    weights = {name: weight for name, weight in weights.items() if weight}
    pairs = _pairs(student, teacher, config)
    heads = config.relation_heads or teacher.kv_heads
    _comparable(student, teacher, weights, pairs)
    if "minilm_v2" in weights:
        _divides(heads, student, teacher)
    start = {}
    if student.width != teacher.width and set(weights) & set(_PROJECTED):
        shape = (len(pairs), student.width, teacher.width)
        start["projection"] = jax.random.normal(key, shape) / math.sqrt(student.width)
    losses = _losses(student, heads, pairs)

    def loss(ours: Any, theirs: Any, trained: Any, mask: Any) -> jax.Array:
        total = jnp.float32(0)
        for name, weight in weights.items():
            options = trained if name in _PROJECTED else {}
            both = (_of(name, taps) for taps in (ours, theirs))
            total = total + weight * losses[name](*both, mask, **options)[0]
        return total

    taps = {tap for name in weights for tap in _TAPS[name]}
    return Activations(tuple(sorted(taps)), start, loss)


def _pairs(student: ModelConfig, teacher: ModelConfig, config: ActivationsConfig) -> Any:
    pairs = config.pairs or _MAPS[config.layers](student.layers, teacher.layers)
    for ours, theirs in pairs:
        check.integer("activations.pairs, the student's layer", ours, 0, student.layers - 1)
        check.integer("activations.pairs, the teacher's layer", theirs, 0, teacher.layers - 1)
    return pairs


def _comparable(
    student: ModelConfig, teacher: ModelConfig, weights: Mapping[str, float], pairs: Any
) -> None:
    """Raises for what would fail in the first step, or compare zeros where heads are missing."""
    for name in (name for name in weights if name not in _STREAM):
        for config, layers in ((student, [a for a, _ in pairs]), (teacher, [b for _, b in pairs])):
            there = [config.layer_sizes[layer] for layer in layers]
            sizes = {(size.heads, size.kv_heads) for size in there}
            if sizes != {(config.heads, config.kv_heads)}:
                expected = f"layers of {config.heads} heads, {config.kv_heads} for keys"
                raise check.fail(f"activations.{name}", expected, sorted(sizes))
    for name in ("attention_kl", "attention_mse", "minilm"):
        if name in weights and student.heads != teacher.heads:
            expected = f"a student of the teacher's {teacher.heads} heads"
            raise check.fail(f"activations.{name}", expected, student.heads)
    if "minilm" in weights and student.kv_heads != teacher.kv_heads:
        expected = f"a student of the teacher's {teacher.kv_heads} value heads"
        raise check.fail("activations.minilm", expected, student.kv_heads)


def _divides(heads: int, student: ModelConfig, teacher: ModelConfig) -> None:
    """Raises if queries, keys and values cannot be cut into so many pieces."""
    for config in (student, teacher):
        for count in (config.heads, config.kv_heads):
            if heads < 1 or count * config.head_dim % heads:
                expected = f"a divisor of {count} x {config.head_dim}"
                raise check.fail("activations.relation_heads", expected, heads)


def _losses(student: ModelConfig, heads: int, pairs: Any) -> dict[str, Callable[..., Any]]:
    """Every loss on stacks of layers; those on the stream skip what enters the first layer."""
    v2 = functools.partial(relations.minilm_v2, heads=heads, causal=student.causal)
    each: dict[str, Callable[..., Any]] = {
        "hidden_mse": features.hidden_mse,
        "hidden_cosine": features.hidden_cosine,
        "hidden_cka": _cka,
        "attention_transfer": features.attention_transfer,
        "attention_kl": relations.attention_kl,
        "attention_mse": functools.partial(relations.attention_mse, causal=student.causal),
        "minilm": functools.partial(relations.minilm, causal=student.causal),
        "minilm_v2": v2,
    }
    return {name: mapping.layerwise(loss, pairs) for name, loss in each.items()}


def _of(name: str, taps: Mapping[str, Any]) -> Any:
    """What a loss compares, its layers leading."""
    if name in _STREAM:
        return taps["resid"][1:]
    if name == "minilm_v2":
        return tuple(taps[tap].reshape(*taps[tap].shape[:-2], -1) for tap in _QKV)
    if name == "minilm":
        return taps["pattern"], taps["values"]
    (tap,) = _TAPS[name]
    return taps[tap]


def _cka(student: Any, teacher: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """1 - linear CKA of (batch, position, width) streams over all tokens."""
    rows = None if mask is None else jnp.asarray(mask).reshape(-1)
    ours, theirs = (x.reshape(-1, x.shape[-1]) for x in (student, jax.lax.stop_gradient(teacher)))
    count = jnp.float32(len(ours)) if rows is None else (rows > 0).sum().astype(jnp.float32)
    return 1 - linear_cka(ours, theirs, rows), count
