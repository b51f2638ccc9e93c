"""Does a score tell same mechanisms from different ones? All scores of a pair, and their AUC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress import check
from jaxcompress.align.calibrated import calibrated
from jaxcompress.align.causal import MARKS, marks
from jaxcompress.align.factors import algorithm
from jaxcompress.align.matching import one_to_one
from jaxcompress.align.measured import Profile
from jaxcompress.align.profile import similarities
from jaxcompress.align.score import align_profiles

__all__ = ["VARIANTS", "area", "areas", "auc", "case", "nested", "recovered", "variants"]

PUBLISHED = ("published", "mean_similarity", "weighted", "overlap")
VARIANTS = (
    *PUBLISHED, "attention_with_sink", "attention", "roles", "functional", "effects", "causal",
    "alignment", "algorithm", "mechanism",
)  # fmt: skip


def variants(
    teacher: Profile,
    student: Profile,
    *,
    factors: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> dict[str, float]:
    """Every score of a pair by name, NaN where it is not defined.

    * those of `score`; the raw sums with the similarities of `causal.MARKS`;
    * `alignment`: the calibrated score, with random matching as its only null, so that no other
      pair decides about this one;
    * `algorithm`: of the variables that effects depend on, where they are known;
    * `mechanism`: the larger of the two: the same parts, or the same algorithm in other parts.

    Args:
      teacher: of prompts that the student was measured on too, else only `algorithm` is defined.
      student: the other profile.
      factors: labels for both, see `algorithm`.

    Example:
      >>> variants(teacher_profile, student_profile)["alignment"]  # doctest: +SKIP
    """
    found: dict[str, float] = dict.fromkeys(VARIANTS, float("nan"))
    if factors is not None:
        found["algorithm"] = algorithm(teacher, student, factors)
    if np.shape(teacher.logits)[1:] == np.shape(student.logits)[1:]:
        ours = align_profiles(teacher, student, samples=1)
        found |= {name: getattr(ours, name) for name in PUBLISHED}
        one = calibrated(teacher, student, samples=1)
        found |= one.variants | {"alignment": one.value}
    found["mechanism"] = float(np.fmax(found["alignment"], found["algorithm"]))
    return found


def case(
    family: str,
    task: str,
    pair: Sequence[str],
    truth: str,
    a: Profile,
    b: Profile,
    factors: Any = None,
) -> dict[str, Any]:
    """A row of a validation: who was compared on what, the truth, and every score of `variants`.

    Example:
      >>> case("language", "ioi", ("teacher", "student"), "same", one, other)  # doctest: +SKIP
    """
    told = {"family": family, "task": task, "pair": " / ".join(pair), "truth": truth}
    return told | variants(a, b, factors=factors)


def nested(config: Any, shares: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Gates that remove more and more heads in one random order.

    Args:
      config: with `layers` and `heads`.
      shares: of the heads that are removed.
      seed: of the order.

    Example:
      >>> from types import SimpleNamespace
      >>> config = SimpleNamespace(layers=2, heads=4)
      >>> {name: int(gates.sum()) for name, gates in nested(config, (0.25, 0.5), 0).items()}
      {'pruned 25%': 6, 'pruned 50%': 4}
    """
    order = np.random.default_rng(seed).permutation(config.layers * config.heads)
    found = {}
    for share in shares:
        gates = np.ones(order.size, np.float32)
        gates[order[: round(share * order.size)]] = 0
        found[f"pruned {share:.0%}"] = gates.reshape(config.layers, config.heads)
    return found


