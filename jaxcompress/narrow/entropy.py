"""Cross-entropy of very sure networks, in float32.

A network that has grokked gives its answer a probability of 1 - 1e-9, which float32 rounds to 1:
`log_softmax` then returns multiples of 1e-7 and gradients that are noise, and training runs into
spikes. The published code computes in float64. Here the loss is written as
softplus(logsumexp(wrong logits) - right logit), which is the same number, and keeps its relative
precision, and that of its gradient, down to 1e-37 in float32.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["accuracy", "cross_entropy", "mean_over"]


def cross_entropy(
    logits: Float[Any, "*batch vocab"], answers: Int[Any, "*batch"]
) -> Float[Array, "*batch"]:
    """-log p(answer) in nats, precise also where p is as good as 1.

    Args:
      logits: float32; at least two classes.
      answers: classes.

    Example:
      >>> loss = cross_entropy(jnp.array([[40.0, 0.0]]), jnp.array([0]))
      >>> abs(float(loss[0]) / 4.248354e-18 - 1) < 1e-5
      True
    """
    # No gather: its gradient is a scatter, which is slow on a CPU.
    mine = jax.nn.one_hot(answers, logits.shape[-1], dtype=bool)
    right = jnp.sum(jnp.where(mine, logits, 0.0), axis=-1)
    others = jnp.where(mine, -jnp.inf, logits)
    return jax.nn.softplus(jax.nn.logsumexp(others, axis=-1) - right)


def mean_over(values: Float[Any, "pair"], chosen: Bool[Any, "pair"]) -> Float[Array, ""]:
    """Mean of the values that are chosen; the choice may be traced, so fractions can be vmapped.

    Example:
      >>> float(mean_over(jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])))
      2.0
    """
    return jnp.sum(jnp.where(chosen, values, 0.0)) / jnp.sum(chosen)


def accuracy(logits: Float[Any, "pair vocab"], answers: Any) -> Float[Array, "pair"]:
    """1 where the largest logit is the answer's.

    Example:
      >>> accuracy(jnp.array([[0.0, 2.0], [0.0, 2.0]]), jnp.array([1, 0])).tolist()
      [1.0, 0.0]
    """
    return (jnp.argmax(logits, axis=-1) == answers).astype(jnp.float32)
