"""What can be taken out of a model, and what is put in its place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.models.gates import Edits, Gates
from jaxcompress.tasks.prompts import Prompts

__all__ = ["REPLACEMENTS", "Components", "Replacement", "components", "replacements"]

Replacement = Literal["zero", "mean", "resample"]
REPLACEMENTS = ("zero", "mean", "resample")

_FIELDS = {
    "heads": ("heads",),
    "attns": ("attns",),
    "mlps": ("mlps",),
    "layers": ("attns", "mlps"),
    "neurons": ("neurons",),
}


@dataclasses.dataclass(frozen=True)
class Components:
    """A list of things to take out, one at a time.

    Attributes:
      fields: the fields of `Gates` that they touch.
      shape: how the results are laid out, for example (layer, head).
      where: (component,) flat index of each into `shape`; a cell without a component has no result.
      layers: (component,) the first layer that each touches; everything before is shared.
      gates: from component indices to `Gates` with a leading component axis.
    """

    fields: tuple[str, ...]
    shape: tuple[int, ...]
    where: np.ndarray
    layers: np.ndarray
    gates: Callable[[np.ndarray], Gates]

    def __len__(self) -> int:
        return len(self.where)


def components(config: Any, over: str | Sequence[Mapping[str, Any]]) -> Components:
    """Lists components by kind, or takes groups of them.

    Args:
      config: of the model; needs `layers`, and `heads` or `neurons` if they are swept.
      over: `heads`, `attns`, `mlps`, `layers`, `neurons`; or groups, each a dict of keyword
        arguments for `Gates.off`, taken out together: `[{"heads": [(0, 1)]}, {"mlps": [3]}]`.

    Returns:
      The components, in layer order if listed by kind.

    Raises:
      ValueError: for an unknown kind, an empty list or a component that the model lacks.

    Example:
      >>> from jaxcompress.models.config import ModelConfig
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> items = components(config, "heads")
      >>> len(items), items.shape, items.layers.tolist()
      (4, (2, 2), [0, 0, 1, 1])
      >>> items.gates(np.array([3])).heads.tolist()
      [[[1.0, 1.0], [1.0, 0.0]]]
    """
    if not isinstance(over, str):
        return _groups(config, over)
    kind = check.known("over", over, _FIELDS)
    if kind in ("heads", "neurons"):
        return _units(config, kind)
    fields, count = _FIELDS[kind], config.layers

    def gates(chosen: np.ndarray) -> Gates:
        off = np.ones((len(chosen), count), np.float32)
        off[np.arange(len(chosen)), chosen] = 0
        return Gates(**dict.fromkeys(fields, off))

    layers = np.arange(count)
    return Components(fields, (count,), layers, layers, gates)


def _units(config: Any, kind: str) -> Components:
    shape = (config.layers, getattr(config, kind))
    sizes = getattr(config, "layer_sizes", None)
    counts = [getattr(size, kind) for size in sizes] if sizes else [shape[1]] * shape[0]
    pairs = np.array([(layer, i) for layer, n in enumerate(counts) for i in range(n)]).reshape(
        -1, 2
    )

    def gates(chosen: np.ndarray) -> Gates:
        off = np.ones((len(chosen), *shape), np.float32)
        off[np.arange(len(chosen)), pairs[chosen, 0], pairs[chosen, 1]] = 0
        return Gates(**{kind: off})

    return Components((kind,), shape, pairs @ np.array([shape[1], 1]), pairs[:, 0], gates)


def _groups(config: Any, over: Sequence[Mapping[str, Any]]) -> Components:
    if not over:
        raise check.fail("over", "at least one group of components", "none")
    for group in over:
        for name in group:
            check.known("over", name, (*_SHAPED, "layers"))
    each = [Gates.off(config, **group) for group in over]
    fields = tuple(name for name in _SHAPED if any(getattr(g, name) is not None for g in each))
    if not fields:
        raise check.fail("over", "a component in every group", "an empty group")
    width = "width" in fields  # written by the embedding, before any layer
    layers = [0 if width else _first(gates) for gates in each]
    filled = {}
    for name in fields:
        present = next(getattr(g, name) for g in each if getattr(g, name) is not None)
        ones = np.ones(present.shape, np.float32)
        values = [getattr(g, name) for g in each]
        filled[name] = np.stack([ones if v is None else np.asarray(v) for v in values])

    def gates(chosen: np.ndarray) -> Gates:
        return Gates(**{name: value[chosen] for name, value in filled.items()})

    return Components(fields, (len(each),), np.arange(len(each)), np.array(layers), gates)


_SHAPED = ("heads", "attns", "mlps", "neurons", "width")


def _first(gates: Gates) -> int:
    """The first layer of which something is removed."""
    found = [np.asarray(leaf) for leaf in jax.tree.leaves(gates)]
    layers = [np.argwhere(leaf == 0)[:, 0].min() for leaf in found if (leaf == 0).any()]
    if not layers:
        raise check.fail("over", "a component in every group", "an empty group")
    return int(min(layers))


def replacements(
    taps: Mapping[str, jax.Array], kind: str, prompts: Prompts, pooled: bool = False
) -> Edits | None:
    """Replacement activations from a run on the corrupted prompts.

    Args:
      taps: activations of that run, (layer, batch, position, ...), by field of `Edits`.
      kind: `zero`; `mean`, over the corrupted prompts; or `resample`, the activation on the
        corrupted twin of each prompt.
      prompts: the mask decides which positions count.
      pooled: one mean for all positions, instead of one per position.

    Returns:
      Edits, of which means have a batch axis of 1 (and a position axis of 1 if pooled), or `None`
      for zeros.

    Example:
      >>> ones = np.ones((2, 1), int)
      >>> prompts = Prompts(ones, ones, ones, 0 * ones[:, 0], ones, 2 * ones)
      >>> taps = {"mlps": jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)}
      >>> replacements(taps, "mean", prompts).mlps.tolist()
      [[[[2.0]]]]
    """
    if check.known("replacement", kind, REPLACEMENTS) == "zero":
        return None
    if kind == "resample":
        return Edits(**taps)
    mask = prompts.attention_mask
    return Edits(**_means(dict(taps), None if mask is None else jnp.asarray(mask), pooled))


@functools.partial(jax.jit, static_argnames="pooled")
def _means(taps: dict[str, jax.Array], mask: Any, pooled: bool) -> dict[str, jax.Array]:
    """Means of (layer, batch, position, ...) over the batch, or over positions too."""
    axes = (1, 2) if pooled else (1,)

    def mean(x: jax.Array) -> jax.Array:
        real = jnp.ones(x.shape[1:3]) if mask is None else mask.astype(jnp.float32)
        real = real.reshape(1, *real.shape, *(1,) * (x.ndim - 3))
        total = (x * real).sum(axis=axes, keepdims=True)
        return total / jnp.maximum(real.sum(axis=axes, keepdims=True), 1)

    return {name: mean(tap) for name, tap in taps.items()}
