"""Which scores tell same mechanisms from different ones: pairs as dots, areas, removed shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress.report.curves import curves
from jaxcompress.report.drawing import GREY, INK, SIZE, STUDENT, TEACHER, canvas, message, png, tidy
from jaxcompress.report.numbers import interval, number
from jaxcompress.report.page import experiment_page, figure
from jaxcompress.report.sections import Section

__all__ = ["auc_bars", "graded", "page", "pictures", "strips", "tables"]

Rows = Sequence[Mapping[str, Any]]

NAMES = {
    "published": "as published",
    "mean_similarity": "mean similarity",
    "weighted": "weighted",
    "overlap": "overlap",
    "attention_with_sink": "attention",
    "attention": "attention, no sink",
    "functional": "outputs (CKA)",
    "roles": "roles",
    "effects": "effects",
    "causal": "logit changes",
    "alignment": "alignment",
    "algorithm": "algorithm",
    "mechanism": "mechanism",
}
SHOWN = ("published", "overlap", "attention", "functional", "alignment", "mechanism")
ABOUT = {
    "separation": (
        "Scores of all pairs by their truth",
        "Each dot is a pair on one task. Same: a model in disguise, a student that started from "
        "the teacher's layers, one algorithm in two networks. Between: pruned copies, distilled "
        "from a random start. Different: trained from scratch, untrained, other algorithms.",
    ),
    "areas": (
        "Area under the ROC curve of every score",
        "Same against different pairs, with 95 % bootstrap intervals over pairs of models; 0.5 is "
        "chance.",
    ),
    "pruned": (
        "Scores against the share of heads removed",
        "The teacher against copies of itself without some heads; mean and range over tasks.",
    ),
}


def pictures(rows: Rows, found: Mapping[str, Mapping[str, float]]) -> dict[str, bytes]:
    """The three figures by file name.

    Example:
      >>> list(pictures([], {}))
      ['separation', 'areas', 'pruned']
    """
    return {"separation": strips(rows), "areas": auc_bars(found), "pruned": graded(rows)}


def page(rows: Rows, found: Mapping[str, Mapping[str, float]], config: Mapping[str, Any]) -> str:
    """The page of the experiment.

    Example:
      >>> "<h1>Which scores" in page([], {}, {})
      True
    """
    return experiment_page(
        "Which scores tell same mechanisms from different ones?",
        figures=[figure(png, *ABOUT[name]) for name, png in pictures(rows, found).items()],
        tables=tables(rows, found),
        config=config,
    )


def strips(rows: Rows) -> bytes:
    """One panel for each of some scores: dots for same, graded and different pairs.

    Example:
      >>> strips([])[1:4]
      b'PNG'
    """
    if not rows:
        return message("n/a: nothing was measured")
    truths = {"same": TEACHER, "graded": GREY, "different": STUDENT}
    shown = [name for name in SHOWN if np.isfinite([row[name] for row in rows]).any()]
    figure = canvas(1.75 * len(shown) + 0.5, 3.2)
    grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    rng = np.random.default_rng(0)
    for axes, name in zip(grid, shown, strict=True):
        for place, (truth, colour) in enumerate(truths.items()):
            values = np.array([row[name] for row in rows if row["truth"] == truth], float)
            values = values[np.isfinite(values)]
            spread = place + rng.uniform(-0.28, 0.28, len(values))
            axes.scatter(spread, values, s=13, color=colour, alpha=0.65, linewidth=0)
        tidy(axes, grid="y")
        axes.set_xlim(-0.6, 2.6)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xticks(range(3), ["same", "between", "different"], rotation=30, ha="right")
        axes.set_title(NAMES[name], size=SIZE + 1, color=INK, loc="left")
    grid[0].set_ylabel("score", size=SIZE, color=INK)
    figure.tight_layout()
    return png(figure)


def auc_bars(found: Mapping[str, Mapping[str, float]]) -> bytes:
    """The areas as dots with their intervals.

    Args:
      found: by score `auc`, `low` and `high`, as from `align.separation.areas`.

    Example:
      >>> auc_bars({"published": {"auc": 0.5, "low": 0.4, "high": 0.6}})[1:4]
      b'PNG'
    """
    if not found:
        return message("n/a: no pairs of both kinds")
    figure = canvas(6.0, 0.27 * len(found) + 0.7)
    axes = figure.subplots()
    for place, one in enumerate(found.values()):
        axes.plot([one["low"], one["high"]], [place, place], color=TEACHER, linewidth=1.6)
        axes.plot(one["auc"], place, "o", color=TEACHER, markersize=5)
        axes.text(1.03, place, f"{one['auc']:.2f}", size=SIZE, color=INK, va="center")
    axes.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(found)), [NAMES.get(name, name) for name in found])
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.1)
    axes.set_xlabel("area under the ROC curve (0.5: chance)", size=SIZE, color=INK)
    tidy(axes, grid="x")
    figure.tight_layout()
    return png(figure)


def graded(rows: Rows) -> bytes:
    """Scores of pruned copies against the share removed.

    Example:
      >>> graded([])[1:4]
      b'PNG'
    """
    points = [
        {"share": share, "score": NAMES[name], "value": row[name]}
        for row, share in _pruned(rows)
        for name in ("published", "overlap", "functional", "alignment")
    ]
    return curves(
        points, x="share", y="value", by="score", control=NAMES["published"],
        xlabel="heads removed (%)", ylabel="score",
    )  # fmt: skip


def _pruned(rows: Rows) -> list[tuple[Mapping[str, Any], float]]:
    found = [(row, str(row["pair"]).rpartition("pruned ")) for row in rows]
    return [(row, float(parts[2].rstrip("%"))) for row, parts in found if parts[1]]


def tables(rows: Rows, found: Mapping[str, Mapping[str, float]]) -> dict[str, Section]:
    """Areas, scores of the pairs (means over tasks), and the recovered initialisation.

    Args:
      rows: one for each pair and task.
      found: areas by score.

    Example:
      >>> list(tables([], {}))
      ['Area under the ROC curve', 'Scores, means over tasks']
    """
    areas = tuple(
        (
            NAMES.get(name, name), number(one["auc"]), interval((one["low"], one["high"])),
            f"{one.get('same', 0)} / {one.get('different', 0)}",
        )
        for name, one in found.items()
    )  # fmt: skip
    columns = ("score", "AUC", "95 % interval", "same / different")
    shown = {"Area under the ROC curve": Section(columns, areas)}
    means = []
    for pair in dict.fromkeys(row["pair"] for row in rows):
        chosen = [row for row in rows if row["pair"] == pair]
        values = (np.mean([row[name] for row in chosen]) for name in NAMES)
        told = (chosen[0]["family"], chosen[0]["truth"])
        means.append((pair, *told, *(number(float(value)) for value in values)))
    shown["Scores, means over tasks"] = Section(
        ("pair", "family", "truth", *NAMES.values()), tuple(means)
    )
    for row in rows:
        if "recovered" in row:
            cells = tuple(
                (
                    str(NAMES.get(name, name)),
                    *(f"{one[k]:.0%}" for k in ("heads", "layers", "mlps")),
                )
                for name, one in row["recovered"].items()
            )
            columns = ("similarity", "same head", "same layer", "same MLP")
            shown["Student components matched with what they started from"] = Section(
                columns, cells
            )
    return shown
