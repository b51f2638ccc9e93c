"""Logit losses without the logits: a few tokens at a time, from the final hidden states."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check
from jaxcompress.distill import masked

__all__ = ["chunked"]

Loss = Callable[..., tuple[Any, Any]]

ROWS = 64  # of the unembedding, whose gradient is added to at once


def chunked(loss: Loss, chunk: int = 64, parts: int = 1) -> Loss:
    """The same loss for hidden states and unembeddings, whose logits never exist all at once.

    `loss(hidden @ unembedding, teacher_hidden @ teacher_unembedding, mask, ...)` is computed for
    `chunk` tokens at a time. The gradient is formed on the way, so nothing is computed twice; equal
    to the plain one in value and gradient up to rounding. It goes to the student's hidden states
    and unembedding only: not to the teacher, the mask, or anything that `loss` closes over.

    Args:
      loss: `(student_logits, teacher_logits, mask, *more) -> (mean, count)`, such as those of
        `jaxcompress.distill.losses`, its options fixed with `functools.partial`. What it says of a
        position must not depend on the others.
      chunk: tokens at a time: memory is about eight float32 arrays (chunk, vocab).
      parts: of the first axis, each cut into chunks by itself: as many as the devices over which a
        batch is spread. Chunks that lie across devices would be computed on all of them.

    Returns:
      `(student, teacher, mask=None, *more) -> (mean, count)`. `student` is a pair: hidden states
      (..., width), after the final norm, and the unembedding (width, vocab); `teacher` likewise,
      of any width. `mask` (...) are weights or bools; `more` are arrays (...) that are cut in the
      same way, such as the labels of `mixed`. Raises `ValueError` for shapes that do not agree,
      or a first axis that `parts` does not divide.

    Raises:
      ValueError: for a `chunk` or `parts` that is no positive whole number.

    Example:
      >>> from jaxcompress.distill import losses
      >>> student, teacher = (jnp.ones((3, 2)), jnp.eye(2)), (jnp.ones((3, 1)), jnp.ones((1, 2)))
      >>> loss, count = chunked(losses.forward_kl, chunk=2)(student, teacher)
      >>> float(loss), float(count)
      (0.0, 3.0)

    Reference: Hsu et al. 2024 (Liger Kernel, arXiv 2410.10989), FusedLinearCrossEntropy.
    """
    check.integer("chunk", chunk, 1)
    check.integer("parts", parts, 1)

    def apply(student: Any, teacher: Any, mask: Any = None, *more: Any) -> tuple[Any, Any]:
        (hidden, unembedding), (other, other_unembedding) = student, teacher
        weights = masked.weights(mask, hidden.shape[:-1], "as the hidden states without the last")
        _agree(weights.shape, student, teacher, more)
        if parts > 1 and (weights.ndim == 0 or len(weights) % parts):
            raise check.fail("parts", "a divisor of the first axis", f"{parts} of {weights.shape}")
        rows = [masked.keep(x, weights).astype(x.dtype) for x in (hidden, other)]
        hidden, other, *rest = (
            _cut(x, weights.ndim, chunk, parts) for x in (*rows, weights, *more)
        )
        count = weights.sum()
        # Divided by the count from the start, the gradients need no last pass over them.
        scale = 1 / jnp.where(count > 0, count, 1.0)

        def mean(hidden: Any, rest: Any) -> jax.Array:
            constants = jax.lax.stop_gradient((other_unembedding, scale, rest))
            return _mean(loss, (hidden, unembedding), constants)

        given = hidden, (other, *rest)
        if parts == 1:  # mapped over an axis of one, it takes a third longer on a CPU
            return mean(*jax.tree.map(lambda x: x[0], given)), count
        # Every part sums a gradient of the unembedding by itself, and only these sums travel.
        return jax.vmap(mean)(*given).sum(), count

    return apply


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean(loss: Loss, student: Any, constants: Any) -> jax.Array:
    """The mean over all tokens. Hidden states, and what stands last in `constants`, in chunks."""
    hidden, unembedding = student
    other_unembedding, scale, rest = constants

    def step(total: Any, rows: Any) -> tuple[Any, None]:
        hidden, (other, *rest) = rows
        logits = _product(hidden, unembedding), _product(other, other_unembedding)
        return total + _share(*logits, loss, scale, rest), None

    return jax.lax.scan(step, jnp.float32(0), (hidden, rest))[0]


def _mean_and_gradient(loss: Loss, student: Any, constants: Any) -> tuple[jax.Array, Any]:
    hidden, unembedding = student
    other_unembedding, scale, rest = constants

    def step(carry: Any, rows: Any) -> tuple[Any, jax.Array]:
        total, gradient = carry
        hidden, (other, *rest) = rows
        logits = _product(hidden, unembedding), _product(other, other_unembedding)
        share, slope = jax.value_and_grad(_share)(*logits, loss, scale, rest)
        slope = slope.astype(jnp.result_type(hidden, unembedding))
        carry = total + share, _add_outer(gradient, hidden, slope)
        return carry, _product(slope, unembedding.T).astype(hidden.dtype)

    start = jnp.float32(0), jnp.zeros(unembedding.shape, jnp.float32)
    (total, gradient), hidden_gradient = jax.lax.scan(step, start, (hidden, rest))
    return total, (hidden_gradient, gradient.astype(unembedding.dtype))


def _scaled(loss: Loss, gradients: Any, cotangent: jax.Array) -> tuple[Any, None]:
    del loss
    return jax.tree.map(lambda x: (x * cotangent).astype(x.dtype), gradients), None


_mean.defvjp(_mean_and_gradient, _scaled)


def _share(student: Any, teacher: Any, loss: Loss, scale: Any, rest: Any) -> jax.Array:
    """What a chunk adds to the mean over all tokens."""
    mean, count = loss(student, teacher, *rest)
    return mean * count * scale


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    """The product x @ y, summed and returned in float32, whatever the inputs are rounded to."""
    return jnp.matmul(x, y, precision="highest", preferred_element_type=jnp.float32)


def _add_outer(total: jax.Array, hidden: jax.Array, slope: jax.Array) -> jax.Array:
    """Adds hidden.T @ slope to `total`, some rows at a time: no second array of that size."""
    step = min(ROWS, len(total))

    def add(start: Any, size: int, total: jax.Array) -> jax.Array:
        some = jax.lax.dynamic_slice_in_dim(hidden, start, size, axis=1)
        rows = jax.lax.dynamic_slice_in_dim(total, start, size) + _product(some.T, slope)
        return jax.lax.dynamic_update_slice_in_dim(total, rows, start, axis=0)

    blocks, left = divmod(len(total), step)
    total = jax.lax.fori_loop(0, blocks, lambda i, total: add(i * step, step, total), total)
    return add(len(total) - left, left, total) if left else total


def _cut(x: Any, leading: int, chunk: int, parts: int) -> jax.Array:
    """(positions..., more) as (parts, chunks, chunk, more), filled up with zeros."""
    rows = jnp.asarray(x).reshape(parts, -1, *x.shape[leading:])
    rows = jnp.pad(rows, [(0, 0), (0, -rows.shape[1] % chunk)] + [(0, 0)] * (rows.ndim - 2))
    return rows.reshape(parts, -1, chunk, *rows.shape[2:])


def _agree(positions: tuple[int, ...], student: Any, teacher: Any, more: Any) -> None:
    """Raises for shapes that a product or a reshape would put together in another way."""
    for name, (hidden, unembedding) in (("student", student), ("teacher", teacher)):
        sizes = hidden.shape[-1], student[1].shape[-1]
        check.shape(f"the {name}'s hidden states", hidden, [(*positions, sizes[0])])
        check.shape(f"the {name}'s unembedding", unembedding, [sizes], "(width, vocab)")
    for x in more:
        check.shape("more", x, [(*positions, *x.shape[len(positions) :])], "as the hidden states")
