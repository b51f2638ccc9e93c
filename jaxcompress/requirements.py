"""What a comparison must reach: `compare --require`, so that it can gate a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcompress import check
from jaxcompress.report.sections import field

__all__ = ["unmet"]


def unmet(comparison: Mapping[str, Any], minima: Mapping[str, float]) -> dict[str, Any]:
    """Which requirements a comparison does not meet.

    Args:
      comparison: as from `compare`.
      minima: by name the least value that is enough:

        * `alignment`: the calibrated score over the tasks;
        * `published`, `mean_similarity`, `weighted`, `overlap`: means over the tasks;
        * `agreement`: share of prompts with the same answer; `accuracy`: the student's;
        * `retained`: the student's accuracy as a share of the teacher's;
        * `faithfulness`: where a comparison has it: the worst task counts.

    Returns:
      By name the value that is too low, `None` if it was not measured; empty if all are met.

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
    tasks = comparison.get("tasks") or []
    if name == "alignment":
        return field(comparison, "alignment", "value")
    if name == "faithfulness":
        values = [field(task, "faithfulness", "value") for task in tasks]
        return None if not values or None in values else min(values)
    accuracies = {
        role: [field(task, "behaviour", role, "accuracy") for task in tasks]
        for role in ("teacher", "student")
    }
    values = {
        "agreement": [field(task, "behaviour", "agreement") for task in tasks],
        "accuracy": accuracies["student"],
        "retained": accuracies["student"],
    }.get(name, [field(task, "alignment", name) for task in tasks])
    if not values or None in values:
        return None
    mean = float(np.mean(values))
    if name != "retained":
        return mean
    teacher = accuracies["teacher"]
    return mean / float(np.mean(teacher)) if None not in teacher and any(teacher) else None
