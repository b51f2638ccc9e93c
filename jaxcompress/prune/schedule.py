"""When weights go: at once, in rounds, along a cubic, or as learned sizes near their target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from jaxcompress import check, tree
from jaxcompress.prune import masks

__all__ = ["ascend", "cubic", "iterative", "one_shot"]

Score = Callable[[Any], Any]
Select = Callable[[Any, Any], Any]


def one_shot(
    params: Any, score: Score, select: Select, sparsity: Any, earlier: Any = None
) -> tuple[Any, dict[str, Any]]:
    """Scores, selects and masks.

    Args:
      params: pytree of arrays.
      score: `params -> scores`, under paths of the parameters and each of the size of its
        parameter (a matrix view, say); what has no score is not pruned.
      select: `(scores, sparsity) -> masks`: `patterns.per_tensor`, `per_row` or `global_`.
      sparsity: fraction of the scored weights that is pruned afterwards, in [0, 1).
      earlier: masks of a round before; what they prune goes first, counts, and never comes back.

    Returns:
      The masked parameters, and the masks by path, of the parameters' shapes.

    Raises:
      ValueError: for scores of something that is not there, or of another size.

    Example:
      >>> from jaxcompress.prune import patterns
      >>> params = {"kernel": jnp.array([[1.0, -4.0], [3.0, -2.0]]), "bias": jnp.ones(2)}
      >>> score = lambda params: {"kernel": jnp.abs(params["kernel"])}
      >>> params, kept = one_shot(params, score, patterns.per_tensor, 0.5)
      >>> params["kernel"].tolist(), list(kept)
      ([[0.0, -4.0], [3.0, 0.0]], ['kernel'])
    """
    scores = tree.paths(score(params))
    before = _shaped("earlier", earlier or {}, scores)
    for path, mask in before.items():
        scores[path] = jnp.where(mask, scores[path], -jnp.inf)
    found = tree.paths(select(scores, sparsity))
    found |= {path: found[path] & mask for path, mask in before.items()}
    kept = _shaped("scores", found, tree.paths(params))
    return masks.apply(params, kept), kept


def _shaped(name: str, tree_of_masks: Any, like: dict[str, Any]) -> dict[str, Any]:
    """Masks in the shapes that the same paths have elsewhere: matrix views, or parameters."""
    shaped = {}
    for path, mask in tree.paths(tree_of_masks).items():
        if path not in like:
            raise check.fail(name, f"paths among {sorted(like)}", repr(path))
        shape = like[path].shape
        if mask.size != math.prod(shape):
            raise check.fail(f"{name}[{path!r}]", f"the size of {shape}", f"shape {mask.shape}")
        shaped[path] = mask.reshape(shape)
    return shaped


def iterative(
    params: Any,
    score: Score,
    select: Select,
    sparsities: Sequence[float],
    recover: Callable[[Any, dict[str, Any]], Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Prunes in rounds, with the scores of what is left each time; what is gone stays gone.

    Args:
      params: as in `one_shot`.
      score: likewise.
      select: likewise.
      sparsities: after each round, never falling; `cubic(0.9, 10)(i)` for i up to 10, say.
      recover: `(params, masks) -> params`, after each round: training with `masks.keep_zeros`.

    Returns:
      The masked parameters, and the last masks.

    Raises:
      ValueError: if there is no round, or a sparsity falls.

    Example:
      >>> from jaxcompress.prune import patterns
      >>> params = {"kernel": jnp.array([[1.0, -4.0], [3.0, -2.0]])}
      >>> score = lambda params: {"kernel": jnp.abs(params["kernel"])}
      >>> iterative(params, score, patterns.per_tensor, [0.25, 0.5])[0]["kernel"].tolist()
      [[0.0, -4.0], [3.0, 0.0]]

    Reference: Han et al. 2015 (arXiv 1506.02626), section 3.
    """
    if not len(sparsities) or list(sparsities) != sorted(sparsities):
        raise check.fail("sparsities", "one or more numbers that never fall", sparsities)
    kept: dict[str, Any] = {}
    for sparsity in sparsities:
        params, kept = one_shot(params, score, select, sparsity, kept)
        params = recover(params, kept) if recover else params
    return params, kept


def cubic(final: float, steps: int, *, begin: int = 0, initial: float = 0.0) -> optax.Schedule:
    """Sparsity by step: rises fast while there is much to prune, then ever more slowly.

    final + (initial - final) (1 - (step - begin) / steps)^3, constant before and after.

    Args:
      final: sparsity at the end, in [0, 1).
      steps: over which it rises.
      begin: first step of the rise.
      initial: sparsity before it, in [0, final].

    Raises:
      ValueError: for a sparsity or a number of steps out of bounds.

    Example:
      >>> [round(float(cubic(0.9, 4)(step)), 4) for step in range(5)]
      [0.0, 0.5203, 0.7875, 0.8859, 0.9]

    Reference: Zhu and Gupta 2017 (arXiv 1710.01878), equation 1.
    """
    if not 0 <= final < 1:
        raise check.fail("final", "a number in [0, 1)", final)
    if not 0 <= initial <= final:
        raise check.fail("initial", f"a number in [0, {final}]", initial)
    check.integer("steps", steps, 1)
    check.integer("begin", begin, 0)
    return optax.polynomial_schedule(
        initial, final, power=3, transition_steps=steps, transition_begin=begin
    )


def ascend(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimizer that climbs instead: for the multipliers of `l0.lagrangian`.

    In `optax.partition` beside that of the gates, one gradient of the loss plus the Lagrangian
    trains both.

    Example:
      >>> climb = ascend(optax.sgd(0.5))
      >>> float(climb.update(jnp.array(2.0), climb.init(jnp.array(0.0)))[0])
      1.0

    Reference: Xia et al. 2024 (arXiv 2310.06694), section 2.1.
    """
    return optax.chain(optax.scale(-1.0), optimizer)
