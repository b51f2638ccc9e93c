"""Masks: bools under the paths of the parameters they mask, True where a weight is kept.

A mask tree is a flat dict {slash path: bools} or any tree with the paths of some of the parameters;
parameters without a mask are left alone. Parameters may be any pytree, of any library.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcompress import check, tree

__all__ = ["MaskedState", "apply", "combine", "density", "keep_zeros"]


def apply(params: Any, masks: Any) -> Any:
    """Sets to zero what is not kept, whatever stands there; no gradient goes back to it.

    Args:
      params: pytree of arrays.
      masks: bools of the shape of the parameters at the same paths.

    Raises:
      ValueError: for a mask of something that is not there, or of another shape, or not of bools.

    Example:
      >>> params = {"mlp": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
      >>> apply(params, {"mlp/kernel": jnp.eye(2, dtype=bool)})["mlp"]["kernel"].tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    leaves, kept = tree.paths(params), tree.paths(masks)
    for path, mask in kept.items():
        if path not in leaves:
            hint = check.nearest(path, leaves)
            raise check.fail("masks", "paths of the parameters", repr(path), hint)
        if mask.dtype != bool:
            raise check.fail(f"masks[{path!r}]", "bools", mask.dtype)
        check.shape(f"masks[{path!r}]", mask, [leaves[path].shape])
    masked = [
        jnp.where(kept[path], leaf, 0) if path in kept else leaf for path, leaf in leaves.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(params), masked)


def density(masks: Any) -> Any:
    """Fraction of the masked weights that is kept.

    Parameters without a mask do not count; 1 if there is no mask at all.

    Example:
      >>> float(density({"a": jnp.eye(2, dtype=bool), "b": jnp.ones(4, bool)}))
      0.75
    """
    leaves = jax.tree.leaves(masks)
    size = sum(leaf.size for leaf in leaves)
    return sum(leaf.sum() / size for leaf in leaves) if size else 1.0


def combine(*masks: Any) -> dict[str, Any]:
    """Keeps what every mask keeps.

    Args:
      *masks: mask trees; a path that only some have is masked by those.

    Returns:
      One flat dict by path.

    Raises:
      ValueError: for two masks of one path with different shapes.

    Example:
      >>> left, right = jnp.array([True, True, False]), jnp.array([False, True, True])
      >>> combine({"a": left}, {"a": right, "b": left})["a"].tolist()
      [False, True, False]
    """
    combined: dict[str, Any] = {}
    for path, mask in (item for some in masks for item in tree.paths(some).items()):
        if path in combined:
            check.shape(f"masks[{path!r}]", mask, [combined[path].shape])
            mask = combined[path] & mask
        combined[path] = mask
    return combined


class MaskedState(NamedTuple):
    """State of `keep_zeros`.

    Attributes:
      masks: what is kept from the next update on. To prune further without compiling anew, mask
        the parameters and go on with `state._replace(masks=more)`.
      inner: state of the wrapped optimizer.
    """

    masks: Any
    inner: Any


def keep_zeros(
    optimizer: optax.GradientTransformation, masks: Any
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that pruned weights stay exactly what they are: zero, after `apply`.

    Neither weight decay nor momentum moves them; nor do their gradients count in the wrapped
    optimizer, in a global norm for instance. It is as if the masks were applied in the forward.

    Args:
      optimizer: the whole chain.
      masks: as in `apply`.

    Returns:
      An optimizer with a `MaskedState`.

    Raises:
      ValueError: in the update, for masks that do not fit the parameters.

    Example:
      >>> masks = {"w": jnp.array([True, False])}
      >>> params = apply({"w": jnp.array([1.0, 1.0])}, masks)
      >>> optimizer = keep_zeros(optax.sgd(0.5), masks)
      >>> gradients = {"w": jnp.array([1.0, 1.0])}
      >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [0.5, 0.0]
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> MaskedState:
        return MaskedState(masks, optimizer.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates = apply(updates, state.masks)
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        return apply(updates, state.masks), MaskedState(state.masks, inner)

    return optax.GradientTransformationExtraArgs(init, update)
