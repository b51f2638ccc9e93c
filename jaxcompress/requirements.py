"""What a comparison must reach: `compare --require`, so that it can gate a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress import check
from jaxcompress.report.numbers import real
from jaxcompress.report.sections import field

__all__ = ["minima_of", "unmet"]


def minima_of(require: Sequence[str]) -> dict[str, float]:
    """Requirements as they are given on the command line, by name.

    Args:
      require: such as "alignment=0.8".

    Raises:
      ValueError: for what is not a known name and a finite number.

    Example:
      >>> minima_of(["alignment=0.8", "retained=0.95"])
      {'alignment': 0.8, 'retained': 0.95}
      >>> minima_of(["alignment=nan"])
      Traceback (most recent call last):
      ...
      ValueError: --require: expected name=number, such as alignment=0.8, got alignment=nan
    """
    found = {}
    for one in require:
        name, _, text = one.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise check.fail("--require", "name=number, such as alignment=0.8", one)
        if value > 1 and check.known("--require", name, _REQUIRED) != "retained":
            raise check.fail("--require", f"{name} of at most 1, which is all there can be", one)
        found[check.known("--require", name, _REQUIRED)] = value
    return found


def unmet(comparison: Mapping[str, Any], minima: Mapping[str, float]) -> dict[str, Any]:
    """Which requirements a comparison does not meet.

    Args:
      comparison: as from `compare`.
      minima: by name the least value that is enough:

        * `alignment`: the calibrated score over the tasks;
        * `published`, `mean_similarity`, `weighted`, `overlap`: means over the tasks;
        * `agreement`: share of prompts with the same answer; `accuracy`: the student's;
        * `retained`: the student's accuracy as a share of the teacher's;
        * `faithfulness`: what the image of the teacher's circuit carries beyond chance, where a
          comparison has it (`CompareConfig.faithfulness`): the worst task counts.

    Returns:
      By name the value that is too low, `None` if it was not measured or is not finite; empty if
      all are met.

    Raises:
      ValueError: for an unknown requirement.

    Example:
      >>> row = {"name": "ioi", "behaviour": {"agreement": 0.75}}
      >>> unmet({"tasks": [row]}, {"agreement": 0.9, "alignment": 0.1})
      {'agreement': 0.75, 'alignment': None}
    """
    found = {}
    for name, least in minima.items():
        value = _required(comparison, check.known("require", name, _REQUIRED))
        if value is None or not value >= least:
            found[name] = value
    return found


_REQUIRED = (
    "alignment", "published", "mean_similarity", "weighted", "overlap", "agreement", "accuracy",
    "retained", "faithfulness",
)  # fmt: skip


def _required(comparison: Mapping[str, Any], name: str) -> float | None:
    def of_tasks(*keys: str) -> list[Any]:
        return [real(field(task, *keys)) for task in comparison.get("tasks") or []]

    if name == "alignment":
        return real(field(comparison, "alignment", "value"))
    if name == "faithfulness":
        values = of_tasks("faithfulness", "value")
        return None if not values or None in values else min(values)
    student = of_tasks("behaviour", "student", "accuracy")
    values = {
        "agreement": of_tasks("behaviour", "agreement"),
        "accuracy": student,
        "retained": student,
    }.get(name, of_tasks("alignment", name))
    if not values or None in values:
        return None
    mean = float(np.mean(values))
    if name != "retained":
        return mean
    teacher = of_tasks("behaviour", "teacher", "accuracy")
    return mean / float(np.mean(teacher)) if None not in teacher and any(teacher) else None
