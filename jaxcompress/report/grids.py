"""Numbers of layers against something as colours: one panel for each measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize

from jaxcompress.report.drawing import GREY, INK, SIZE, canvas, message, png

__all__ = ["grids"]

_CELL = 0.34  # inches


def grids(
    panels: Mapping[str, Any],
    *,
    columns: Mapping[str, Sequence[str]] | None = None,
    rows: Sequence[str] | None = None,
    unit: str = "",
    ylabel: str = "layer",
    signed: bool = True,
    apart: bool = True,
    wrap: int = 3,
) -> bytes:
    """Heat maps side by side, rows from the top, each with a colour bar.

    Args:
      panels: by title, (row, column) numbers; NaN is grey.
      columns: names of the columns by title; numbers without.
      rows: names of the rows of all panels; numbers without.
      unit: of the numbers.
      ylabel: what the rows are.
      signed: red below 0 and blue above, white at 0; else white to blue from 0.
      apart: each panel has colours of its own; else one scale for all.
      wrap: panels in a line.

    Returns:
      A PNG.

    Example:
      >>> grids({"heads": np.eye(2)}, unit="nats")[1:4]
      b'PNG'
    """
    values = {title: np.atleast_2d(np.asarray(one, float)) for title, one in panels.items()}
    if not values:
        return message("n/a: nothing was measured")
    colours = mpl.colormaps["RdBu" if signed else "Blues"].with_extremes(bad="#d5d9dd")
    limits = {title: _limit(one) for title, one in values.items()}
    top = max(limits.values())
    items = list(values.items())
    lines = [items[i : i + wrap] for i in range(0, len(items), wrap)]
    widths = [sum(_width(one) for _, one in line) for line in lines]
    names = columns or {}
    heights = [
        max(one.shape[0] * _CELL + _below(names.get(title, ())) for title, one in line)
        for line in lines
    ]
    figure = canvas(max(widths), sum(heights))
    y = sum(heights)
    for line, height in zip(lines, heights, strict=True):
        x = 0.0
        for title, one in line:
            limit = limits[title] if apart else top
            norm = Normalize(-limit if signed else 0, limit)
            axes, bar = _place(figure, x, y, one)
            image = axes.imshow(one, cmap=colours, norm=norm, aspect="auto")
            _label(axes, title, one, names.get(title), ylabel, rows)
            figure.colorbar(image, cax=bar).outline.set_visible(False)
            bar.tick_params(labelsize=SIZE - 1, length=2, color=GREY, labelcolor=INK)
            bar.set_title(unit, size=SIZE - 1, color=INK, loc="left")
            x += _width(one)
        y -= height
    return png(figure)


def _width(one: np.ndarray) -> float:
    return max(one.shape[1] * _CELL + 1.35, 1.9)


def _below(names: Sequence[str]) -> float:
    """Inches for the title above, and for the names below."""
    return 0.75 + 0.07 * max(map(len, names), default=0)


def _place(figure: Any, x: float, y: float, one: np.ndarray) -> tuple[Any, Any]:
    """Axes of a panel whose upper left corner is at (x, y) inches, and those of its colours."""
    width, height = figure.get_size_inches()
    rows, across = (n * _CELL for n in one.shape)
    low = (y - 0.35 - rows) / height
    axes = figure.add_axes(((x + 0.5) / width, low, across / width, rows / height))
    left = (x + 0.58 + across) / width
    return axes, figure.add_axes((left, low, 0.09 / width, rows / height))


def _label(
    axes: Any, title: str, one: np.ndarray, names: Sequence[str] | None, ylabel: str,
    rows: Sequence[str] | None,
) -> None:  # fmt: skip
    axes.set_title(title, size=SIZE + 1, color=INK, loc="left")
    axes.set_yticks(range(one.shape[0]), rows)
    names = list(map(str, range(one.shape[1]))) if names is None else list(names)
    axes.set_xticks(range(one.shape[1]), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.tick_params(labelsize=SIZE, length=0, labelcolor=INK)
    axes.set_ylabel(ylabel, size=SIZE, color=INK)
    axes.spines[:].set_visible(False)


def _limit(values: np.ndarray) -> float:
    """The largest finite size, 1 if there is none."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) or 1.0 if finite.size else 1.0
