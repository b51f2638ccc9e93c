"""What is read off the logits at the answer position; one number per prompt.

A metric is a function `(logits, prompts, clean_logits) -> (batch,)`. The two logits are
(batch, vocab): of the run that is measured, and of the same model left alone, which only `kl` uses.
Answers are sets (padded with -1), so the same metrics serve one right answer and many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcompress import check
from jaxcompress.tasks.prompts import Prompts

__all__ = [
    "METRICS",
    "Metric",
    "accuracy",
    "get_metric",
    "kl",
    "logit_difference",
    "probability",
    "probability_difference",
]

Metric = Callable[[Any, Prompts, Any], Any]


def _pick(values: Float[Array, "b v"], answers: Int[Array, "b a"], empty: float) -> Array:
    """(batch, answer) values at the answers, `empty` where there is none."""
    picked = jnp.take_along_axis(values, jnp.maximum(answers, 0), axis=1)
    return jnp.where(answers >= 0, picked, empty)


def logit_difference(
    logits: Float[Array, "b v"], prompts: Prompts, clean_logits: Any = None
) -> Float[Array, " b"]:
    """Log-odds of the right answers over the wrong ones, in nats.

    logsumexp(right logits) - logsumexp(wrong logits); with one answer on each side this is the
    plain logit difference of Wang et al. 2022 (arXiv 2211.00593, section 2.2).

    Args:
      logits: (batch, vocab) at the answer position.
      prompts: carries the answers.
      clean_logits: not used.

    Returns:
      (batch,) in nats.

    Example:
      >>> row = jnp.zeros((1, 1), jnp.int32)
      >>> prompts = Prompts(row, row, row + 1, row[:, 0], correct=row, wrong=row + 1)
      >>> logit_difference(jnp.asarray([[3.0, 1.0]]), prompts).tolist()
      [2.0]
    """
    del clean_logits
    right = jax.nn.logsumexp(_pick(logits, prompts.correct, -jnp.inf), axis=1)
    return right - jax.nn.logsumexp(_pick(logits, prompts.wrong, -jnp.inf), axis=1)


def probability(
    logits: Float[Array, "b v"], prompts: Prompts, clean_logits: Any = None
) -> Float[Array, " b"]:
    """Probability mass on the right answers, in [0, 1]; arguments as in `logit_difference`.

    Example:
      >>> row = jnp.zeros((1, 1), jnp.int32)
      >>> prompts = Prompts(row, row, row + 1, row[:, 0], correct=row, wrong=row + 1)
      >>> probability(jnp.zeros((1, 2)), prompts).tolist()
      [0.5]
    """
    del clean_logits
    return _pick(jax.nn.softmax(logits, axis=-1), prompts.correct, 0.0).sum(axis=1)


def probability_difference(
    logits: Float[Array, "b v"], prompts: Prompts, clean_logits: Any = None
) -> Float[Array, " b"]:
    """Mass on right minus mass on wrong answers, in [-1, 1].

    The greater-than metric of Hanna et al. 2023 (arXiv 2305.00586, section 2.2); arguments as in
    `logit_difference`.

    Example:
      >>> row = jnp.zeros((1, 1), jnp.int32)
      >>> prompts = Prompts(row, row, row + 1, row[:, 0], correct=row, wrong=row + 1)
      >>> probability_difference(jnp.zeros((1, 2)), prompts).tolist()
      [0.0]
    """
    del clean_logits
    probabilities = jax.nn.softmax(logits, axis=-1)
    right = _pick(probabilities, prompts.correct, 0.0).sum(axis=1)
    return right - _pick(probabilities, prompts.wrong, 0.0).sum(axis=1)


def accuracy(
    logits: Float[Array, "b v"], prompts: Prompts, clean_logits: Any = None
) -> Float[Array, " b"]:
    """1 where the most likely token of the whole vocabulary is a right answer, else 0.

    Example:
      >>> row = jnp.zeros((1, 1), jnp.int32)
      >>> prompts = Prompts(row, row, row + 1, row[:, 0], correct=row, wrong=row + 1)
      >>> accuracy(jnp.asarray([[3.0, 1.0]]), prompts).tolist()
      [1.0]
    """
    del clean_logits
    top = jnp.argmax(logits, axis=-1)
    return (top[:, None] == prompts.correct).any(axis=1).astype(jnp.float32)


def kl(
    logits: Float[Array, "b v"], prompts: Prompts, clean_logits: Float[Array, "b v"]
) -> Float[Array, " b"]:
    """KL(clean run || this run) at the answer position, in nats.

    Example:
      >>> row = jnp.zeros((1, 1), jnp.int32)
      >>> prompts = Prompts(row, row, row + 1, row[:, 0], correct=row, wrong=row + 1)
      >>> kl(jnp.zeros((1, 2)), prompts, jnp.zeros((1, 2))).tolist()
      [0.0]
    """
    del prompts
    clean = jax.nn.log_softmax(clean_logits, axis=-1)
    return (jnp.exp(clean) * (clean - jax.nn.log_softmax(logits, axis=-1))).sum(axis=-1)


METRICS: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (logit_difference, probability, probability_difference, accuracy, kl)
}


def get_metric(metric: str | Metric) -> Metric:
    """A metric by name, or the function itself; an unknown name is a `ValueError`.

    Example:
      >>> get_metric("kl") is kl
      True
    """
    if callable(metric):
        return metric
    return METRICS[check.known("metric", metric, METRICS)]
