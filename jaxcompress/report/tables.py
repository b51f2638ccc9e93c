"""Tables for the terminal: plain text, columns aligned, nothing but Unicode."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcompress import check
from jaxcompress.report import sections
from jaxcompress.report.fates import fates
from jaxcompress.report.jobs import image
from jaxcompress.report.sections import Section

__all__ = ["compare_table", "table"]


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under a header, the first column to the left and the others to the right.

    Args:
      columns: the header; an empty text is an unnamed column.
      rows: as many cells each, as `str` writes them; line breaks and control characters in them
        become spaces.

    Returns:
      Lines without trailing spaces.

    Raises:
      ValueError: for a row with another number of cells.

    Example:
      >>> print(table(["model", "loss"], [["teacher", "1.25"], ["student", "12.5"]]))
      model    loss
      -------  ----
      teacher  1.25
      student  12.5
    """
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise check.fail(f"rows[{i}]", f"{len(columns)} cells", len(row))
    cells = [[_clean(str(cell)) for cell in row] for row in [columns, *rows]]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(columns))]
    lines = [_line(cells[0], widths), "  ".join("-" * width for width in widths)]
    lines += [_line(row, widths) for row in cells[1:]]
    return "\n".join(line.rstrip() for line in lines)


def compare_table(comparison: Mapping[str, Any]) -> str:
    """A comparison for the terminal: summary, costs, and per task answers, scores and fates.

    Args:
      comparison: the report as plain data, as `jaxcompress.compare` returns it.

    Returns:
      Text of several tables, ending in a line break. Missing numbers are "n/a", with the reason.

    Raises:
      ValueError: for data without the models' names or the list of tasks.

    Example:
      >>> models = {"teacher": {"name": "gpt2"}, "student": {"name": "distilgpt2"}}
      >>> print(compare_table(models | {"tasks": []}).splitlines()[0])
      student distilgpt2 against teacher gpt2
    """
    tasks = sections.require(comparison)
    names = (_clean(comparison[side]["name"]) for side in ("student", "teacher"))
    blocks = ["student {} against teacher {}".format(*names)]
    blocks += [f"- {_clean(line)}" for line in comparison.get("summary") or []]
    blocks += ["", _titled("Cost", sections.cost(comparison))]
    if tasks:
        blocks += ["", _titled("At a glance", sections.overview(comparison))]
    for task in tasks:
        blocks += ["", _task(task)]
    return "\n".join(blocks) + "\n"


def _task(task: Mapping[str, Any]) -> str:
    name = _clean(task["name"])
    parts = [
        _titled(f"{name}: answers", sections.behaviour(task)),
        _titled(f"{name}: robustness", sections.robustness(task)),
        _titled(f"{name}: alignment", sections.alignment(task)),
    ]
    for fate in fates(task):
        lines = [f"  {_clean(line)}" for line in fate.lines] or ["  none"]
        parts.append("\n".join([f"{name}: {fate.kind} ({fate.about})", *lines]))
    if sections.field(task, "faithfulness"):
        parts.append(_titled(f"{name}: the teacher's circuit in the student", image(task)))
    return "\n\n".join(parts)


def _titled(title: str, section: Section) -> str:
    text = f"{title}\n{table(section.columns, section.rows)}"
    return f"{text}\n{_clean(section.note)}" if section.note else text


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    spaces = [" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    first, *others = zip(cells, spaces, strict=True)
    return "  ".join(["".join(first), *(space + cell for cell, space in others)])


def _clean(text: Any) -> str:
    """One line without control characters: names come from files, and a terminal obeys escapes."""
    return "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(text))


def _width(text: str) -> int:
    """Columns in a terminal: wide letters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)
