"""The modules of stock transformers that take an adapter, and ours joined into theirs.

GPT-2's `c_attn` is query, key and value side by side, with one pair of factors. Ours have three:
joined, the factors are side by side in `a`, and on the diagonal in `b`. GPT-NeoX lays them side by
side for every head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.io import hf_names
from jaxcompress.lora.adapters import Adapter, Spec
from jaxcompress.lora.variants import norms
from jaxcompress.matrices import layout_of, matrices
from jaxcompress.models.config import ModelConfig

__all__ = ["Edit", "base", "join", "names", "part", "slots"]


class Edit(NamedTuple):
    """The edit of one kind of module, in all layers.

    Attributes:
      a: (module, in, rank).
      b: (module, rank, out), with the outputs of all our parameters.
      m: (module, out) for DoRA, or `None`.
      alpha: numerator of the scale.
    """

    a: np.ndarray
    b: np.ndarray
    m: np.ndarray | None
    alpha: float


def slots(config: ModelConfig) -> list[hf_names.Slot]:
    """The tensors of a checkpoint that are the weights of linear modules.

    Of layers of different sizes each has its own, but for matrices that have become empty.

    Raises:
      ValueError: for a family that has no such checkpoints, and for queries that share keys in one
        that keeps queries, keys and values in one tensor.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> len(slots(config))
      4
    """
    found = [slot for slot in hf_names.slots(config) if layout_of(slot.paths[0]) is not None]
    shared = any(size.heads != size.kv_heads for size in config.layer_sizes)
    if shared and any(len(slot.paths) > 1 for slot in found):
        expected = f"as many as heads, as {config.family} keeps both in one tensor"
        raise check.fail("config.kv_heads", expected, config.kv_heads)
    if config.stacked:
        return found
    return [one for slot in found for one in (_apart(slot, config) if slot.layered else [slot])]


def _apart(slot: hf_names.Slot, config: ModelConfig) -> list[hf_names.Slot]:
    """A slot for each layer that has something in it."""
    attention = "/attn/" in slot.paths[0]
    return [
        slot._replace(
            name=slot.name.format(l=i),
            paths=tuple(path.replace("blocks/", f"blocks/{i}/", 1) for path in slot.paths),
            heads=slot.heads and size.heads,
        )
        for i, size in enumerate(config.layer_sizes)
        if (size.heads if attention else size.neurons)
    ]


def names(slot: hf_names.Slot, config: ModelConfig) -> list[str]:
    """The modules of a slot, one for each layer.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> names(slots(config)[0], config)
      ['transformer.h.0.attn.c_attn', 'transformer.h.1.attn.c_attn']
    """
    name = slot.name.removesuffix(".weight")
    return [name.format(l=i) for i in range(config.layers)] if slot.layered else [name]


def base(slot: hf_names.Slot, flat: dict[str, Any]) -> list[np.ndarray]:
    """The base weights (module, in, out) of each of our parameters in a slot.

    Args:
      slot: one of `slots`.
      flat: parameters by path.

    Example:
      >>> slot = hf_names.Slot("lm_head.weight", ("head/kernel",), transposed=True, inputs=1)
      >>> base(slot, {"head/kernel": np.zeros((8, 11))})[0].shape
      (1, 8, 11)
    """
    found = []
    for path in slot.paths:
        layout = layout_of(path)
        assert layout is not None  # one of `slots`
        weight = np.asarray(matrices(np.asarray(flat[path]), layout), np.float32)
        found.append(weight if slot.layered else weight[None])
    return found


def join(slot: hf_names.Slot, weights: list[np.ndarray], adapter: Adapter) -> Edit | None:
    """The edit of a slot, or `None` if the adapter has none of its parameters.

    Args:
      slot: one of `slots`.
      weights: its `base`.
      adapter: not PiSSA.

    Example:
      >>> slot = hf_names.Slot("lm_head.weight", ("head/kernel",), transposed=True, inputs=1)
      >>> join(slot, [np.zeros((1, 8, 11))], Adapter({}, ())) is None
      True
    """
    specs = {spec.path: spec for spec in adapter.specs}
    present = [i for i, path in enumerate(slot.paths) if path in specs]
    if not present:
        return None
    stacked = {
        i: {
            name: np.asarray(leaf, np.float32) if slot.layered else np.asarray(leaf)[None]
            for name, leaf in adapter.leaves[slot.paths[i]].items()
        }
        for i in present
    }
    first = specs[slot.paths[present[0]]]
    ratios = {i: specs[slot.paths[i]].scale / first.scale for i in present}
    bs = {i: stacked[i]["b"] * np.float32(ratios[i]) for i in present}
    a = [stacked[i]["a"] for i in present]
    widths = [weight.shape[-1] for weight in weights]
    if len(present) == len(widths) and all(np.array_equal(a[0], other) for other in a):
        joined, b = a[0], np.concatenate(list(bs.values()), axis=-1)
    else:
        joined, b = np.concatenate(a, axis=-1), _diagonal(bs, widths)
    m = None
    if first.variant == "dora":
        lengths = [np.asarray(norms(jnp.asarray(weight))) for weight in weights]
        ms = [stacked[i]["m"] if i in stacked else length for i, length in enumerate(lengths)]
        m = np.concatenate(ms, axis=-1)
    order = slot.order(b.shape[-1])
    b, m = b[..., order], None if m is None else m[..., order]
    return Edit(joined, b, m, first.alpha * _grown(first.variant, joined.shape[-1] / first.rank))


def _diagonal(bs: dict[int, np.ndarray], widths: list[int]) -> np.ndarray:
    """Factors in rows, each with zeros at the outputs of the others."""
    rows = []
    for i, b in bs.items():
        cells = [np.zeros((*b.shape[:-1], width), np.float32) for width in widths]
        cells[i] = b
        rows.append(np.concatenate(cells, axis=-1))
    return np.concatenate(rows, axis=-2)


def part(
    slot: hf_names.Slot, weights: list[np.ndarray], edit: Edit, variant: str
) -> list[tuple[Spec, dict[str, jax.Array]]]:
    """The inverse of `join`: specs and leaves of our parameters in a slot.

    Where every rank serves one parameter only, as in what `join` makes, each gets its own; else all
    get all of `a`.

    Args:
      slot: one of `slots`.
      weights: its `base`.
      edit: of the whole slot.
      variant: of the edit.

    Example:
      >>> slot = hf_names.Slot("lm_head.weight", ("head/kernel",), transposed=True, inputs=1)
      >>> edit = Edit(np.ones((1, 8, 2)), np.ones((1, 2, 11)), None, 4.0)
      >>> part(slot, [np.zeros((1, 8, 11))], edit, "lora")[0][0].rank
      2
    """
    ends = np.cumsum([weight.shape[-1] for weight in weights])[:-1]
    ours, rank = np.argsort(slot.order(edit.b.shape[-1])), edit.b.shape[-2]
    bs = np.split(edit.b[..., ours], ends, axis=-1)
    ms = [None] * len(bs) if edit.m is None else np.split(edit.m[..., ours], ends, axis=-1)
    used = np.stack([b.any(axis=(0, 2)) for b in bs])
    # A magnitude may have changed where the factors are zero: then the parameter is not left out.
    apart = (used.sum(axis=0) == 1).all() and (edit.m is None or used.any(axis=1).all())
    found = []
    for path, b, m, own in zip(slot.paths, bs, ms, used, strict=True):
        kept = own if apart else np.ones(rank, bool)
        layout, size = layout_of(path), int(kept.sum())
        if not size or layout is None:
            continue
        leaves = {"a": edit.a[..., kept], "b": b[..., kept, :]} | ({} if m is None else {"m": m})
        leaves = {k: jnp.asarray(v if slot.layered else v[0]) for k, v in leaves.items()}
        alpha = edit.alpha * _grown(variant, size / rank)
        found.append((Spec(path, size, alpha, variant, layout), leaves))
    return found


def _grown(variant: str, ratio: float) -> float:
    """What alpha is multiplied by when the rank is, so that the scale stays."""
    return ratio**0.5 if variant == "rslora" else ratio
