"""A comparison in plain sentences: what was kept, merged, discarded and made brittle."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from jaxcompress.report.fates import listed

__all__ = ["summarise"]


def summarise(comparison: Mapping[str, Any]) -> list[str]:
    """Sentences for the top of a report.

    Args:
      comparison: as made by `compare`, without its summary.

    Returns:
      One sentence on cost, one on behaviour, one on dependence, one on alignment, then one or two
      for each task, and one for each of the default tasks that could not be asked.

    Example:
      >>> summarise(json.loads(Path("comparison.json").read_text()))[0]  # doctest: +SKIP
    """
    teacher, student = comparison["teacher"], comparison["student"]
    tasks = comparison["tasks"]
    sentences = [_cost(teacher, student), _behaviour(tasks), _dependence(tasks), _alignment(tasks)]
    refused = comparison.get("refused", {})  # earlier versions have none
    left_out = [f"Not asked: {name.replace('_', ' ')}. {why}." for name, why in refused.items()]
    return [s for s in sentences if s] + [_fates(task) for task in tasks] + left_out


def _cost(teacher: Mapping[str, Any], student: Mapping[str, Any]) -> str:
    of = {name: (teacher["cost"][name], student["cost"][name]) for name in teacher["cost"]}
    share = of["parameters"][1] / of["parameters"][0]
    flops = of["flops_per_token"]
    work = f", needs {flops[1] / flops[0]:.0%} of its arithmetic per token" if all(flops) else ""
    speed = of["latency_seconds"][0] / of["latency_seconds"][1]
    return (
        f"{student['name']} has {share:.0%} of the parameters of {teacher['name']}{work}, "
        f"and answers {speed:.1f} times as fast on this device."
    )


def _behaviour(tasks: list[Any]) -> str:
    rows = [(t["name"], t["behaviour"]) for t in tasks]
    teacher = sum(b["teacher"]["accuracy"] for _, b in rows) / len(rows)
    student = sum(b["student"]["accuracy"] for _, b in rows) / len(rows)
    worst, gap = max(
        ((n, b["teacher"]["accuracy"] - b["student"]["accuracy"]) for n, b in rows),
        key=lambda pair: pair[1],
    )
    text = (
        f"Over {_plural(len(rows), 'task')} the teacher is right {teacher:.1%} of the time and the "
        f"student {student:.1%}"
    )
    if gap > 0.01:
        return f"{text}; most is lost on {worst.replace('_', ' ')} ({100 * gap:.0f} points)."
    return f"{text}; no task loses more than a point."


def _dependence(tasks: list[Any]) -> str:
    ratios, worse = [], []
    for task in tasks:
        both = [task["dependence"][role]["robustness"] for role in ("teacher", "student")]
        drops = [figures["mean_drop"] for figures in both]
        if None not in drops and drops[0] > 0:
            ratios.append(drops[1] / drops[0])
            if drops[1] > drops[0]:
                worse.append(task["name"])
    if not ratios:
        return ""
    middle = statistics.median(ratios)
    return (
        f"Removing one component costs the student {middle:.1f} times the share of its logit "
        f"difference that it costs the teacher (median over tasks; more on {len(worse)} of "
        f"{len(ratios)}). Part of this is only that fewer components share the work: compare the "
        "summed drop below."
    )


_NULLS = {
    "from_scratch": "a student that never saw the teacher",
    "untrained_student": "an untrained student",
}


def _alignment(tasks: list[Any]) -> str:
    def mean(score: str, null: str | None = None) -> float:
        rows = [t["alignment"] if null is None else t["alignment"]["nulls"][null] for t in tasks]
        return sum(row[score] for row in rows) / len(rows)

    text = f"The published alignment score is {mean('published'):.2f} on average"
    overlap = (
        "the share of influence on components that correspond one to one and look alike is "
        f"{mean('overlap'):.2f}"
    )
    for null, phrase in _NULLS.items():
        if all(null in t["alignment"]["nulls"] for t in tasks):
            other = mean("published", null)
            verdict = ": it says little" if mean("published") - other < 0.1 else ""
            return _calibrated(tasks) + (
                f"{text}, against {other:.2f} for {phrase}{verdict}; {overlap}, against "
                f"{mean('overlap', null):.2f}."
            )
    return _calibrated(tasks) + f"{text}; {overlap}."


def _calibrated(tasks: list[Any]) -> str:
    found = [t["alignment"].get("calibrated") for t in tasks]
    if not all(found):
        return ""
    values = [one["value"] for one in found if one["value"] is not None]
    if not values:
        return ""
    left = len(found) - len(values)
    without = f"; {_plural(left, 'task')} without a mechanism to compare left out" if left else ""
    return (
        f"{sum(values) / len(values):.0%} of the teacher's mechanism is found in the student "
        "(calibrated alignment: 0 is what unrelated models get, 1 the teacher itself"
        f"{without}). "
    )


def _fates(task: Mapping[str, Any]) -> str:
    fate = task["fate"]
    parts = []
    for item in sorted(fate["kept"], key=lambda x: -x["drop_teacher"])[:3]:
        parts.append(f"kept {listed(item['teachers'])} (as {item['student']})")
    for item in sorted(fate["merged"], key=lambda x: -x["drop_teacher"])[:2]:
        parts.append(f"merged {listed(item['teachers'], 4)} into {item['student']}")
    for item in sorted(fate["discarded"], key=lambda x: -x["drop_teacher"])[:2]:
        parts.append(f"discarded {listed(item['teachers'])}")
    for item in sorted(fate["brittle"], key=lambda x: -x["drop_student"])[:2]:
        parts.append(
            f"made brittle {item['student']} (its loss costs {item['drop_student']:.0f} %)"
        )
    title = _title(task["name"])
    for role in ("teacher", "student"):
        if not (task["dependence"][role]["clean"] or 0) > 0:
            return f"{title}: the {role} cannot do this task, so nothing is said of its parts."
    if not parts:
        return f"{title}: no single component of the teacher matters much."
    outcomes = ("kept", "merged", "discarded", "brittle")
    counts = ", ".join(f"{len(fate[outcome])} {outcome}" for outcome in outcomes)
    return f"{title} ({counts}): {'; '.join(parts)}."


def _title(name: str) -> str:
    text = name.replace("_", " ")
    return text.upper() if name == "ioi" else text[:1].upper() + text[1:]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