def area(same: Any, different: Any) -> float:
    """Area under the ROC curve: how often one of `same` is above one of `different`, ties half.

    Example:
      >>> area([0.9, 0.4], [0.5, 0.1])
      0.75
    """
    a, b = np.asarray(same)[:, None], np.asarray(different)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def auc(
    rows: Sequence[Mapping[str, Any]],
    variant: str,
    *,
    group: str = "pair",
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """The AUC of a score over pairs of known truth, with a bootstrap interval.

    Whole groups are resampled: a pair of models that is measured on several tasks is one case, not
    several. With few groups the interval is rough, and it cannot leave [1, 1] where nothing
    overlaps.

    Args:
      rows: each with `truth` (`"same"` or `"different"`; others are passed over), `group` and the
        score; rows without the score (NaN) are passed over.
      variant: name of the score.
      group: key of what is resampled.
      samples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      `auc`, `low`, `high` (95 %), and the numbers `same` and `different` of rows.

    Raises:
      ValueError: if there is no pair of one kind.

    Example:
      >>> rows = [{"truth": t, "pair": i, "s": s}
      ...         for i, (t, s) in enumerate([("same", 0.9), ("different", 0.2)])]
      >>> auc(rows, "s", samples=10)["auc"]
      1.0
    """
    sides: dict[str, dict[Any, list[float]]] = {"same": {}, "different": {}}
    for row in rows:
        if row["truth"] in sides and np.isfinite(row[variant]):
            sides[row["truth"]].setdefault(row[group], []).append(row[variant])
    for truth, groups in sides.items():
        if not groups:
            raise check.fail("rows", f"a pair whose truth is {truth!r} with {variant}", "none")
    rng = np.random.default_rng(seed)
    each = [[np.array(values) for values in groups.values()] for groups in sides.values()]
    whole = [np.concatenate(groups) for groups in each]

    def drawn(groups: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])

    low, high = np.percentile([area(*map(drawn, each)) for _ in range(samples)], [2.5, 97.5])
    counts = {"same": len(whole[0]), "different": len(whole[1])}
    return {"auc": area(*whole), "low": float(low), "high": float(high), **counts}


def areas(rows: Sequence[Mapping[str, Any]], **options: Any) -> dict[str, dict[str, float]]:
    """`auc` of every variant that has pairs of both kinds; options as there.

    Example:
      >>> areas([])
      {}
    """
    found = {}
    for name in VARIANTS:
        truths = {row["truth"] for row in rows if np.isfinite(row[name])}
        if {"same", "different"} <= truths:
            found[name] = auc(rows, name, **options)
    return found


def recovered(
    pairs: Sequence[tuple[Profile, Profile]], copied: Sequence[int]
) -> dict[str, dict[str, float]]:
    """How well a matching finds the layers that a student was initialised from.

    Similarities are averaged over the tasks, then heads are matched to heads and MLPs to MLPs, one
    to one.

    Args:
      pairs: (teacher, student) profiles, one for each task; the student has as many heads in each
        layer as the teacher.
      copied: for each student layer the teacher layer that it started from.

    Returns:
      By similarity, `published` among them: `heads` and `mlps`, the shares that are matched with
      the very component they started from, and `layers`, of heads, with one of its layer.

    Example:
      >>> recovered([(profile(teacher, prompts), profile(student, prompts))], (0, 2))["causal"][
      ...     "heads"]  # doctest: +SKIP
    """
    tables = {name: [] for name in ("published", *MARKS)}
    for teacher, student in pairs:
        tables["published"].append(similarities(student, teacher))
        for name, value in marks(student, teacher).items():
            tables[name].append(value)
    teacher, student = pairs[0]
    heads = student.heads // len(copied)
    truth = np.concatenate([heads * layer + np.arange(heads) for layer in copied])
    found = {}
    for name, values in tables.items():
        mean = np.mean(values, axis=0)
        guess = one_to_one(mean[: student.heads, : teacher.heads])[1]
        mlps = one_to_one(mean[student.heads :, teacher.heads :])[1]
        found[name] = {
            "heads": float((guess == truth).mean()),
            "layers": float((guess // heads == truth // heads).mean()),
            "mlps": float((mlps == np.asarray(copied)).mean()),
        }
    return found
