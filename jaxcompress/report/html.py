"""A comparison as one HTML page that needs nothing else: no network, no script, no second file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxcompress.report import jobs, page, sections
from jaxcompress.report.fates import fates
from jaxcompress.report.heatmaps import ablation_map
from jaxcompress.report.numbers import count, percent, real
from jaxcompress.report.plots import alignment_scores, matched_pairs
from jaxcompress.report.sections import field

__all__ = ["compare_page"]

TEMPLATE = "compare.html.j2"


def compare_page(comparison: Mapping[str, Any]) -> str:
    """The report on a teacher and a student, as the text of an HTML file.

    It opens without a network and holds no script: figures are data URIs, styles are inline. All
    text from the data is escaped. Missing numbers are "n/a", with the reason.

    Args:
      comparison: the report as plain data, as `jaxcompress.compare` returns it and writes as JSON:
        `teacher` and `student` (`name`, sizes, `cost`), `settings`, `tasks`, `summary`.

    Returns:
      The page, to be written as UTF-8.

    Raises:
      ValueError: for data without the models' names or the list of tasks.

    Example:
      >>> models = {"teacher": {"name": "gpt2"}, "student": {"name": "distilgpt2"}}
      >>> "<title>distilgpt2 against gpt2" in compare_page(models | {"tasks": []})
      True
    """
    tasks = sections.require(comparison)
    settings = field(comparison, "settings") or {}
    return page.render(
        TEMPLATE,
        teacher=comparison["teacher"]["name"],
        student=comparison["student"]["name"],
        summary=field(comparison, "summary") or [],
        overview=sections.overview(comparison),
        cost=sections.cost(comparison),
        tasks=[_task(task, i) for i, task in enumerate(tasks)],
        settings=page.settings(settings),
        replacement=field(settings, "replacement") or "replacement",
        command=field(settings, "command"),
    )


def _task(task: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What the template needs to know of one task."""
    return {
        "id": f"task-{index}",
        "name": task["name"],
        "count": count(field(task, "count")),
        "behaviour": sections.behaviour(task),
        "robustness": sections.robustness(task),
        "calibrated": sections.calibrated(task),
        "alignment": sections.alignment(task),
        "pairs": sections.pairs(task),
        "fates": fates(task),
        "jobs": jobs.jobs(task),
        "image": jobs.image(task) if field(task, "faithfulness") else None,
        "redundancy": jobs.redundancy(task),
        "shifted": jobs.shifted(task),
        "rules": field(task, "fate", "rules") or "",
        "map": page.figure(ablation_map(task), _describe_map(task)),
        "matched": page.figure(matched_pairs(task), _describe_pairs(task)),
        "scores": page.figure(alignment_scores(task), _describe_scores(task)),
    }


def _describe_map(task: Mapping[str, Any]) -> str:
    """For who cannot see the map: its size, and the head whose removal costs each model most."""
    parts = [f"Heat maps for {task['name']}: effect of removing each head and each MLP."]
    for side in ("teacher", "student"):
        rows = field(task, "dependence", side, "heads") or []
        shares = field(task, "dependence", side, "heads_percent")
        effects = [
            (found, layer, head)
            for layer, row in enumerate(rows)
            for head, value in enumerate(row)
            if (found := real(value)) is not None
        ]
        value, layer, head = min(effects, default=(0.0, 0, 0))
        if value < 0:  # where every removal helps, none costs most
            share = real(shares[layer][head]) if shares else None
            said = f"{-value:.2f} nats" if share is None else percent(-share)
            parts.append(f"Removing head {layer}.{head} costs the {side} most ({said}).")
    return " ".join(parts)


def _describe_pairs(task: Mapping[str, Any]) -> str:
    rows = sections.pairs(task).rows[:3]
    first = "; ".join(f"{row[0]} with {row[1]}, similarity {row[2]}" for row in rows)
    return f"Influence of matched parts in teacher and student for {task['name']}. First: {first}."


def _describe_scores(task: Mapping[str, Any]) -> str:
    rows = sections.alignment(task).rows[:3]
    said = "; ".join(f"{row[0]} {row[1]}, with influences permuted {row[2]}" for row in rows)
    return f"Alignment scores for {task['name']} beside their nulls: {said}."
