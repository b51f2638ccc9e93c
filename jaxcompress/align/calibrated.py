"""The calibrated score: 0 is what unrelated models get, 1 is a model against itself.

1. Every component has a mark that all models share: how its removal moves the logits on every
   prompt (`causal`). The similarity of two components is the cosine of their marks.
2. Every model has one unit of mass, spread over its components by how much depends on them.
3. The teacher's mass is moved to the student's components so that mass times similarity is largest
   (optimal transport; mass that finds nothing alike stays where it is). That sum is the raw score.
   One component may take the mass of several: merges cost nothing by themselves, but a small
   component cannot stand for a large one.
4. Calibrated: (raw - null) / (1 - null), cut to [0, 1]. The null is the largest of the mean raw
   score under random matching and that of each unrelated model that was given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress import check
from jaxcompress.align.causal import marks, masses
from jaxcompress.align.matching import transport
from jaxcompress.align.measured import Profile

__all__ = ["Calibrated", "calibrated", "mean_of"]

MATCHINGS = 200  # random ones, of which the null is the mean


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """How much of a teacher's mechanism is found in a student, on the prompts of one task.

    Attributes:
      value: the score in [0, 1].
      interval: 95 % bootstrap interval of it over prompts.
      raw: share of the mass that finds its like, before calibration.
      null: the raw score that counts as 0.
      nulls: raw scores that the null is the largest of, by name.
      variants: raw scores with other similarities, by name (see `causal.MARKS`).
      plan: (student component, teacher component) mass that was moved.
      draws: (sample,) bootstrap values of the score.
    """

    value: float
    interval: tuple[float, float]
    raw: float
    null: float
    nulls: dict[str, float]
    variants: dict[str, float]
    plan: np.ndarray
    draws: np.ndarray

    def summary(self) -> dict[str, Any]:
        """All but the plan and the draws, as plain data."""
        hidden = ("plan", "draws")
        fields = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in fields if name not in hidden}


def calibrated(
    teacher: Profile,
    student: Profile,
    *,
    unrelated: Mapping[str, Profile] | None = None,
    across: bool = False,
    samples: int = 1000,
    seed: int = 0,
) -> Calibrated:
    """The calibrated score of two profiles of the same prompts.

    Args:
      teacher: measured by `profile`.
      student: likewise.
      unrelated: models that share nothing with the teacher but the task: from scratch, other
        seeds, untrained. The more alike they are, the more likeness is needed to count.
      across: whether a head may stand for an MLP.
      samples: bootstrap samples.
      seed: of these.

    Returns:
      The score. If the null is 1, nothing can be told apart and the score is 0. If no removal
      changes a logit of the teacher beyond rounding, there is no mechanism to compare on these
      prompts, and the score is NaN.

    Raises:
      ValueError: if the profiles are not of the same prompts.

    Example:
      >>> calibrated(profile(teacher, prompts), profile(student, prompts)).value  # doctest: +SKIP
    """
    check.integer("samples", samples, 1)
    rng = np.random.default_rng(seed)
    raw, plan, similarity = _raw(teacher, student, across)
    nulls = {"random_matching": _at_random(similarity, teacher, student, rng, MATCHINGS)}
    for name, other in (unrelated or {}).items():
        nulls[name] = _raw(teacher, other, across)[0]
    size = max(1.0, float(np.abs(teacher.clean).max()))
    idle = not np.abs(teacher.logits).max(initial=0.0) > 1e-5 * size
    null = np.nan if idle else max(nulls.values())
    draws = _scaled(_bootstrap(teacher, student, plan, rng, samples), null)
    low, high = np.percentile(draws, [2.5, 97.5])
    variants = {
        name: float((transport(alike, *_masses(teacher, student)) * alike).sum())
        for name, alike in marks(student, teacher, across=across).items()
    }
    return Calibrated(
        value=float(_scaled(raw, null)),
        interval=(float(low), float(high)),
        raw=raw,
        null=null,
        nulls=nulls,
        variants=variants,
        plan=plan,
        draws=draws,
    )


def mean_of(found: Sequence[tuple[float, Any]]) -> tuple[float, tuple[float, float]]:
    """The mean score over tasks with its 95 % interval; prompts of the tasks are independent.

    Args:
      found: for each task `value` and `draws`, equally many.

    Example:
      >>> mean_of([(0.5, np.array([0.4, 0.6])), (0.7, np.array([0.6, 0.8]))])[0]
      0.6
    """
    low, high = np.percentile(np.mean([draws for _, draws in found], axis=0), [2.5, 97.5])
    return float(np.mean([value for value, _ in found])), (float(low), float(high))


def _masses(teacher: Profile, student: Profile) -> tuple[np.ndarray, np.ndarray]:
    return masses(student), masses(teacher)


def _raw(teacher: Profile, student: Profile, across: bool) -> tuple[float, np.ndarray, np.ndarray]:
    if np.shape(teacher.logits)[1:] != np.shape(student.logits)[1:]:
        got = f"{np.shape(student.logits)[1:]} and {np.shape(teacher.logits)[1:]} logits"
        raise check.fail("profiles", "the same prompts and vocabulary for both models", got)
    alike = marks(student, teacher, across=across, only=("causal",))["causal"]
    plan = transport(alike, *_masses(teacher, student))
    return float((plan * alike).sum()), plan, alike


def _scaled(raw: Any, null: float) -> Any:
    return 0.0 * raw if null >= 1 else np.clip((raw - null) / (1.0 - null), 0.0, 1.0)


def _at_random(
    similarity: np.ndarray, teacher: Profile, student: Profile, rng: np.random.Generator, count: int
) -> float:
    """Mean raw score if each mass goes to components drawn at random, not the most similar."""
    a, b = _masses(teacher, student)
    values = []
    for _ in range(count):
        rows, columns = rng.permutation(len(a)), rng.permutation(len(b))
        plan = _northwest(a[rows], b[columns])
        values.append((plan * similarity[np.ix_(rows, columns)]).sum())
    return float(np.mean(values))


def _northwest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The plan that fills masses in the order they come (the north-west corner rule)."""
    ends_a, ends_b = np.cumsum(a), np.cumsum(b)
    low = np.maximum((ends_a - a)[:, None], (ends_b - b)[None])
    return np.maximum(np.minimum(ends_a[:, None], ends_b[None]) - low, 0.0)


def _bootstrap(
    teacher: Profile, student: Profile, plan: np.ndarray, rng: np.random.Generator, samples: int
) -> np.ndarray:
    """(sample,) raw scores on resampled prompts, with the plan held fixed."""
    rows, columns = np.nonzero(plan > 0)
    x, y = student.logits[rows], teacher.logits[columns]
    inner, own, other = (
        (u * v).sum(axis=-1, dtype=np.float64) for u, v in ((x, y), (x, x), (y, y))
    )
    count = inner.shape[1]
    weights = rng.multinomial(count, np.full(count, 1 / count), size=samples)
    norm = np.sqrt((weights @ own.T) * (weights @ other.T))
    cosine = np.divide(weights @ inner.T, norm, out=np.zeros_like(norm), where=norm > 0)
    return np.clip(cosine, 0.0, 1.0) @ plan[rows, columns]
