"""One dot for each repeat, one panel for each measure: ways of doing something, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy import stats

from jaxcompress.report.drawing import GREY, INK, SIZE, canvas, message, png, tidy

__all__ = ["dots", "interval"]

_DOT, _MEAN = "#0072b2", "#d55e00"


def dots(
    rows: Iterable[Mapping[str, Any]],
    *,
    by: str,
    measures: Mapping[str, str],
    control: str | None = None,
) -> bytes:
    """Values of all repeats with their mean and its 95 % interval.

    The interval is of Student's t over repeats; with one repeat there is none.

    Args:
      rows: one for each way and repeat.
      by: key that names the ways, from top to bottom.
      measures: keys of the measures, and what to write below their panels.
      control: the way whose mean is drawn through the panel as a dashed line.

    Returns:
      A PNG; a line of text if there are no rows.

    Example:
      >>> rows = [{"way": way, "loss": i} for i, way in enumerate("aab")]
      >>> dots(rows, by="way", measures={"loss": "loss (nats)"})[1:4]
      b'PNG'
    """
    rows = list(rows)
    if not rows:
        return message("n/a: nothing was measured")
    ways = list(dict.fromkeys(row[by] for row in rows))
    columns = min(len(measures), 3)
    lines = -(-len(measures) // columns)
    figure = canvas(3.0 * columns + 1.4, lines * (0.36 * len(ways) + 1.0))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(measures) :]:
        axes.remove()
    for axes, (key, label) in zip(grid.flat, measures.items(), strict=False):
        values = [np.array([row[key] for row in rows if row[by] == way], float) for way in ways]
        for place, found in enumerate(values):
            _one(axes, place, found[np.isfinite(found)])
        if control in ways:
            middle = float(np.nanmean(values[ways.index(control)]))
            axes.axvline(middle, color=GREY, linestyle="--", linewidth=1)
        tidy(axes, grid="x")
        axes.set_xlabel(label, size=SIZE, color=INK)
        axes.set_yticks(range(len(ways)), [str(way) for way in ways], size=SIZE, color=INK)
        axes.set_ylim(len(ways) - 0.5, -0.5)
    figure.tight_layout()
    return png(figure)


def _one(axes: Any, place: int, values: np.ndarray) -> None:
    if not len(values):
        return
    spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(values, place + spread, "o", color=_DOT, markersize=4, alpha=0.6)
    half = interval(values)
    axes.errorbar(values.mean(), place, xerr=half, fmt="|", color=_MEAN, markersize=11, capsize=3)


def interval(values: np.ndarray) -> float:
    """Half the width of the 95 % interval of a mean, by Student's t; 0 for one value.

    Example:
      >>> round(interval(np.array([1.0, 2.0, 3.0])), 3)
      2.484
    """
    n = len(values)
    if n < 2:
        return 0.0
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
