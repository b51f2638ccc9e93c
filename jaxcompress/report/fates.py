"""What became of the teacher's parts, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxcompress.report.numbers import number, percent
from jaxcompress.report.sections import field

__all__ = ["Fate", "fates", "listed"]


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
      >>> item = {"teachers": ["head 1.5"], "drop_teacher": 14.3}
      >>> fates({"fate": {"discarded": [item]}})[2].lines
      ('head 1.5: removing it costs the teacher 14.3 %.',)
    """
    kinds = {
        "kept": (
            "parts that matter in the teacher and whose job a part of the student does",
            _kept,
        ),
        "merged": (
            "parts that matter in the teacher and whose jobs one part of the student does",
            _merged,
        ),
        "discarded": (
            "parts that matter in the teacher, with no like in the student or one that does not",
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
        f"{_teachers(item)} lives on as {_student(item)}: removing it costs the teacher "
        f"{percent(field(item, 'drop_teacher'))}, the student "
        f"{percent(field(item, 'drop_student'))} ({_likeness(item)})."
    )


def _merged(item: Any) -> str:
    if field(item, "drop_student") is None:
        return f"{_teachers(item)} became {_student(item)}."
    return (
        f"{_teachers(item)} became {_student(item)}: removing it costs the student "
        f"{percent(item['drop_student'])}, removing them together costs the teacher "
        f"{percent(field(item, 'drop_teacher'))} ({_likeness(item)})."
    )


def _discarded(item: Any) -> str:
    drop = percent(field(item, "drop_teacher"))
    text = f"{_teachers(item)}: removing it costs the teacher {drop}"
    if field(item, "student") is None:
        return text + "."
    other = percent(field(item, "drop_student"))
    return f"{text}; most like it is {item['student']} ({_likeness(item)}), worth {other}."


def _brittle(item: Any) -> str:
    return (
        f"{_student(item)}, standing for {_teachers(item)}: removing it costs the student "
        f"{percent(field(item, 'drop_student'))}, all it stands for costs the teacher "
        f"{percent(field(item, 'drop_teacher'))}."
    )


def _likeness(item: Any) -> str:
    return f"likeness {number(field(item, 'similarity'))}, floor {number(field(item, 'floor'))}"


def _teachers(item: Any) -> str:
    return listed(field(item, "teachers") or ["n/a"])


def _student(item: Any) -> str:
    return str(field(item, "student") or "n/a")


def listed(names: Sequence[Any], most: int | None = None) -> str:
    """Names in a row, the last after "and".

    Args:
      names: at least one.
      most: what is beyond is counted.

    Example:
      >>> listed(["mlp 1", "mlp 2", "mlp 3"]), listed(["a", "b", "c", "d"], 3)
      ('mlp 1, mlp 2 and mlp 3', 'a, b and 2 more')
    """
    texts = [str(name) for name in names]
    if most is not None and len(texts) > most:
        texts = [*texts[: most - 1], f"{len(texts) - most + 1} more"]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)
