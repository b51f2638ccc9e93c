"""Does the student work as its teacher does? The published score, better ones, and their nulls.

The published score is about 0.9 for nearly any pair: with influences that sum to 1 on either side
it lies between the mean similarity S and S - 2 / pairs. So it is never reported here without the
mean similarity, two scores that influence can move, what unrelated models get, and the calibrated
score (`align.calibrated`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcompress import check
from jaxcompress.align.calibrated import Calibrated, calibrated
from jaxcompress.align.matching import best, one_to_one, shuffled
from jaxcompress.align.measured import Profile
from jaxcompress.align.profile import profile, similarities
from jaxcompress.tasks.prompts import Prompts

__all__ = [
    "Alignment",
    "Pair",
    "align_profiles",
    "influence",
    "overlap",
    "published",
    "score",
    "weighted",
]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A student component and the teacher component most like it.

    Attributes:
      student: name.
      teacher: name.
      similarity: of the two, in [0, 1] up to the rescaling of MLPs.
      influence_student: share of all paired student influence.
      influence_teacher: share of all paired teacher influence.
    """

    student: str
    teacher: str
    similarity: float
    influence_student: float
    influence_teacher: float


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Alignment of a student with its teacher on the prompts of one task.

    Attributes:
      published: Haskins and Adams's score, over unique pairs.
      mean_similarity: the plain mean similarity of the same pairs.
      weighted: mean similarity, weighted by influence.
      overlap: shared influence times similarity under one-to-one matching, in [0, 1].
      interval: 95 % bootstrap interval of `overlap` over prompts.
      nulls: by name, for each score `mean`, `sd` and `p` (share of null scores at least as large),
        or the plain scores of another model in the student's place.
      pairs: the pairs of the first three scores.
      calibrated: the score in which 0 is unrelated models and 1 the teacher itself; `None` if a
        profile lacks what it needs.
    """

    published: float
    mean_similarity: float
    weighted: float
    overlap: float
    interval: tuple[float, float]
    nulls: dict[str, Any]
    pairs: tuple[Pair, ...]
    calibrated: Calibrated | None = dataclasses.field(default=None, compare=False)

    @property
    def influence_part(self) -> float:
        """What influences contribute to the published score: at most 2 / pairs."""
        return self.published - self.mean_similarity


def influence(effects: Any, clean: float) -> np.ndarray:
    """Published influence of a component: |drop in percent of the clean logit difference|.

    `abs(round(100 - 100 * ablated / clean, 2))`. Absolute, so a component whose removal helps has
    influence too. If `clean` is exactly 0, the raw effects are used: only ratios matter after.

    Args:
      effects: (component,) mean logit difference with the component removed, minus clean.
      clean: mean logit difference of the whole model.

    Returns:
      (component,) at least 0.

    Example:
      >>> influence(np.array([-0.5, 0.25]), 2.0).tolist()
      [25.0, 12.5]
    """
    effects = np.asarray(effects, dtype=np.float64)
    return np.abs(np.round(100.0 * effects / clean, 2)) if clean else np.abs(effects)


def _shares(values: Any) -> np.ndarray:
    """Influences as shares of their sum (all zero if there is none)."""
    values = np.asarray(values, dtype=np.float64)
    total = values.sum(axis=-1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def published(similarity: Any, student: Any, teacher: Any) -> Any:
    """A = mean over pairs of S * (1 - |I_s - I_t|), influences normalised over the pairs.

    Args:
      similarity: (..., pair).
      student: (..., pair) influences.
      teacher: (..., pair) influences.

    Returns:
      (...,); between S - 2 / pairs and S, where S is the mean similarity.

    Example:
      >>> float(published([1.0, 1.0], [1.0, 0.0], [0.0, 1.0]))
      0.0

    Reference:
      Haskins and Adams 2025 (arXiv 2505.10822), as in their code.
    """
    difference = np.abs(_shares(student) - _shares(teacher))
    return (np.asarray(similarity) * (1.0 - difference)).mean(axis=-1)


def weighted(similarity: Any, student: Any, teacher: Any) -> Any:
    """Mean similarity weighted by the mean of both influence shares; arguments as `published`.

    Example:
      >>> float(weighted([1.0, 0.0], [3.0, 1.0], [3.0, 1.0]))
      0.75
    """
    weight = 0.5 * (_shares(student) + _shares(teacher))
    total = weight.sum(axis=-1)
    return (weight * np.asarray(similarity)).sum(axis=-1) / np.where(total > 0, total, 1.0)


def overlap(similarity: Any, student: Any, teacher: Any) -> Any:
    """Sum of min(I_s, I_t) * S over pairs, of influence shares that are given.

    Args:
      similarity: (..., pair), clipped to [0, 1].
      student: (..., pair) shares of the student's whole influence; what is unmatched is lost.
      teacher: likewise.

    Returns:
      In [0, 1]; 1 only if influence is spread alike over components that behave alike.

    Example:
      >>> float(overlap([1.0, 0.5], [0.5, 0.5], [0.25, 0.75]))
      0.5
    """
    shared = np.minimum(np.asarray(student), np.asarray(teacher))
    return (shared * np.clip(similarity, 0.0, 1.0)).sum(axis=-1)


def score(
    teacher: Any,
    student: Any,
    prompts: Prompts,
    *,
    others: Mapping[str, Any] | None = None,
    replacement: str = "mean",
    across: bool = False,
    samples: int = 10_000,
    seed: int = 0,
    progress: bool | None = None,
) -> Alignment:
    """Measures both models on the prompts and aligns them, with nulls.

    Args:
      teacher: as in `ablate.sweep`, with taps `pattern` and `mlps`.
      student: likewise; any depth, width and number of heads.
      prompts: of one task, tokens that mean the same to both.
      others: further models to put in the student's place, for example `{"from_scratch": model,
        "untrained_student": model}`; the teacher itself is always among them.
      replacement: see `align.profile`.
      across: whether a head may stand for an MLP, in the calibrated score.
      samples: permutations, random matchings and bootstrap samples.
      seed: of these.
      progress: see `ablate.sweep`.

    Returns:
      The alignment.

    Raises:
      ValueError: for prompts that do not fit the models.

    Example:
      >>> prompts = jc.tasks.get("ioi", teacher.tokenizer, 64, jax.random.key(0))  # doctest: +SKIP
      >>> score(teacher, student, prompts).overlap  # doctest: +SKIP
    """
    options: dict[str, Any] = {"replacement": replacement, "progress": progress}
    measured = {name: profile(m, prompts, **options) for name, m in (others or {}).items()}
    ours = profile(teacher, prompts, **options), profile(student, prompts, **options)
    return align_profiles(*ours, others=measured, across=across, samples=samples, seed=seed)


def align_profiles(
    teacher: Profile,
    student: Profile,
    *,
    others: Mapping[str, Profile] | None = None,
    across: bool = False,
    samples: int = 10_000,
    seed: int = 0,
) -> Alignment:
    """The alignment of two profiles; arguments as in `score`.

    Raises:
      ValueError: if the profiles are not of the same prompts.

    Example:
      >>> align_profiles(profile(teacher, prompts), profile(student, prompts))  # doctest: +SKIP
    """
    check.integer("samples", samples, 1)
    rng = np.random.default_rng(seed)
    found = _Matched(teacher, student)
    nulls: dict[str, Any] = found.random_nulls(rng, min(samples, 2000))
    for name, other in {**(others or {}), "teacher_itself": teacher}.items():
        nulls[name] = _Matched(teacher, other).scores()
    scale = None
    if teacher.logits is not None and student.logits is not None:
        options: dict[str, Any] = {"across": across, "samples": min(samples, 1000), "seed": seed}
        scale = calibrated(teacher, student, unrelated=others, **options)
    return Alignment(
        **found.scores(),
        interval=found.interval(rng, samples),
        nulls=nulls,
        pairs=found.pairs(),
        calibrated=scale,
    )


class _Matched:
    """A student's components with their partners in the teacher, many-to-one and one-to-one."""

    def __init__(self, teacher: Profile, student: Profile) -> None:
        self.teacher, self.student = teacher, student
        self.similarity = similarities(student, teacher)
        self.partner = best(self.similarity)
        self.match = self._hungarian()
        self.influences = tuple(
            influence(p.effects.mean(axis=1), float(p.clean.mean())) for p in (student, teacher)
        )

    def _hungarian(self) -> tuple[np.ndarray, np.ndarray]:
        s, t = self.student.heads, self.teacher.heads
        heads = one_to_one(self.similarity[:s, :t])
        mlps = one_to_one(self.similarity[s:, t:])
        return np.concatenate([heads[0], mlps[0] + s]), np.concatenate([heads[1], mlps[1] + t])

    def scores(self) -> dict[str, float]:
        """The four scores."""
        s, t = self.influences
        paired = self.similarity[np.arange(len(s)), self.partner], s, t[self.partner]
        return {
            "published": float(published(*paired)),
            "mean_similarity": float(paired[0].mean()),
            "weighted": float(weighted(*paired)),
            "overlap": float(self._overlap(s, t)),
        }

    def _overlap(self, student: np.ndarray, teacher: np.ndarray) -> Any:
        rows, columns = self.match
        shares = _shares(student)[..., rows], _shares(teacher)[..., columns]
        return overlap(self.similarity[rows, columns], *shares)

    def pairs(self) -> tuple[Pair, ...]:
        """The many-to-one pairs."""
        s, t = self.influences
        shares = _shares(s), _shares(t[self.partner])
        return tuple(
            Pair(
                student=self.student.names[i],
                teacher=self.teacher.names[j],
                similarity=float(self.similarity[i, j]),
                influence_student=float(shares[0][i]),
                influence_teacher=float(shares[1][i]),
            )
            for i, j in enumerate(self.partner)
        )

    def interval(self, rng: np.random.Generator, samples: int) -> tuple[float, float]:
        """95 % bootstrap interval of the overlap: prompts resampled, matching held fixed."""
        count = self.student.effects.shape[1]
        weights = rng.multinomial(count, np.full(count, 1 / count), size=samples) / count
        s, t = (np.abs(weights @ p.effects.T) for p in (self.student, self.teacher))
        low, high = np.percentile(self._overlap(s, t), [2.5, 97.5])
        return float(low), float(high)

    def random_nulls(self, rng: np.random.Generator, samples: int) -> dict[str, Any]:
        """Influences permuted over the pairs, and partners drawn at random."""
        s, t = self.influences
        actual = self.scores()
        pair = self.similarity[np.arange(len(s)), self.partner]
        rows, columns = self.match
        permuted = np.stack([rng.permutation(t[self.partner]) for _ in range(samples)])
        own = (
            _shares(s)[rows],
            np.stack([rng.permutation(_shares(t)[columns]) for _ in range(samples)]),
        )
        drawn = np.stack([self._random_partner(rng) for _ in range(samples)])
        at_random = self.similarity[np.arange(len(s)), drawn]
        scores = {
            "permuted_influences": {
                "published": published(pair, s, permuted),
                "weighted": weighted(pair, s, permuted),
                "overlap": overlap(self.similarity[rows, columns], *own),
            },
            "random_matching": {
                "published": published(at_random, s, t[drawn]),
                "mean_similarity": at_random.mean(axis=1),
                "weighted": weighted(at_random, s, t[drawn]),
                "overlap": overlap(at_random, _shares(s), _shares(t)[drawn]),
            },
        }
        return {
            null: {name: _summary(values, actual[name]) for name, values in by_score.items()}
            for null, by_score in scores.items()
        }

    def _random_partner(self, rng: np.random.Generator) -> np.ndarray:
        s, t = self.student.heads, self.teacher.heads
        layers = len(self.student.names) - s, len(self.teacher.names) - t
        return np.concatenate([shuffled(s, t, rng), t + shuffled(*layers, rng)])


def _summary(null: np.ndarray, actual: float) -> dict[str, float]:
    # One is added above and below: a permutation test can never say p = 0.
    p = (1 + int((null >= actual).sum())) / (1 + len(null))
    return {"mean": float(null.mean()), "sd": float(null.std()), "p": float(p)}
