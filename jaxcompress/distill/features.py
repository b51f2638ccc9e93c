"""Losses on activations: hidden states, and where they are large.

The losses are `(student, teacher, mask, ...) -> (mean, count)` as those on logits are: the mask
weighs positions, what stands at weight 0 changes nothing, and no gradient goes to the teacher.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcompress import check
from jaxcompress.distill import masked

__all__ = ["attention_transfer", "hidden_cosine", "hidden_mse"]


def hidden_mse(
    student: Float[Array, "*positions m"],
    teacher: Float[Array, "..."],
    mask: Any = None,
    *,
    projection: Any = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean squared difference of hidden states, over positions and the teacher's channels.

    mean_t ||student_t P - teacher_t||^2 / n, n being the teacher's width.

    Args:
      student: (..., student width).
      teacher: (..., teacher width).
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.
      projection: P, (student width, teacher width), learned with the student; `None` if the widths
        are the same.

    Returns:
      The mean, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for shapes that do not agree.

    Example:
      >>> loss, count = hidden_mse(jnp.ones((3, 2)), jnp.zeros((3, 4)), projection=jnp.ones((2, 4)))
      >>> float(loss), float(count)
      (4.0, 3.0)

    Reference: Romero et al. 2015 (FitNets, arXiv 1412.6550), section 2.2; Jiao et al. 2020
      (TinyBERT, arXiv 1909.10351), section 3.1.
    """
    student, teacher, weights = _hidden(student, teacher, mask, projection)
    return masked.mean(((student - teacher) ** 2).mean(axis=-1), weights)


def hidden_cosine(
    student: Float[Array, "*positions m"],
    teacher: Float[Array, "..."],
    mask: Any = None,
    *,
    projection: Any = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How far hidden states are from pointing the same way.

    mean_t 1 - cos(student_t P, teacher_t), in [0, 2]; 1 where either is zero. Twice this is the
    squared distance of the normalised states, the loss of PKD (Sun et al. 2019, arXiv 1908.09355).

    Args:
      student: (..., student width).
      teacher: (..., teacher width).
      mask: (...) weights, at least 0, or bools; `None` is 1 everywhere.
      projection: P, (student width, teacher width), learned with the student; `None` if the widths
        are the same.

    Returns:
      The mean, and the sum of weights; the mean of no positions is 0.

    Raises:
      ValueError: for shapes that do not agree.

    Example:
      >>> loss, _ = hidden_cosine(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]]))
      >>> float(loss)
      1.0

    Reference: Sanh et al. 2019 (DistilBERT, arXiv 1910.01108).
    """
    student, teacher, weights = _hidden(student, teacher, mask, projection)
    return masked.mean(1 - (_unit(student) * _unit(teacher)).sum(axis=-1), weights)


def attention_transfer(
    student: Float[Array, "*batch t m"], teacher: Float[Array, "..."], mask: Any = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Do both spend their activation at the same positions?

    mean over examples of ||Q_s / ||Q_s|| - Q_t / ||Q_t|| ||, Q[t] = sum_c activation[t, c]^2. The
    paper's term is this times beta / 2.

    Args:
      student: (..., position, channel): of a sequence or, flattened, an image.
      teacher: (..., position, channel), any number of channels.
      mask: (..., position): positions where it is 0 are left out; `None` keeps all.

    Returns:
      The mean over examples, and how many have a position.

    Raises:
      ValueError: for shapes that do not agree.

    Example:
      >>> student, teacher = jnp.array([[0.0], [2.0]]), jnp.array([[3.0, 4.0], [0.0, 0.0]])
      >>> loss, count = attention_transfer(student, teacher)
      >>> round(float(loss), 4), float(count)
      (1.4142, 1.0)

    Reference: Zagoruyko and Komodakis 2017 (arXiv 1612.03928), equation 2, with p = 2.
    """
    weights = masked.weights(mask, student.shape[:-1], "as the activations without their channels")
    check.shape("teacher", teacher, [(*student.shape[:-1], teacher.shape[-1])], "but for channels")
    both = (masked.keep(x, weights) for x in (student, jax.lax.stop_gradient(teacher)))
    ours, theirs = (_unit((x**2).sum(axis=-1)) for x in both)
    square = ((ours - theirs) ** 2).sum(axis=-1)
    # The gradient of the root at 0 is infinite.
    distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return masked.mean(distance, (weights > 0).any(axis=-1).astype(jnp.float32))


def _hidden(
    student: Any, teacher: Any, mask: Any, projection: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both hidden states in the teacher's width, and the weights of the positions."""
    weights = masked.weights(mask, student.shape[:-1], "as the hidden states without their width")
    student = masked.keep(student, weights)
    if projection is not None:
        widths = student.shape[-1], teacher.shape[-1]
        check.shape("projection", projection, [widths], "(student width, teacher width)")
        student = jnp.matmul(student, projection.astype(jnp.float32), precision="highest")
    check.shape("teacher", teacher, [student.shape], "as the student, after projection")
    return student, masked.keep(jax.lax.stop_gradient(teacher), weights), weights


def _unit(x: jax.Array) -> jax.Array:
    """Vectors on the last axis at length 1; zero stays zero."""
    square = (x * x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
