"""Figures of the alignment: matched pairs, and scores between chance and their ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcompress import check
from jaxcompress.report.drawing import (
    GREY,
    INK,
    SIZE,
    STUDENT,
    TEACHER,
    canvas,
    message,
    png,
    tidy,
)
from jaxcompress.report.numbers import number, p_value, real
from jaxcompress.report.sections import NULLS, REFERENCES, SCORES, field

__all__ = ["alignment_scores", "matched_pairs"]

ROWS = 14


class _Pair(NamedTuple):
    label: str
    similarity: float | None
    student: float
    teacher: float


def matched_pairs(task: Mapping[str, Any], rows: int = ROWS) -> bytes:
    """How much each model relies on the two parts of a matched pair.

    On the left the pairs that matter most to either model, one per row; on the right all pairs,
    where the diagonal is equal reliance. Influences are shown as shares of their sum over pairs.

    Args:
      task: one of the tasks of a comparison.
      rows: how many pairs are named.

    Returns:
      A PNG; a line of text if there are no pairs.

    Raises:
      ValueError: for fewer than one row.

    Example:
      >>> matched_pairs({"alignment": {"pairs": []}})[1:4]
      b'PNG'
    """
    rows = check.integer("rows", rows, 1)
    pairs = _shares(field(task, "alignment", "pairs") or [])
    if not pairs:
        return message("n/a: no matched pairs were recorded")
    shown = sorted(pairs, key=lambda pair: -max(pair.student, pair.teacher))[:rows]
    height = 0.27 * len(shown) + 1.0
    figure = canvas(10.6, max(height, 3.6))
    top = figure.get_size_inches()[1]
    _dumbbells(figure.add_axes((0.17, 0.5 / top, 0.36, 1 - 0.9 / top)), shown)
    side = min(3.4, top - 0.9)
    scatter = figure.add_axes((0.66, 1 - (0.4 + side) / top, side / 10.6, side / top))
    _scatter(scatter, pairs)
    return png(figure)


def _shares(pairs: list[Mapping[str, Any]]) -> list[_Pair]:
    """Pairs with both influences, in percent of their sum."""
    keys = ("influence_student", "influence_teacher")
    found = [pair for pair in pairs if all(real(field(pair, key)) is not None for key in keys)]
    totals = [sum(abs(float(pair[key])) for pair in found) or 1.0 for key in keys]
    return [
        _Pair(
            f"{field(pair, 'student')}  ↔  {field(pair, 'teacher')}",
            real(field(pair, "similarity")),
            *(100 * abs(float(pair[k])) / total for k, total in zip(keys, totals, strict=True)),
        )
        for pair in found
    ]


def _dumbbells(axes: Any, pairs: list[_Pair]) -> None:
    for y, pair in enumerate(pairs):
        axes.plot([pair.student, pair.teacher], [y, y], color="#b9c0c8", linewidth=2, zorder=1)
        axes.text(
            1.03, y, number(pair.similarity, 2), transform=axes.get_yaxis_transform(),
            size=SIZE, va="center", color=INK,
        )  # fmt: skip
    ys = range(len(pairs))
    axes.scatter([p.teacher for p in pairs], ys, s=34, color=TEACHER, label="teacher", zorder=3)
    axes.scatter(
        [p.student for p in pairs], ys, s=34, color=STUDENT, marker="D", label="student", zorder=2
    )
    axes.set_yticks(ys, [p.label for p in pairs], parse_math=False)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of all influence (%)", size=SIZE, color=INK)
    style: dict[str, Any] = {
        "transform": axes.transAxes,
        "size": SIZE,
        "color": GREY,
        "va": "bottom",
    }
    axes.text(-0.02, 1.01, "student  ↔  teacher", ha="right", **style)
    axes.text(1.03, 1.01, "similarity", **style)
    axes.legend(
        fontsize=SIZE, frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=2,
        borderaxespad=0, handletextpad=0.1, columnspacing=1.0,
    )  # fmt: skip
    tidy(axes, grid="x")


def _scatter(axes: Any, pairs: list[_Pair]) -> None:
    """All pairs on square-root axes, which show the many small ones and still begin at 0."""
    top = max(max(pair.student, pair.teacher) for pair in pairs) * 1.1 or 1.0
    axes.plot([0, top], [0, top], color="#b9c0c8", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for kind, marker in (("head", "o"), ("mlp", "s")):
        some = [pair for pair in pairs if pair.label.startswith("mlp") == (kind == "mlp")]
        axes.scatter(
            [pair.teacher for pair in some], [pair.student for pair in some], s=22, marker=marker,
            color="#4a5563" if kind == "head" else "#b3a125", alpha=0.65, linewidth=0, zorder=2,
            label="heads" if kind == "head" else "MLPs",
        )  # fmt: skip
    ticks = [t for t in (0, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100) if t <= top]
    axes.set_xscale("function", functions=(_root, np.square))
    axes.set_yscale("function", functions=(_root, np.square))
    axes.set(xlim=(0, top), ylim=(0, top))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("share in the teacher (%)", size=SIZE, color=INK)
    axes.set_ylabel("share in the student (%)", size=SIZE, color=INK)
    axes.set_title(f"all {len(pairs)} pairs", size=SIZE, color=GREY, loc="left", pad=4)
    axes.legend(fontsize=SIZE, frameon=False, loc="upper left", handletextpad=0.1)
    tidy(axes)


def _root(x: Any) -> Any:
    # Autoscaling asks for values below 0 before the limits are set.
    return np.sqrt(np.maximum(x, 0))


def alignment_scores(task: Mapping[str, Any]) -> bytes:
    """The three scores of the pair, above what they are by chance and for other models.

    Bars are mean ± 2 standard deviations of a null; points are single models. The dashed line is
    the pair itself.

    Args:
      task: one of the tasks of a comparison.

    Returns:
      A PNG; a line of text if there is no score.

    Example:
      >>> alignment_scores({"alignment": {"published": 0.9}})[1:4]
      b'PNG'
    """
    data = field(task, "alignment")
    if all(real(field(data, key)) is None for key, _ in SCORES):
        return message("n/a: no alignment was computed")
    figure = canvas(10.6, 2.5)
    names = ["this pair", *(name for _, name in NULLS + REFERENCES)]
    low, high = _range(data)
    for i, (key, label) in enumerate(SCORES):
        axes = figure.add_axes((0.125 + i * 0.295, 0.2, 0.27, 0.66))
        axes.set_title(label, size=SIZE + 1, color=INK, loc="left", weight="bold")
        axes.set(xlim=(low, high), ylim=(len(names) - 0.5, -0.5))
        axes.set_yticks(range(len(names)), names if i == 0 else [""] * len(names))
        axes.set_xlabel("score", size=SIZE, color=INK)
        _scores(axes, data, key)
        tidy(axes, grid="x")
        axes.tick_params(axis="y", length=0)
    return png(figure)


def _range(data: Any) -> tuple[float, float]:
    """[0, 1], widened where a score or a null goes beyond it."""
    values = [0.0, 1.0]
    for key, _ in SCORES:
        values.append(real(field(data, key)) or 0.0)
        values += [_point(data, name, key) or 0.0 for name, _ in REFERENCES]
        for name, _ in NULLS:
            mean, sd = _mean_sd(data, name, key)
            values += [(mean or 0.0) - 2 * sd, (mean or 0.0) + 2 * sd] if mean is not None else []
    return min(values) - 0.02, max(values) + 0.02


def _scores(axes: Any, data: Any, key: str) -> None:
    score = real(field(data, key))
    bounds = field(data, "interval") if key == "overlap" else None
    ends = [real(bound) for bound in bounds or ()]
    known = score is not None and len(ends) == 2 and None not in ends
    reach = max(abs((end or 0.0) - (score or 0.0)) for end in ends) if known else 0.0
    if score is not None:
        axes.axvline(score, color=STUDENT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.plot(score, 0, "D", color=STUDENT, markersize=6, zorder=4)
        if reach:
            axes.plot(ends, [0, 0], color=STUDENT, linewidth=2, zorder=3)
    _say(axes, score, 0, number(score), reach)
    for y, (name, _) in enumerate(NULLS, start=1):
        mean, sd = _mean_sd(data, name, key)
        if mean is not None:
            axes.plot(
                [mean - 2 * sd, mean + 2 * sd], [y, y], color="#8a939e", linewidth=5, alpha=0.6
            )
            axes.plot(mean, y, "|", color=INK, markersize=9, zorder=3)
        chance = p_value(field(data, "nulls", name, key, "p"))
        _say(axes, mean, y, number(mean) if mean is None else f"{number(mean)}, {chance}", 2 * sd)
    for y, (name, _) in enumerate(REFERENCES, start=1 + len(NULLS)):
        value = _point(data, name, key)
        if value is not None:
            axes.plot(value, y, "o", color=TEACHER, markersize=5.5, zorder=3)
        _say(axes, value, y, number(value))


def _say(axes: Any, x: float | None, y: int, text: str, reach: float = 0.0) -> None:
    """Writes next to a mark that reaches so far to both sides, where there is room."""
    low, high = axes.get_xlim()
    if x is None:
        axes.text(low + 0.03 * (high - low), y, text, size=SIZE - 0.5, va="center", color=GREY)
        return
    left = x > (low + high) / 2
    axes.annotate(
        text, (x - reach if left else x + reach, y), (-8 if left else 8, 0),
        textcoords="offset points", size=SIZE - 0.5,
        ha="right" if left else "left", va="center", color=INK, zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
    )  # fmt: skip


def _mean_sd(data: Any, name: str, key: str) -> tuple[float | None, float]:
    null = field(data, "nulls", name, key)
    return real(field(null, "mean")), real(field(null, "sd")) or 0.0


def _point(data: Any, name: str, key: str) -> float | None:
    value = field(data, "nulls", name, key)
    return real(field(value, "mean") if isinstance(value, Mapping) else value)
