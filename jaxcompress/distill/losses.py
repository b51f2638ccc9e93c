"""Losses on logits: `(student, teacher, mask, ...) -> (mean, count)`, over the positions kept.

All are pure and safe under `jit`, `vmap` and `grad`. The mean is over positions, each counted by
its weight in `mask`; `count` is the sum of weights, with which means of several batches are put
together. What stands at a position of weight 0, be it NaN, changes neither value nor gradient. The
teacher is a constant: no gradient goes to it.

p is the teacher's distribution and q the student's. Forward is KL(p || q), reverse KL(q || p).

On-policy distillation (GKD) is any of these on what the student has said: sample responses, run
both models on prompt and response, and give as `mask` 1 at the positions whose next token is of a
response, 0 at those of the prompt and of padding. Sequence-level distillation is `cross_entropy` on
responses that the teacher has said, under the same mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxcompress import check
from jaxcompress.distill import masked

__all__ = [
    "cross_entropy",
    "forward_kl",
    "jsd",
    "mixed",
    "reverse_kl",
    "top_k_kl",
    "total_variation",
]

TAILS = ("bucket", "renormalise")

IMPOSSIBLE = -1e4  # in place of log 0 where a finite number is needed


def forward_kl(
    student_logits: Float[Array, "*positions v"],
    teacher_logits: Float[Array, "..."],
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
      ValueError: for a temperature that is not positive, or a shape that is not the student's.

    Example:
      >>> loss, count = forward_kl(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0]]))
      >>> float(loss), float(count)
      (0.0, 1.0)

    Reference: Hinton et al. 2015 (arXiv 1503.02531), section 2.
    """
    student, teacher, weights = _logs(student_logits, teacher_logits, mask, temperature)
    return masked.mean(masked.divergence(teacher, student) * temperature**2, weights)


def reverse_kl(
    student_logits: Float[Array, "*positions v"],
    teacher_logits: Float[Array, "..."],
    mask: Any = None,
    *,
    temperature: Any = 1.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Reverse KL with temperature: how unlikely the teacher finds what the student would say.

    T^2 * sum_v q_v log(q_v / p_v) with p = softmax(teacher / T) and q = softmax(student / T), per
    position. It prefers a student that leaves tokens out to one that adds some.

    Args:
      student_logits: (..., vocab).
      teacher_logits: (..., vocab). An entry of -inf is a token the teacher rules out: what the
        student puts there costs 1e4 nats per unit of probability, where the formula says infinity.
        Set the student's logits to -inf there as well and it costs nothing.
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.
      temperature: T, above 0. May be traced, and is then not checked.

    Returns:
      The mean in nats times T^2, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for a temperature that is not positive, or a shape that is not the student's.

    Example:
      >>> loss, count = reverse_kl(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 1.0]]))
      >>> round(float(loss), 4), float(count)
      (0.1201, 1.0)

    Reference: Gu et al. 2024 (MiniLLM, arXiv 2306.08543), section 2.1, token by token.
    """
    student, teacher, weights = _logs(student_logits, teacher_logits, mask, temperature)
    teacher = jnp.where(teacher == -jnp.inf, IMPOSSIBLE, teacher)
    divergence = masked.divergence(student, teacher)
    return masked.mean(divergence * temperature**2, weights)


def jsd(
    student_logits: Float[Array, "*positions v"],
    teacher_logits: Float[Array, "..."],
    mask: Any = None,
    *,
    beta: float | int = 0.5,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Generalised Jensen-Shannon divergence, between forward (`beta` 0) and reverse KL (1).

    beta * KL(p || m) + (1 - beta) * KL(q || m) with m = beta * p + (1 - beta) * q.

    At 0 and 1 the formula is 0; as in GKD and TRL the value there is its limit divided by beta or
    by 1 - beta, which are forward and reverse KL. So the value jumps at the ends: at beta = 0.01
    the loss and its gradient are about 0.01 times those of forward KL, which takes a learning rate
    100 times larger; likewise at 0.99. Nearer to the ends than that there is a `UserWarning`.

    Args:
      student_logits: (..., vocab).
      teacher_logits: (..., vocab); -inf is a token the teacher rules out.
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.
      beta: the teacher's share of the mixture, in [0, 1].

    Returns:
      The mean in nats, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for a `beta` outside [0, 1], or a shape that is not the student's.

    Example:
      >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 200.0]])
      >>> round(float(jsd(student, teacher)[0]), 4)
      0.2158

    Reference: Agarwal et al. 2024 (GKD, arXiv 2306.13649), section 2.
    """
    _fraction("beta", beta)
    if beta in (0, 1):
        return (reverse_kl if beta else forward_kl)(student_logits, teacher_logits, mask)
    if not 0.01 <= beta <= 0.99:
        size = min(beta, 1 - beta)
        limit = f"{'forward' if beta < 0.5 else 'reverse'} KL"
        warnings.warn(f"beta {beta}: this loss is about {size:.2g} times {limit}", stacklevel=2)
    student, teacher, weights = _logs(student_logits, teacher_logits, mask)
    mixture = beta * jnp.exp(teacher) + (1 - beta) * jnp.exp(student)
    mixture = jnp.log(jnp.maximum(mixture, jnp.finfo(jnp.float32).tiny))
    divergences = [masked.divergence(log, mixture) for log in (teacher, student)]
    return masked.mean(beta * divergences[0] + (1 - beta) * divergences[1], weights)


