"""An optimizer that lets go of neurons whose weights have become small, for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcompress import tree
from jaxcompress.prune.regularizers import group_norm

__all__ = ["alive", "thresholded"]

Groups = Mapping[str, tuple[int, ...]]


def alive(params: Any, groups: Groups) -> jax.Array:
    """Which groups still have a weight that comes in: booleans, one for each.

    Args:
      params: pytree of arrays.
      groups: as in `prune.group_norm`; the first path is that of the weights that come in.

    Example:
      >>> alive({"up": jnp.array([[1.0, 0.0]])}, {"up": (1,)}).tolist()
      [True, False]
    """
    first = next(iter(groups))
    return group_norm(params, {first: groups[first]}) > 0


def thresholded(
    optimizer: optax.GradientTransformation, groups: Mapping[str, Groups], limit: Any
) -> optax.GradientTransformation:
    """Wraps an optimizer: after each update, groups whose norm is at most `limit` lose their input.

    A group that has lost it never gets it back, whatever gradient or momentum says. As in the code
    of the paper only the incoming weights are zeroed: a dead neuron still emits what its bias says.

    Args:
      optimizer: the whole chain.
      groups: by name, such as that of a layer, the groups as in `prune.group_norm`; the first path
        of each is that of the incoming weights. Their norm is over all the paths.
      limit: norms at most this large; negative for none. May be traced.

    Example:
      >>> groups = {"hidden": {"up": (1,), "down": (0,)}}
      >>> params = {"up": jnp.array([[1.0, 0.1]]), "down": jnp.array([[1.0], [0.1]])}
      >>> optimizer = thresholded(optax.sgd(0.0), groups, 0.5)
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> (params["up"] + updates["up"]).tolist()
      [[1.0, 0.0]]

    Reference: Michaud et al. 2025 (arXiv 2505.15811), section 4, and the code of "narrow".
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, state, params)
        moved = optax.apply_updates(params, updates)
        leaves, old = tree.paths(moved), tree.paths(params)
        for one in groups.values():
            keep = alive(params, one) & (group_norm(moved, one) > limit)
            path, axes = next(iter(one.items()))
            view = jnp.moveaxis(leaves[path], axes, range(len(axes)))
            kept = jnp.where(keep.reshape(keep.shape + (1,) * (view.ndim - keep.ndim)), view, 0.0)
            leaves[path] = jnp.moveaxis(kept, range(len(axes)), axes)
        changes = [leaf - old[path] for path, leaf in leaves.items()]
        return jax.tree.unflatten(jax.tree.structure(params), changes), state

    return optax.GradientTransformation(optimizer.init, update)
