"""What became of each component that mattered: kept, merged, discarded, or made brittle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcompress.align.causal import cosine
from jaxcompress.align.measured import Job, Profile
from jaxcompress.align.robustness import drops

__all__ = ["Fate", "fate"]

Joint = Callable[[Sequence[Sequence[str]]], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Fate:
    """Lists of plain dicts, ready for a report; drops in percent of the clean logit difference.

    Attributes:
      kept: teacher components that matter, each with the student component that does its work.
      merged: groups of them for which one student component stands.
      discarded: those of which nothing in the student does the work.
      brittle: student components on which more depends than on what they stand for.
      rules: in a few sentences, how this was decided.
    """

    kept: list[dict[str, Any]]
    merged: list[dict[str, Any]]
    discarded: list[dict[str, Any]]
    brittle: list[dict[str, Any]]
    rules: str


def fate(
    teacher: Profile,
    student: Profile,
    jobs: Sequence[Job],
    together: Joint,
    *,
    threshold: float = 10.0,
) -> Fate:
    """Sorts the components that matter by what became of them.

    Args:
      teacher: measured on the same prompts as
      student: the other profile.
      jobs: of `jobs`, for all that matters in the teacher.
      together: removes groups of the teacher's components at once, such as `jobs.together` with the
        model and the prompts filled in.
      threshold: a component matters if its removal costs at least this share of the clean logit
        difference, in percent. A component is brittle if its removal costs at least twice what the
        joint removal of its teacher counterparts costs, and `threshold` points more.

    Returns:
      The fates; empty lists if a model has no logit difference to lose.

    Example:
      >>> remove = functools.partial(together, teacher, prompts)  # doctest: +SKIP
      >>> fate(*profiles, jobs(*profiles, student, prompts), remove).kept  # doctest: +SKIP
    """
    if not (teacher.clean.mean() > 0 and student.clean.mean() > 0):
        said = "A model without a logit difference on these prompts has nothing to keep or lose."
        return Fate([], [], [], [], said)
    cost = dict(zip(student.names, _drops(student, student.effects), strict=True))
    heirs: dict[tuple[str, ...], list[Job]] = {}
    discarded = []
    for job in jobs:
        parts, drop, alike = job.students, job.drop_student, job.similarity
        if job.alone > job.floor or job.similarity <= job.floor:  # one is enough, or none is
            parts, drop, alike = parts[:1], cost[parts[0]], job.alone
        if alike > job.floor and drop >= threshold:
            heirs.setdefault(parts, []).append(job)
        else:
            discarded.append(_row([job], parts, job.drop_teacher, drop, alike))
    kept, merged, brittle = [], [], []
    groups = [[job.teacher for job in group] for group in heirs.values()]
    effects, logits = together(groups) if groups else (np.zeros((0, 1)), np.zeros((0, 1, 1)))
    marks = dict(zip(student.names, student.logits, strict=True))
    for (parts, group), lost, mark in zip(
        heirs.items(), _drops(teacher, effects), logits, strict=True
    ):
        one = len(parts) == 1
        values = [job.alone if one else job.similarity for job in group]
        fallen = cost[parts[0]] if one else group[0].drop_student
        alike = cosine(marks[parts[0]], mark) if one else values[0]
        if len(group) > 1 and one and alike >= min(values):
            merged.append(_row(group, parts, lost, fallen, alike))
        else:
            kept += [
                _row([job], parts, job.drop_teacher, fallen, value)
                for job, value in zip(group, values, strict=True)
            ]
        if fallen >= max(2 * lost, lost + threshold):
            brittle.append(_row(group, parts, lost, fallen, alike))
    return Fate(kept, merged, discarded, brittle, _rules(threshold))


def _drops(profile: Profile, effects: np.ndarray) -> np.ndarray:
    return drops(effects.mean(axis=1), float(profile.clean.mean()))


def _row(
    jobs: Sequence[Job],
    students: Sequence[str],
    drop_teacher: float,
    drop_student: float,
    similarity: float,
) -> dict[str, Any]:
    return {
        "teachers": [job.teacher for job in jobs],
        "student": " with ".join(students),
        "drop_teacher": float(drop_teacher),
        "drop_student": float(drop_student),
        "similarity": float(similarity),
        "floor": max(job.floor for job in jobs),
    }


def _rules(threshold: float) -> str:
    return (
        f"A part matters if removing it costs at least {threshold:g} % of the clean logit "
        "difference. A part of the teacher that matters is kept if some part of the student "
        "matters whose removal moves the logits more like its own than chance has it (the floor: "
        "unrelated models, shuffled prompts). Several with one such part are merged if removing "
        "them together is no less like it than removing one of them. All others are discarded. A "
        "part of the student is brittle if removing it costs at least twice what removing all it "
        f"stands for costs the teacher, and {threshold:g} points more."
    )
