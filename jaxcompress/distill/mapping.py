"""Which layer of the student learns from which of the teacher: pairs, and losses over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxcompress import check, tree

__all__ = ["Pairs", "layerwise", "strided", "uniform"]

Pairs = Sequence[tuple[int, int]]
"""(student layer, teacher layer), counted from 0; any of them may occur more than once."""


def uniform(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """Layers spread evenly from end to end: the first with the first, the last with the last.

    Layer i learns from layer i * (teacher_layers - 1) / (student_layers - 1), rounded (halves to
    the even one); a single layer learns from the last.

    Args:
      student_layers: at least 1.
      teacher_layers: at least 1; fewer than the student's are used more than once.

    Returns:
      (student layer, teacher layer), counted from 0. In a stack of layers + 1 residual streams,
      which starts with the embeddings, add 1 to both.

    Raises:
      ValueError: for numbers below 1.

    Example:
      >>> uniform(3, 12)
      [(0, 0), (1, 6), (2, 11)]
    """
    check.integer("student_layers", student_layers, 1)
    check.integer("teacher_layers", teacher_layers, 1)
    if student_layers == 1:
        return [(0, teacher_layers - 1)]
    last, deepest = student_layers - 1, teacher_layers - 1
    # One division of whole numbers: a rounded step, times i, would miss some halves.
    return [(i, round(i * deepest / last)) for i in range(student_layers)]


def strided(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """Each layer of the student with the end of its share of the teacher: the last with the last.

    Layer i, counted from 1, learns from layer i * teacher_layers / student_layers, rounded up.

    Args:
      student_layers: at least 1.
      teacher_layers: at least 1; fewer than the student's are used more than once.

    Returns:
      Pairs as of `uniform`.

    Raises:
      ValueError: for numbers below 1.

    Example:
      >>> strided(3, 12)
      [(0, 3), (1, 7), (2, 11)]

    Reference: Jiao et al. 2020 (TinyBERT, arXiv 1909.10351), the uniform mapping.
    """
    check.integer("student_layers", student_layers, 1)
    check.integer("teacher_layers", teacher_layers, 1)
    return [(i, -(-(i + 1) * teacher_layers // student_layers) - 1) for i in range(student_layers)]


def layerwise(loss: Callable[..., tuple[Any, Any]], pairs: Pairs) -> Callable[..., Any]:
    """The same loss over stacks of layers: its mean over the pairs.

    Args:
      loss: `(student, teacher, mask, **options) -> (mean, count)`.
      pairs: (student layer, teacher layer), as of `uniform`.

    Returns:
      `(student, teacher, mask=None, **per_pair) -> (mean, count)`, whose `student` and `teacher`
      are arrays or pytrees with a leading layer axis, as taps have; `mask` is that of one layer,
      and so is `count`. What is given by keyword has a leading axis of pairs, such as a projection
      for each. Raises `ValueError` if there is no such layer.

    Raises:
      ValueError: if there are no pairs.

    Example:
      >>> from jaxcompress.distill.features import hidden_mse
      >>> student, teacher = np.zeros((2, 3, 4)), np.arange(4.0).repeat(12).reshape(4, 3, 4)
      >>> loss = layerwise(hidden_mse, uniform(2, 4))
      >>> mean, count = loss(jax.numpy.asarray(student), jax.numpy.asarray(teacher))
      >>> float(mean), float(count)  # the mean of 0 and 9
      (4.5, 3.0)
    """
    if not len(pairs):
        raise check.fail("pairs", "at least one", "none")
    ours, theirs = np.asarray(pairs).T

    def apply(student: Any, teacher: Any, mask: Any = None, **per_pair: Any) -> tuple[Any, Any]:
        for name, layers, stack in (("student", ours, student), ("teacher", theirs, teacher)):
            count = min(len(leaf) for leaf in jax.tree.leaves(stack))
            if layers.min() < 0 or layers.max() >= count:
                bounds = f"layers of the {name} in [0, {count - 1}]"
                raise check.fail("pairs", bounds, layers.tolist())
        each = jax.vmap(loss, in_axes=(0, 0, None))
        picked = tree.index(student, ours), tree.index(teacher, theirs)
        means, counts = each(*picked, mask, **per_pair)
        return means.mean(), counts[0]

    return apply
