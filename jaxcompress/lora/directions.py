"""The rank directions of an adapter: turned to its singular ones, gated, kept in part.

The factors of `a @ b` are not unique: any invertible r x r matrix between them gives the same edit.
Here an adapter is turned first, so that direction i of a matrix is the i-th singular direction of
its edit: what is gated then depends on the edit alone, not on how training came to write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.lora.adapters import Adapter, Spec
from jaxcompress.lora.several import combine

__all__ = ["Directions", "gated", "ones", "size", "strengths", "strongest", "transplant", "turned"]

Directions = dict[str, Any]
"""By path of the edited parameter, one number for each rank direction: (layer, rank), or (rank,) of
a parameter that is not stacked."""


def turned(adapter: Adapter) -> Adapter:
    """The same edit with factors along its singular directions, the largest first.

    With scale * a @ b = U S V, the new factors are U S^0.5 and S^0.5 V; the scale becomes 1.

    Args:
      adapter: LoRA, rsLoRA or PiSSA; the edit of PiSSA has twice the rank. A rank above the
        smaller side of the matrix is cut to it.

    Raises:
      ValueError: for DoRA, whose edit is not a product of two factors.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"kernel": jnp.ones((3, 2))}
      >>> adapter = init(params, ["kernel"], rank=2, alpha=4, key=jax.random.key(0))
      >>> turned(adapter).specs[0].scale
      1.0
    """
    return _turned(combine([adapter]))


@jax.jit
def _turned(plain: Adapter) -> Adapter:
    leaves, specs = {}, []
    for spec in plain.specs:
        a, b = plain.leaves[spec.path]["a"], plain.leaves[spec.path]["b"]
        # Thin QR first: the product of the factors is never formed.
        qa, ra = jnp.linalg.qr(a)
        qb, rb = jnp.linalg.qr(b.swapaxes(-1, -2))
        u, s, v = jnp.linalg.svd(_dot(ra, rb.swapaxes(-1, -2)), full_matrices=False)
        root = jnp.sqrt(s)
        b = root[..., :, None] * _dot(v, qb.swapaxes(-1, -2))
        leaves[spec.path] = {"a": _dot(qa, u) * root[..., None, :], "b": b}
        specs.append(spec._replace(rank=s.shape[-1], alpha=float(s.shape[-1])))
    return Adapter(leaves, tuple(specs))


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def ones(adapter: Adapter) -> Directions:
    """Gates that keep every direction: the point to differentiate at.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"blocks": {"up": {"kernel": jnp.ones((3, 4, 5))}}}
      >>> adapter = init(params, ["*/kernel"], rank=2, alpha=4, key=jax.random.key(0))
      >>> ones(adapter)["blocks/up/kernel"].shape
      (3, 2)
    """
    return {path: jnp.ones(leaf["b"].shape[:-1]) for path, leaf in adapter.leaves.items()}


def gated(adapter: Adapter, gates: Mapping[str, Any]) -> Adapter:
    """The adapter with each rank direction multiplied by its gate.

    Args:
      adapter: without constants (`turned` makes such a one).
      gates: as `ones`; may be traced.

    Raises:
      ValueError: for gates of other paths or shapes, and for PiSSA or DoRA.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"kernel": jnp.ones((3, 2))}
      >>> adapter = init(params, ["kernel"], rank=2, alpha=4, key=jax.random.key(0))
      >>> gated(adapter, {"kernel": jnp.zeros(2)}).leaves["kernel"]["b"].any().item()
      False
    """
    if set(gates) != set(adapter.leaves):
        raise check.fail("gates", f"the paths {sorted(adapter.leaves)}", sorted(gates))
    leaves = {}
    for path, leaf in adapter.leaves.items():
        if set(leaf) != {"a", "b"}:
            raise check.fail("adapter", "a plain product", f"{sorted(leaf)} at {path}", "turned()")
        check.shape(f"gates[{path!r}]", gates[path], [leaf["b"].shape[:-1]])
        leaves[path] = {"a": leaf["a"], "b": leaf["b"] * jnp.asarray(gates[path])[..., None]}
    return Adapter(leaves, adapter.specs)


def strongest(scores: Mapping[str, Any], count: int) -> Directions:
    """Gates that keep the `count` directions of the highest score, all matrices taken together.

    Args:
      scores: (layer, rank) by path; more is better.
      count: in [0, all].

    Returns:
      Boolean NumPy arrays; of equal scores the earlier stays.

    Example:
      >>> strongest({"up": np.array([[3.0, 1.0], [2.0, 0.0]])}, 2)["up"].tolist()
      [[True, False], [True, False]]
    """
    flat = np.concatenate([np.ravel(value) for value in scores.values()])
    check.integer("count", count, 0, flat.size)
    keep = np.zeros(flat.size, bool)
    keep[np.argsort(-flat, kind="stable")[:count]] = True
    sizes = np.cumsum([np.size(value) for value in scores.values()])[:-1]
    parts = np.split(keep, sizes)
    return {
        path: part.reshape(np.shape(value))
        for (path, value), part in zip(scores.items(), parts, strict=True)
    }


def strengths(adapter: Adapter) -> Directions:
    """The singular values of the edits.

    Args:
      adapter: from `turned`.

    Returns:
      (layer, rank) NumPy by path.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"kernel": jnp.eye(2)}
      >>> adapter = init(params, ["kernel"], rank=1, alpha=1, key=jax.random.key(0))
      >>> strengths(turned(adapter))["kernel"].tolist()
      [0.0]
    """
    return {
        path: np.square(np.asarray(leaf["a"])).sum(axis=-2) for path, leaf in adapter.leaves.items()
    }


def transplant(adapter: Adapter, keep: Mapping[str, Any]) -> Adapter:
    """A smaller adapter: only the directions that are kept, the rest cut out of the arrays.

    A stacked parameter has one rank for all its layers: the largest number kept in a layer; layers
    with fewer are filled up with zeros. Parameters of which nothing is kept have no edit.

    Args:
      adapter: from `turned`.
      keep: booleans by path, from `strongest`; not traced.

    Raises:
      ValueError: as `gated`; and if nothing is kept.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"kernel": jnp.ones((3, 2))}
      >>> adapter = init(params, ["kernel"], rank=2, alpha=4, key=jax.random.key(0))
      >>> transplant(adapter, {"kernel": np.array([False, True])}).specs[0].rank
      1
    """
    part = gated(adapter, {path: np.asarray(gate, np.float32) for path, gate in keep.items()})
    leaves, specs = {}, []
    for spec in adapter.specs:
        gate = np.asarray(keep[spec.path], bool)
        rank = int(gate.sum(axis=-1).max())
        if not rank:
            continue
        first = np.argsort(~gate, axis=-1, kind="stable")[..., :rank]
        a = jnp.take_along_axis(part.leaves[spec.path]["a"], first[..., None, :], axis=-1)
        b = jnp.take_along_axis(part.leaves[spec.path]["b"], first[..., :, None], axis=-2)
        leaves[spec.path] = {"a": a, "b": b * spec.scale}
        specs.append(Spec(spec.path, rank, float(rank), "lora", spec.layout))
    if not specs:
        raise check.fail("keep", "at least one direction", "none")
    return Adapter(leaves, tuple(specs))


def size(adapter: Adapter, keep: Mapping[str, Any] | None = None) -> tuple[int, int]:
    """(rank directions, parameters) of an adapter, or of the directions that are kept.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"kernel": jnp.ones((3, 2))}
      >>> adapter = init(params, ["kernel"], rank=2, alpha=4, key=jax.random.key(0))
      >>> size(adapter), size(adapter, {"kernel": np.array([True, False])})
      ((2, 10), (1, 5))
    """
    directions, parameters = 0, 0
    for path, leaf in adapter.leaves.items():
        gate = np.ones(leaf["b"].shape[:-1]) if keep is None else np.asarray(keep[path])
        count = int(gate.sum())
        directions += count
        parameters += count * (leaf["a"].shape[-2] + leaf["b"].shape[-1])
    return directions, parameters
