"""Losses on logits: `(logits, target, mask) -> (mean, count)`, over the positions the mask keeps.

All are pure and safe under `jit`, `vmap` and `grad`. The mean is over positions, each counted by
its weight in `mask`; `count` is the sum of weights, with which means of several batches are put
together. What stands at a position of weight 0, be it NaN, changes neither value nor gradient.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxcompress import check

__all__ = ["cross_entropy", "forward_kl"]


def forward_kl(
    student_logits: Float[Array, "*positions v"],
    teacher_logits: Float[Array, "*positions v"],
    mask: Any = None,
    *,
    temperature: Any = 1.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Forward KL with temperature: how surprised the student is by the teacher.

    T^2 * sum_v p_v log(p_v / q_v) with p = softmax(teacher / T) and q = softmax(student / T); T^2
    keeps the gradient's size when T changes. The teacher is a constant: no gradient goes to it.

    Args:
      student_logits: (..., vocab).
      teacher_logits: (..., vocab). An entry of -inf is a token the teacher rules out; it adds
        nothing, whatever the student says there.
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.
      temperature: T, above 0. May be traced, and is then not checked.

    Returns:
      The mean in nats times T^2, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for a temperature that is not positive, or a mask that has another shape.

    Example:
      >>> loss, count = forward_kl(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0]]))
      >>> float(loss), float(count)
      (0.0, 1.0)

    Reference: Hinton et al. 2015 (arXiv 1503.02531), section 2.
    """
    if isinstance(temperature, int | float) and not temperature > 0:
        raise check.fail("temperature", "a number above 0", temperature)
    weights = _weights(mask, student_logits)
    student = jax.nn.log_softmax(_kept(student_logits, weights) / temperature, axis=-1)
    teacher = _kept(jax.lax.stop_gradient(teacher_logits), weights) / temperature
    teacher = jax.nn.log_softmax(teacher, axis=-1)
    # 0 * log 0 is 0, but 0 * -inf is NaN, in the gradient too. With both at 0 an entry adds
    # exp(0) * (0 - 0), and nothing flows back through it.
    possible = jnp.exp(teacher) > 0
    student, teacher = (jnp.where(possible, log, 0.0) for log in (student, teacher))
    divergence = optax.losses.kl_divergence_with_log_targets(student, teacher)
    return _mean(divergence * temperature**2, weights)


def cross_entropy(
    logits: Float[Array, "*positions v"], labels: Int[Array, "*positions"], mask: Any = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy with the tokens that really follow.

    -log softmax(logits)[label].

    Args:
      logits: (..., vocab), those at each position; shift the labels yourself.
      labels: (...) integers in [0, vocab); what stands where the weight is 0 does not matter.
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.

    Returns:
      The mean in nats, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for a mask that has another shape.

    Example:
      >>> loss, count = cross_entropy(jnp.zeros((1, 3, 4)), jnp.array([[1, 2, 0]]))
      >>> round(float(loss), 4), float(count)
      (1.3863, 3.0)
    """
    weights = _weights(mask, logits)
    labels = jnp.where(weights > 0, labels, 0)
    kept = _kept(logits, weights)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(kept, labels)
    return _mean(losses, weights)


def _weights(mask: Any, logits: Any) -> jax.Array:
    if mask is None:
        return jnp.ones(logits.shape[:-1], jnp.float32)
    check.shape("mask", mask, [logits.shape[:-1]], "as the logits without their last axis")
    return jnp.asarray(mask, jnp.float32)


def _kept(logits: Any, weights: jax.Array) -> jax.Array:
    """Float32 logits, 0 where the weight is 0: a NaN there would otherwise reach the gradient."""
    return jnp.where(weights[..., None] > 0, logits.astype(jnp.float32), 0.0)


def _mean(values: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    count = weights.sum()
    return (values * weights).sum() / jnp.where(count > 0, count, 1.0), count
