"""What became of each component that mattered: kept, merged, discarded, or made brittle."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxcompress.align.measured import Profile
from jaxcompress.align.profile import similarities
from jaxcompress.align.robustness import drops

__all__ = ["Fate", "fate"]


@dataclasses.dataclass(frozen=True)
class Fate:
    """Lists of plain dicts, ready for a report; drops in percent of the clean logit difference.

    Attributes:
      kept: teacher components that matter, each with the student component that does its work.
      merged: groups of them for which one student component stands.
      discarded: those whose counterpart in the student does not matter.
      brittle: student components on which more depends than on what they stand for.
      rules: in one sentence, how this was decided.
    """

    kept: list[dict[str, Any]]
    merged: list[dict[str, Any]]
    discarded: list[dict[str, Any]]
    brittle: list[dict[str, Any]]
    rules: str


def fate(teacher: Profile, student: Profile, *, threshold: float = 10.0) -> Fate:
    """Sorts the components that matter by what became of them.

    Args:
      teacher: measured on the same prompts as
      student: the other profile.
      threshold: a component matters if its removal costs at least this share of the clean logit
        difference, in percent. A component is brittle if its removal costs at least twice what the
        removal of its teacher counterparts costs, and `threshold` points more.

    Returns:
      The fates; empty lists if a model has no logit difference to lose.

    Raises:
      ValueError: if the profiles are not of the same prompts.

    Example:
      >>> found = fate(profile(teacher, prompts), profile(student, prompts))  # doctest: +SKIP
    """
    alike = similarities(student, teacher)
    drop_t, drop_s = (
        np.nan_to_num(drops(p.effects.mean(axis=1), float(p.clean.mean())))
        for p in (teacher, student)
    )
    heirs: dict[int, list[int]] = {}
    discarded = []
    for t in map(int, np.flatnonzero(drop_t >= threshold)):
        s = int(alike[:, t].argmax())
        if drop_s[s] >= threshold:
            heirs.setdefault(s, []).append(t)
        else:
            discarded.append(_row(teacher.names[t], student.names[s], drop_t[t], drop_s[s]))
    kept, merged = [], []
    for s, found in heirs.items():
        names = [teacher.names[t] for t in found]
        row = _row(names[0], student.names[s], drop_t[found].max(), drop_s[s])
        if len(found) == 1:
            kept.append(row | {"similarity": float(alike[s, found[0]])})
        else:
            merged.append(row | {"teachers": names})
    brittle = []
    for s in map(int, np.flatnonzero(drop_s >= threshold)):
        stands_for = heirs.get(s, [int(alike[s].argmax())])
        most = float(drop_t[stands_for].max())
        if drop_s[s] >= max(2 * most, most + threshold):
            names = ", ".join(teacher.names[t] for t in stands_for)
            brittle.append(_row(names, student.names[s], most, drop_s[s]))
    rules = (
        f"A component matters if removing it costs at least {threshold:g} % of the clean logit "
        "difference. A teacher component that matters is kept if the student component most like "
        "it matters and stands for no other, merged if that one stands for several, discarded if "
        "it does not matter. A student component is brittle if removing it costs at least twice "
        f"what its teacher counterparts cost, and {threshold:g} points more."
    )
    return Fate(kept, merged, discarded, brittle, rules)


def _row(teacher: str, student: str, drop_teacher: float, drop_student: float) -> dict[str, Any]:
    return {
        "teacher": teacher,
        "student": student,
        "drop_teacher": float(drop_teacher),
        "drop_student": float(drop_student),
    }
