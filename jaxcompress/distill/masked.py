"""What the teacher-student losses share: weights, junk kept out, weighted means, divergence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcompress import check

__all__ = ["divergence", "keep", "mean", "weights"]


def weights(mask: Any, shape: tuple[int, ...], axes: str) -> jax.Array:
    """The float32 weights that a mask means: itself, or 1 everywhere for `None`.

    Args:
      mask: weights, at least 0, or bools, or `None`.
      shape: the shape it must have; nothing is ever broadcast.
      axes: what the axes mean, for the message.

    Returns:
      Float32 weights of that shape.

    Raises:
      ValueError: for a mask that has another shape.

    Example:
      >>> weights(jnp.array([True, False]), (2,), "(token,)").tolist()
      [1.0, 0.0]
    """
    if mask is None:
        return jnp.ones(shape, jnp.float32)
    check.shape("mask", mask, [shape], axes)
    return jnp.asarray(mask, jnp.float32)


def keep(values: Any, weight: Any) -> jax.Array:
    """Float32 values, 0 where the weight is 0: a NaN there would otherwise reach the gradient.

    Args:
      values: (..., more axes).
      weight: (...), the leading axes of `values`.

    Returns:
      Float32 values of the same shape.

    Example:
      >>> keep(jnp.array([[1.0, 2.0], [jnp.nan, 3.0]]), jnp.array([1.0, 0.0])).tolist()
      [[1.0, 2.0], [0.0, 0.0]]
    """
    kept = weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim)) > 0
    return jnp.where(kept, values.astype(jnp.float32), 0.0)


def mean(values: Any, weight: Any) -> tuple[jax.Array, jax.Array]:
    """The weighted mean, and the sum of weights; the mean of nothing is 0.

    Example:
      >>> [float(x) for x in mean(jnp.array([2.0, 5.0]), jnp.array([3.0, 0.0]))]
      [2.0, 3.0]
    """
    count = weight.sum()
    return (values * weight).sum() / jnp.where(count > 0, count, 1.0), count


def divergence(
    log_p: Float[Array, "*rows v"], log_q: Float[Array, "*rows v"]
) -> Float[Array, "*rows"]:
    """KL(p || q) = sum_v p_v log(p_v / q_v) in nats, from logarithms.

    An entry where p is 0 adds nothing, whatever q is; one where only q is 0 makes it infinite.

    Args:
      log_p: (..., v) logarithms of probabilities.
      log_q: likewise.

    Returns:
      (...), one number per row.

    Example:
      >>> float(divergence(jnp.array([0.0, -jnp.inf]), jnp.log(jnp.array([0.5, 0.5]))))
      0.6931...
    """
    # 0 * log 0 is 0, but 0 * -inf is NaN, in the gradient too. With both at 0 an entry adds
    # exp(0) * (0 - 0), and nothing flows back through it.
    possible = jnp.exp(log_p) > 0
    log_p, log_q = (jnp.where(possible, log, 0.0) for log in (log_p, log_q))
    return (jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1)
