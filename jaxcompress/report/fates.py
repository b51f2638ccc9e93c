"""What became of the teacher's parts, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxcompress.report.numbers import number, percent
from jaxcompress.report.sections import field

__all__ = ["Fate", "fates"]


class Fate(NamedTuple):
    """One of the four lists.

    Attributes:
      kind: "kept", "merged", "discarded" or "brittle".
      about: what that means.
      lines: one sentence per part.
    """

    kind: str
    about: str
    lines: tuple[str, ...]


def fates(task: Mapping[str, Any]) -> tuple[Fate, ...]:
    """The four lists of a task, each with its sentences.

    Example:
      >>> task = {"fate": {"discarded": [{"teacher": "head 1.5", "drop_teacher": 14.3}]}}
      >>> fates(task)[2].lines
      ('head 1.5: removing it costs the teacher 14.3 %.',)
    """
    kinds = {
        "kept": (
            "parts that matter in the teacher, as does the most similar one of the student",
            _kept,
        ),
        "merged": (
            "parts that matter in the teacher, several of which are most like one of the student's",
            _merged,
        ),
        "discarded": (
            "parts that matter in the teacher, but the most similar one of the student does not",
            _discarded,
        ),
        "brittle": (
            "parts of the student on which far more depends than on what they stand for",
            _brittle,
        ),
    }
    found = (
        (kind, about, field(task, "fate", kind) or [], say) for kind, (about, say) in kinds.items()
    )
    return tuple(
        Fate(kind, about, tuple(say(item) for item in items)) for kind, about, items, say in found
    )


def _kept(item: Any) -> str:
    return (
        f"{_name(item, 'teacher')} lives on as {_name(item, 'student')}: removing it costs the "
        f"teacher {percent(field(item, 'drop_teacher'))}, the student "
        f"{percent(field(item, 'drop_student'))} (similarity {number(field(item, 'similarity'))})."
    )


def _merged(item: Any) -> str:
    names = [str(name) for name in field(item, "teachers") or ["n/a"]]
    together = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    if field(item, "drop_student") is None:
        return f"{together} became {_name(item, 'student')}."
    return (
        f"{together} became {_name(item, 'student')}: removing it costs the student "
        f"{percent(item['drop_student'])}, removing one of them costs the teacher at most "
        f"{percent(field(item, 'drop_teacher'))}."
    )


def _discarded(item: Any) -> str:
    drop = percent(field(item, "drop_teacher"))
    text = f"{_name(item, 'teacher')}: removing it costs the teacher {drop}"
    if field(item, "student") is None:
        return text + "."
    other = percent(field(item, "drop_student"))
    return f"{text}; removing {item['student']}, the most similar, costs the student {other}."


def _brittle(item: Any) -> str:
    return (
        f"{_name(item, 'student')}, standing for {_name(item, 'teacher')}: removing it costs the "
        f"student {percent(field(item, 'drop_student'))}, the teacher "
        f"{percent(field(item, 'drop_teacher'))}."
    )


def _name(item: Any, side: str) -> str:
    return str(field(item, side) or "n/a")
