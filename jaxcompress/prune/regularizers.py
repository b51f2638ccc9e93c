"""What makes weights ask to be pruned while they train: group lasso and learned masks.

Group lasso shrinks whole groups of weights, all that one gate would switch off, and its proximal
step reaches exact zeros. `straight_through` trains the scores that decide which weights stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcompress import check, tree

__all__ = ["group_lasso", "group_norm", "prox", "straight_through"]

Groups = Mapping[str, Sequence[int]]
"""By path, the axes of a parameter that number the groups; its other axes are within a group."""


def straight_through(
    mask: Bool[Array, "*axes"], scores: Float[Array, "*axes"]
) -> Float[Array, "*axes"]:
    """A mask as numbers, whose gradient goes to the scores as if it were the scores.

    `weight * straight_through(per_tensor(scores, sparsity), scores)` is movement pruning: the
    forward is that of the masked weight, and the gradient of a score is that of the masked weight
    times the weight, for pruned weights too. `sigmoid(scores) > threshold` is a mask as well (soft
    movement pruning).

    Args:
      mask: True where kept.
      scores: what the mask was selected by, finite.

    Example:
      >>> scores, weight = jnp.array([1.0, 0.0]), jnp.array([3.0, 5.0])
      >>> loss = lambda scores: (weight * straight_through(scores > 0.5, scores)).sum()
      >>> float(loss(scores)), jax.grad(loss)(scores).tolist()
      (3.0, [3.0, 5.0])

    Reference: Sanh et al. 2020 (arXiv 2005.07683), section 4.
    """
    return mask.astype(scores.dtype) + (scores - jax.lax.stop_gradient(scores))


def group_norm(params: Any, groups: Groups) -> Float[Array, "*groups"]:
    """L2 norm of each group of weights, over all the parameters it runs through.

    Neurons of stacked layers are `{"blocks/mlp/up/kernel": (0, 2), "blocks/mlp/up/bias": (0, 1),
    "blocks/mlp/down/kernel": (0, 1)}`, and their norms (layer, neuron).

    Args:
      params: any pytree.
      groups: by path the axes that number the groups, in the same order everywhere.

    Returns:
      One norm per group, in float32; its gradient at 0 is 0.

    Raises:
      ValueError: for a path that is not there, or axes of different sizes.

    Example:
      >>> params = {"up": jnp.array([[3.0, 0.0]]), "down": jnp.array([[4.0], [1.0]])}
      >>> group_norm(params, {"up": (1,), "down": (0,)}).tolist()
      [5.0, 1.0]
    """
    squares = sum(
        jnp.square(view.astype(jnp.float32)).sum(axis=tuple(range(len(groups[path]), view.ndim)))
        for path, view in _views(params, groups).items()
    )
    above = squares > 0
    return jnp.where(above, jnp.sqrt(jnp.where(above, squares, 1.0)), 0.0)


def group_lasso(params: Any, groups: Groups) -> Float[Array, ""]:
    """sum_g sqrt(|g|) ||w_g||: the penalty whose proximal step is `prox`.

    Args:
      params: as in `group_norm`.
      groups: likewise.

    Example:
      >>> float(group_lasso({"w": jnp.array([[3.0, 4.0, 0.0, 0.0]])}, {"w": (0,)}))
      10.0

    Reference: Yuan and Lin 2006 (J. R. Stat. Soc. B 68), section 2.
    """
    return math.sqrt(_size(params, groups)) * group_norm(params, groups).sum()


def prox(params: Any, groups: Groups, strength: Any) -> Any:
    """Pulls each group towards 0 and sets the small ones to exactly 0.

    w_g (1 - strength sqrt(|g|) / ||w_g||)_+, the minimiser of ||v - w||^2 / 2 + strength *
    group_lasso(v). For after each step of an optimizer whose loss leaves the penalty out: as part
    of the loss it never gets a weight to 0.

    Args:
      params: as in `group_norm`.
      groups: likewise.
      strength: learning rate times the weight of the penalty.

    Returns:
      The parameters, those in no group as they were.

    Example:
      >>> w = jnp.array([[3.0, 4.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
      >>> prox({"w": w}, {"w": (0,)}, 1.25)["w"].tolist()
      [[1.5, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]

    Reference: Yuan and Lin 2006 (J. R. Stat. Soc. B 68), equation 2.4.
    """
    norm = group_norm(params, groups)
    threshold = strength * math.sqrt(_size(params, groups))
    above = norm > threshold
    factor = jnp.where(above, 1 - threshold / jnp.where(above, norm, 1.0), 0.0)
    leaves = tree.paths(params)
    for path, view in _views(params, groups).items():
        inside = tuple(range(factor.ndim, view.ndim))
        shrunk = view * jnp.expand_dims(factor, inside).astype(view.dtype)
        leaves[path] = jnp.moveaxis(shrunk, range(factor.ndim), groups[path])
    return jax.tree.unflatten(jax.tree.structure(params), leaves.values())


def _views(params: Any, groups: Groups) -> dict[str, Any]:
    """The grouped parameters by path, with the axes that number the groups in front."""
    leaves, views = tree.paths(params), {}
    numbers: tuple[int, ...] | None = None
    for path, axes in groups.items():
        if path not in leaves:
            hint = check.nearest(path, leaves)
            raise check.fail("groups", "paths of the parameters", repr(path), hint)
        views[path] = jnp.moveaxis(leaves[path], axes, range(len(axes)))
        found = views[path].shape[: len(axes)]
        if numbers is not None and found != numbers:
            raise check.fail(f"groups[{path!r}]", f"axes of sizes {numbers}", found)
        numbers = found
    if numbers is None:
        raise check.fail("groups", "at least one path", "none")
    return views


def _size(params: Any, groups: Groups) -> int:
    """Weights in a group."""
    views = _views(params, groups)
    return sum(math.prod(view.shape[len(groups[path]) :]) for path, view in views.items())