def total_variation(
    student_logits: Float[Array, "*positions v"],
    teacher_logits: Float[Array, "..."],
    mask: Any = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Total variation: the probability that the student would have to move.

    1/2 * sum_v |p_v - q_v|, in [0, 1].

    Args:
      student_logits: (..., vocab).
      teacher_logits: (..., vocab); -inf is a token the teacher rules out.
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.

    Returns:
      The mean, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for a shape that is not the student's.

    Example:
      >>> loss, _ = total_variation(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 200.0]]))
      >>> float(loss)
      0.5

    Reference: Wen et al. 2023 (f-DISTILL, arXiv 2307.15190).
    """
    student, teacher, weights = _logs(student_logits, teacher_logits, mask)
    return masked.mean(jnp.abs(jnp.exp(teacher) - jnp.exp(student)).sum(axis=-1) / 2, weights)


def top_k_kl(
    student_logits: Float[Array, "*positions v"],
    teacher_logits: Float[Array, "..."],
    mask: Any = None,
    *,
    k: int,
    tail: str = "bucket",
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Forward KL that tells apart the teacher's `k` most likely tokens only.

    With the tail as one bucket, the sum over these tokens of p log(p / q) plus the same term for
    all others together: never negative, at most forward KL, and what the student puts in the tail
    costs. Renormalised, the KL of both distributions over these tokens alone: it does not see
    what the student puts elsewhere, and is infinite, without a gradient, if the student rules out
    all. The sum over these tokens without a term for the tail is not offered: it can be negative,
    and falls without end as the student leaves the distribution.

    Args:
      student_logits: (..., vocab).
      teacher_logits: (..., vocab); -inf is a token the teacher rules out. Of equal ones the first
        are the more likely.
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.
      k: how many tokens, in [1, vocab]; with all of them this is forward KL.
      tail: "bucket" or "renormalise".

    Returns:
      The mean in nats, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for `k` out of bounds, an unknown `tail`, or a shape that is not the student's.

    Example:
      >>> student, teacher = jnp.array([[0.0, 0.0, 0.0]]), jnp.array([[1.0, 0.0, 0.0]])
      >>> round(float(top_k_kl(student, teacher, k=1)[0]), 4)
      0.1233
      >>> float(top_k_kl(student, teacher, k=1, tail="renormalise")[0])
      0.0
    """
    check.integer("k", k, 1, student_logits.shape[-1])
    check.known("tail", tail, TAILS)
    student, teacher, weights = _logs(student_logits, teacher_logits, mask)
    top = jax.lax.top_k(teacher, k)[1]
    group = _bucket if tail == "bucket" else _renormalise
    return masked.mean(masked.divergence(group(teacher, top), group(student, top)), weights)


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
    kept = masked.keep(logits, weights)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(kept, labels)
    return masked.mean(losses, weights)


