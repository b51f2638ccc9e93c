"""Curves with bands: a measure against what was varied, one line for each way of doing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxcompress.report.drawing import GREY, INK, SIZE, canvas, message, png, tidy

__all__ = ["curves"]

# Okabe and Ito's colours, told apart with any colour vision; grey is kept for the control.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c564b")
_MARKS = "osD^vP*X"


def curves(
    rows: Iterable[Mapping[str, Any]],
    *,
    x: str,
    y: str,
    by: str,
    panel: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    control: str | None = None,
    logx: bool = False,
    target: float | None = None,
) -> bytes:
    """Means over repeats with the range from the lowest to the highest as a band.

    Args:
      rows: one for each point and repeat.
      x: key of what was varied.
      y: key of the measure.
      by: key that names the lines.
      panel: key that names the panels, side by side with a common y axis; `None` for one.
      xlabel: with the unit.
      ylabel: with the unit.
      control: the line that is drawn grey and dashed.
      logx: x are shares, on a logarithmic axis in percent.
      target: of the measure, a thin line across.

    Returns:
      A PNG; a line of text if there are no rows.

    Example:
      >>> rows = [{"share": s, "loss": s, "how": "random"} for s in (0.0, 0.5)]
      >>> curves(rows, x="share", y="loss", by="how")[1:4]
      b'PNG'
    """
    rows = list(rows)
    if not rows:
        return message("n/a: nothing was measured")
    panels = list(dict.fromkeys(row[panel] for row in rows)) if panel else [None]
    lines = list(dict.fromkeys(row[by] for row in rows))
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    height = 3.0 * -(-len(panels) // columns) + 0.5
    figure = canvas(3.5 * columns + 0.6, height)
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, name in zip(grid.flat, panels, strict=False):
        for i, line in enumerate(lines):
            chosen = [r for r in rows if r[by] == line and (panel is None or r[panel] == name)]
            _line(axes, chosen, x, y, line, _style(i, line == control))
        tidy(axes, grid="y")
        if logx:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        if target is not None:
            axes.axhline(target, color=GREY, linewidth=0.8, zorder=1)
        axes.set_xlabel(xlabel or x, size=SIZE, color=INK)
        axes.set_title("" if name is None else str(name), size=SIZE + 1, color=INK, loc="left")
    for row in grid:
        row[0].set_ylabel(ylabel or y, size=SIZE, color=INK)
    if len(lines) > 1:
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="lower center", ncols=4, fontsize=SIZE, frameon=False,
            bbox_to_anchor=(0.5, 1.0), labelcolor=INK,
        )  # fmt: skip
    figure.tight_layout()
    return png(figure)


def _style(i: int, control: bool) -> dict[str, Any]:
    if control:
        return {"color": GREY, "linestyle": "--", "marker": "x"}
    return {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKS[i % len(_MARKS)]}


def _line(
    axes: Any, rows: list[Mapping[str, Any]], x: str, y: str, name: Any, style: dict[str, Any]
) -> None:
    places = sorted({row[x] for row in rows})
    values = [np.array([row[y] for row in rows if row[x] == place], float) for place in places]
    if not places:
        return
    axes.plot(
        places, [v.mean() for v in values], label=str(name), linewidth=1.6, markersize=4,
        markevery=max(1, len(places) // 12), **style,
    )  # fmt: skip
    if max(len(v) for v in values) > 1:
        low, high = [v.min() for v in values], [v.max() for v in values]
        axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
