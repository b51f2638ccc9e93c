"""Models as points: measures against a cost, one panel each, the points named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import EngFormatter, MaxNLocator

from jaxcompress.report.drawing import INK, SIZE, canvas, message, png, tidy

__all__ = ["scatter"]

# Okabe and Ito's colours, told apart with any colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKS = "osD^vP"
# Where the number of a point may stand, in points from it; the first that is free.
_BESIDE = ((5, 3), (-11, 3), (5, -10), (-11, -10), (-3, 7), (-3, -14))


def scatter(
    rows: Iterable[Mapping[str, Any]],
    *,
    x: str,
    measures: Mapping[str, str],
    by: str,
    label: str | None = None,
    xlabel: str = "",
) -> bytes:
    """One panel for each measure; colours and marks by the way a model was made.

    Args:
      rows: one for each model.
      x: key of the cost.
      measures: keys of the measures, and their axis labels.
      by: key that colours are of.
      label: key of the names, numbered in the panels and spelt out in the legend; without it the
        legend has the ways.
      xlabel: of the cost; by default its key.

    Returns:
      A PNG; a line of text if there are no rows.

    Example:
      >>> rows = [{"size": 1, "loss": 2, "way": "pruned", "name": "a"}]
      >>> scatter(rows, x="size", measures={"loss": "nats"}, by="way", label="name")[1:4]
      b'PNG'
    """
    rows = list(rows)
    if not rows:
        return message("n/a: nothing was measured")
    ways = list(dict.fromkeys(row[by] for row in rows))
    columns = min(len(measures), 2)
    lines = -(-len(measures) // columns)
    figure = canvas(3.6 * columns, 2.6 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(measures) :]:
        axes.remove()
    for axes, (key, name) in zip(grid.flat, measures.items(), strict=False):
        for number, row in enumerate(rows, 1):
            if not np.isfinite(row[key]):
                continue
            i = ways.index(row[by])
            style = {"color": _COLOURS[i % 6], "marker": _MARKS[i % 6], "markersize": 6}
            what = row[by] if label is None else f"{number} {row[label]}"
            axes.plot(row[x], row[key], linestyle="", label=what, **style)
        tidy(axes, grid="y")
        axes.margins(0.12)
        if max((abs(row[x]) for row in rows), default=0) >= 10_000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(xlabel or x, size=SIZE, color=INK)
        axes.set_ylabel(name, size=SIZE, color=INK)
    once: dict[str, Any] = {}
    for axes in figure.axes:
        marks, names = axes.get_legend_handles_labels()
        once = dict(zip(names, marks, strict=True)) | once
    figure.legend(
        list(once.values()), list(once), loc="lower center", ncols=2, fontsize=SIZE, frameon=False,
        bbox_to_anchor=(0.5, 1.0), labelcolor=INK,
    )  # fmt: skip
    figure.tight_layout()
    for axes, key in zip(grid.flat, measures if label is not None else (), strict=False):
        _number(axes, np.array([(row[x], row[key]) for row in rows], float))
    return png(figure)


def _number(axes: Any, points: np.ndarray) -> None:
    """Numbers beside points, none over another point or number where there is room."""
    at = axes.transData.transform(points) * 72 / axes.figure.dpi
    taken = [place for place in at if np.isfinite(place).all()]
    for number, (point, here) in enumerate(zip(points, at, strict=True), 1):
        if np.isfinite(here).all():
            middles = [here + place + (3, 3) for place in _BESIDE]
            free = [min(np.abs(one - other).max() for other in taken) > 6.5 for one in middles]
            place = free.index(True) if any(free) else 0
            taken.append(middles[place])
            axes.annotate(
                str(number), point, xytext=_BESIDE[place], textcoords="offset points",
                size=SIZE - 1, color=INK,
            )  # fmt: skip
