"""Panels of lines and of bars: what changes over time, and how it is spread over frequencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcompress.report.drawing import GREY, INK, SIZE, canvas, message, png, tidy

__all__ = ["Bars", "Line", "Panel", "bars", "lines"]

# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c564b")


class Line(NamedTuple):
    """A line of a panel: its name, its points, whether it is dashed (each second one of a pair)."""

    label: str
    x: Any
    y: Any
    dashed: bool = False


class Panel(NamedTuple):
    """Lines that share their axes.

    Attributes:
      title: above the panel.
      xlabel: with the unit.
      ylabel: with the unit.
      lines: drawn in this order; a dashed line has the colour of the one before it.
      log: axes with a logarithmic scale: "", "x", "y" or "xy".
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    log: str = ""


class Bars(NamedTuple):
    """Bars that share their axes.

    Attributes:
      title: above the panel.
      xlabel: with the unit.
      ylabel: with the unit.
      x: where the bars stand.
      heights: of the bars.
      marked: whether a bar is drawn in colour and named by its place; grey otherwise.
    """

    title: str
    xlabel: str
    ylabel: str
    x: Any
    heights: Any
    marked: Any


def lines(panels: Sequence[Panel], *, columns: int = 2) -> bytes:
    """Panels side by side, each with its own axes and legend.

    Args:
      panels: at least one, or a line of text is drawn.
      columns: of panels.

    Returns:
      A PNG.

    Example:
      >>> lines([Panel("loss", "step", "nats", [Line("train", [1, 2], [3.0, 1.0])], "y")])[1:4]
      b'PNG'
    """
    return _grid(panels, columns, _draw_lines)


def bars(panels: Sequence[Bars], *, columns: int = 2) -> bytes:
    """Panels of bars, those that matter in colour; arguments as in `lines`.

    Example:
      >>> bars([Bars("norms", "frequency", "norm", [1, 2], [0.1, 3.0], [False, True])])[1:4]
      b'PNG'
    """
    return _grid(panels, columns, _draw_bars)


def _grid(panels: Sequence[Any], columns: int, draw: Callable[[Any, Any], None]) -> bytes:
    if not panels:
        return message("n/a: nothing was measured")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = canvas(4.6 * columns, 3.1 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw(axes, panel)
        tidy(axes, grid="y")
        axes.set_title(panel.title, size=SIZE + 1, color=INK, loc="left")
        axes.set_xlabel(panel.xlabel, size=SIZE, color=INK)
        axes.set_ylabel(panel.ylabel, size=SIZE, color=INK)
    figure.tight_layout()
    return png(figure)


def _draw_lines(axes: Any, panel: Panel) -> None:
    if "x" in panel.log:
        axes.set_xscale("log")
    if "y" in panel.log:
        axes.set_yscale("log")
    number = -1
    for line in panel.lines:
        number += not line.dashed or number < 0
        style = {"linestyle": "--"} if line.dashed else {}
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(line.x, line.y, label=line.label, color=colour, linewidth=1.4, **style)
    named = [line for line in panel.lines if line.label]
    if named:
        axes.legend(fontsize=SIZE - 1, frameon=False, labelcolor=INK, ncols=1 + len(named) // 6)


def _draw_bars(axes: Any, panel: Bars) -> None:
    places, heights = np.asarray(panel.x), np.asarray(panel.heights, float)
    marked = np.asarray(panel.marked, bool)
    colours = [COLOURS[0] if one else GREY for one in marked]
    axes.bar(places, heights, color=colours, width=0.8)
    for x, height in zip(places[marked], heights[marked], strict=True):
        axes.annotate(
            f"{x:g}", (x, height), (0, 2), textcoords="offset points", ha="center",
            size=SIZE - 1, color=INK,
        )  # fmt: skip
    axes.margins(y=0.12)
