"""Which scores survive: per tensor, per output row, N of M, or globally.

Every function takes a pytree of scores (..., inputs, outputs), see `jaxcompress.matrices`, and
returns the same tree of bools, True where the weight is kept. Counts are exact:
`round(sparsity * size)` are pruned. Of equal scores the one with the lower index is kept, and NaN
counts as the largest.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jaxcompress import check

__all__ = ["all_but", "count", "global_", "groups", "n_of_m", "per_row", "per_tensor"]


def per_tensor(scores: Any, sparsity: Any) -> Any:
    """Prunes the lowest scores of each matrix, those of a stack each by itself.

    Args:
      scores: pytree of (..., inputs, outputs).
      sparsity: fraction to prune, in [0, 1). May be traced, and is then not checked, and the count
        rounded in float32; so in all functions here.

    Raises:
      ValueError: for a sparsity outside [0, 1).

    Example:
      >>> per_tensor(jnp.array([[1.0, 4.0], [3.0, 2.0]]), 0.5).astype(int).tolist()
      [[0, 1], [1, 0]]
    """

    def select(leaf: Float[Array, "*stack i o"]) -> Bool[Array, "*stack i o"]:
        flat = leaf.reshape(*leaf.shape[:-2], leaf.shape[-2] * leaf.shape[-1])
        return all_but(flat, count(sparsity, flat.shape[-1]), axis=-1).reshape(leaf.shape)

    return jax.tree.map(select, scores)


def per_row(scores: Any, sparsity: Any) -> Any:
    """Prunes the lowest scores among the inputs of each output, as Wanda does.

    Args:
      scores: pytree of (..., inputs, outputs).
      sparsity: fraction of each output's inputs to prune, in [0, 1).

    Raises:
      ValueError: for a sparsity outside [0, 1).

    Example:
      >>> per_row(jnp.array([[1.0, 4.0], [3.0, 2.0]]), 0.5).astype(int).tolist()
      [[0, 1], [1, 0]]

    Reference: Sun et al. 2024 (arXiv 2306.11695), section 3.
    """
    return jax.tree.map(
        lambda leaf: all_but(leaf, count(sparsity, leaf.shape[-2]), axis=-2), scores
    )


def n_of_m(scores: Any, *, keep: int, of: int) -> Any:
    """Keeps the `keep` highest scores of every `of` inputs that follow each other.

    The groups run along the inputs, for each output by itself: what sparse tensor cores ask for.

    Args:
      scores: pytree of (..., inputs, outputs).
      keep: number kept in a group (not the number pruned).
      of: size of a group.

    Raises:
      ValueError: if `keep` is not in [1, of], or `of` does not divide the number of inputs.

    Example:
      >>> n_of_m(jnp.array([[1.0], [4.0], [3.0], [2.0]]), keep=1, of=4).ravel().astype(int).tolist()
      [0, 1, 0, 0]

    Reference: Mishra et al. 2021 (arXiv 2104.08378), section 3.
    """

    def select(leaf: Float[Array, "*stack i o"]) -> Bool[Array, "*stack i o"]:
        inputs, outputs = leaf.shape[-2:]
        split = (groups(inputs, keep=keep, of=of), of, outputs)
        grouped = leaf.reshape(*leaf.shape[:-2], *split)
        return all_but(grouped, of - keep, axis=-2).reshape(leaf.shape)

    return jax.tree.map(select, scores)


def global_(scores: Any, sparsity: Any) -> Any:
    """Prunes the lowest scores of all arrays together; they have to be comparable (`weights.lamp`).

    Args:
      scores: pytree of arrays of any shape.
      sparsity: fraction of all to prune, in [0, 1).

    Raises:
      ValueError: for a sparsity outside [0, 1).

    Example:
      >>> kept = global_({"a": jnp.array([1.0, 2.0]), "b": jnp.array([0.5, 4.0])}, 0.5)
      >>> {name: mask.astype(int).tolist() for name, mask in kept.items()}
      {'a': [0, 1], 'b': [0, 1]}
    """
    leaves, structure = jax.tree.flatten(scores)
    flat = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
    kept = all_but(flat, count(sparsity, flat.size), axis=-1)
    parts = jnp.split(kept, np.cumsum([leaf.size for leaf in leaves])[:-1])
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def all_but(scores: Float[Array, "*axes"], pruned: Any, *, axis: int) -> Bool[Array, "*axes"]:
    """Prunes a number of the lowest scores along one axis; what the other functions stand on.

    Args:
      scores: any shape.
      pruned: how many along the axis; may be traced.
      axis: which axis.

    Example:
      >>> all_but(jnp.array([2.0, 1.0, 1.0]), 1, axis=0).tolist()
      [True, True, False]
    """
    return _all_but(scores, pruned, axis)


@functools.partial(jax.jit, static_argnums=2)
def _all_but(scores: Any, pruned: Any, axis: int) -> Any:
    scores = jnp.moveaxis(jax.lax.stop_gradient(scores), axis, -1)
    order = jnp.argsort(scores, axis=-1, descending=True, stable=True)
    rank = jnp.argsort(order, axis=-1)
    return jnp.moveaxis(rank < scores.shape[-1] - pruned, -1, axis)


def count(sparsity: Any, size: int) -> Any:
    """How many of `size` are pruned: `round(sparsity * size)`.

    Raises:
      ValueError: for a sparsity outside [0, 1).

    Example:
      >>> count(0.9, 25)
      22
    """
    if isinstance(sparsity, Tracer):
        return jnp.round(sparsity * size).astype(jnp.int32)
    if not 0 <= sparsity < 1:
        raise check.fail("sparsity", "a number in [0, 1)", sparsity)
    return round(float(sparsity) * size)


def groups(inputs: int, *, keep: int, of: int) -> int:
    """How many groups of `of` the inputs make up, of each of which `keep` may stay.

    Raises:
      ValueError: if `keep` is not in [1, of], or `of` does not divide the number of inputs.

    Example:
      >>> groups(12, keep=1, of=4)
      3
    """
    check.integer("keep", keep, 1, check.integer("of", of, 1))
    if inputs % of:
        raise check.fail("scores", f"a multiple of {of} inputs", inputs)
    return inputs // of
