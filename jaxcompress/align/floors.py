"""How alike two components can be by chance: what is not above this floor says nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxcompress.align.causal import marks
from jaxcompress.align.measured import Profile

__all__ = ["FLOOR", "floors", "shuffled"]

FLOOR = 0.25
"""Likeness that is never enough. Over six tasks nothing in a model trained from scratch was more
like a part of `builtin:teacher` than .18 (24 to 32 prompts, 512 tokens)."""
_SHUFFLES = 20


def floors(
    teacher: Profile, student: Profile, unrelated: Iterable[Profile] = (), *, seed: int = 0
) -> np.ndarray:
    """The floor of each teacher component.

    The largest of `FLOOR`, the best likeness (`causal`) with any component of the unrelated models,
    and the best with any of the student's when it is asked on the wrong prompts: on some tasks all
    prompts move the logits alike.

    Args:
      teacher: measured on the same prompts as
      student: and
      unrelated: models that share with the teacher the task only.
      seed: of the shuffles of prompts.

    Returns:
      (teacher component,) in [FLOOR, 1].

    Example:
      >>> floors(profile(teacher, prompts), profile(student, prompts))  # doctest: +SKIP
    """
    found = np.maximum(FLOOR, shuffled(student.logits, teacher.logits, seed=seed).max(axis=0))
    for other in unrelated:
        alike = marks(other, teacher, across=True, only=("causal",))["causal"]
        found = np.maximum(found, alike.max(axis=0))
    return found


def shuffled(student: Any, teacher: Any, *, seed: int = 0) -> np.ndarray:
    """Largest likeness of marks over shuffles of the student's prompts.

    Args:
      student: (component, batch, token) changes of the logits.
      teacher: likewise.
      seed: of the shuffles.

    Returns:
      (student component, teacher component).

    Example:
      >>> one = np.ones((1, 3, 2))
      >>> shuffled(one, one).round(6).tolist()
      [[1.0]]
    """
    rng = np.random.default_rng(seed)
    x, y = _unit(student), _unit(teacher).reshape(len(teacher), -1)
    found = np.full((len(x), len(y)), -1.0)
    for _ in range(_SHUFFLES):
        found = np.maximum(found, x[:, rng.permutation(x.shape[1])].reshape(len(x), -1) @ y.T)
    return found


def _unit(marks: Any) -> np.ndarray:
    marks = np.asarray(marks)
    norm = np.linalg.norm(marks.reshape(len(marks), -1), axis=1)
    return marks / np.maximum(norm, 1e-12)[:, None, None]