def mixed(
    student_logits: Float[Array, "*positions v"],
    teacher_logits: Float[Array, "..."],
    mask: Any,
    labels: Int[Array, "*positions"],
    *,
    alpha: Any = 0.5,
    distillation: Callable[..., tuple[Any, Any]] = forward_kl,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A distillation loss mixed with the cross-entropy: the teacher's word and the text's.

    alpha * distillation + (1 - alpha) * cross_entropy.

    Args:
      student_logits: (..., vocab).
      teacher_logits: (..., vocab).
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.
      labels: (...) integers in [0, vocab), as in `cross_entropy`.
      alpha: the teacher's share, in [0, 1]. May be traced, and is then not checked.
      distillation: any loss `(student_logits, teacher_logits, mask) -> (mean, count)`; fix its
        options with `functools.partial(forward_kl, temperature=2.0)`.

    Returns:
      The mean in nats, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for an `alpha` outside [0, 1], or a shape that is not the student's.

    Example:
      >>> logits, labels = jnp.zeros((1, 4)), jnp.array([2])
      >>> loss, count = mixed(logits, logits, None, labels, alpha=0.75)
      >>> round(float(loss), 4), float(count)
      (0.3466, 1.0)

    Reference: Hinton et al. 2015 (arXiv 1503.02531), section 2.
    """
    _fraction("alpha", alpha)
    soft, count = distillation(student_logits, teacher_logits, mask)
    hard, _ = cross_entropy(student_logits, labels, mask)
    # A term without a share may be infinite, and 0 * infinity is NaN.
    soft, hard = (
        jnp.where(share > 0, share * loss, 0.0)
        for share, loss in ((alpha, soft), (1 - alpha, hard))
    )
    return soft + hard, count


def _weights(mask: Any, logits: Any) -> jax.Array:
    return masked.weights(mask, logits.shape[:-1], "as the logits without their last axis")


def _logs(
    student: Any, teacher: Any, mask: Any, temperature: Any = 1.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities of student and teacher in float32, and the weights of the positions."""
    if not isinstance(temperature, Tracer) and not temperature > 0:
        raise check.fail("temperature", "a number above 0", temperature)
    check.shape("teacher_logits", teacher, [student.shape], "as the student's")
    weights = _weights(mask, student)
    kept = (masked.keep(logits, weights) for logits in (student, jax.lax.stop_gradient(teacher)))
    student, teacher = (jax.nn.log_softmax(logits / temperature, axis=-1) for logits in kept)
    return student, teacher, weights


def _bucket(logs: jax.Array, top: jax.Array) -> jax.Array:
    """(..., k + 1) log-probabilities of the tokens `top`, and of all others together."""
    rest = jnp.put_along_axis(logs, top, -jnp.inf, axis=-1, inplace=False)
    # The logarithm of a sum of zeros is -inf, and its gradient NaN.
    empty = (rest == -jnp.inf).all(axis=-1, keepdims=True)
    total = jax.nn.logsumexp(jnp.where(empty, 0.0, rest), axis=-1, keepdims=True)
    total = jnp.where(empty, -jnp.inf, total)
    return jnp.concatenate([jnp.take_along_axis(logs, top, axis=-1), total], axis=-1)


def _renormalise(logs: jax.Array, top: jax.Array) -> jax.Array:
    """(..., k) log-probabilities among the tokens `top`."""
    picked = jnp.take_along_axis(logs, top, axis=-1)
    # There is no distribution over nothing: NaN, in the gradient too.
    empty = (picked == -jnp.inf).all(axis=-1, keepdims=True)
    logs = jax.nn.log_softmax(jnp.where(empty, 0.0, picked), axis=-1)
    return jnp.where(empty, -jnp.inf, logs)


def _fraction(name: str, value: Any) -> None:
    if not isinstance(value, Tracer) and not 0 <= value <= 1:
        raise check.fail(name, "a number in [0, 1]", value)
