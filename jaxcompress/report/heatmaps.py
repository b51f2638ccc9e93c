"""Ablation effects of both models side by side, on one colour scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from jaxcompress.report.drawing import GREY, INK, SIZE, canvas, message, png
from jaxcompress.report.numbers import MINUS, real
from jaxcompress.report.sections import field

__all__ = ["ablation_map"]

COLOURS = mpl.colormaps["RdBu"].with_extremes(bad="#d5d9dd")
SIDES = ("teacher", "student")
GAP = 0.5  # between the heads and the column of MLPs, in cells
LEFT, BETWEEN, BAR, TOP, BOTTOM = 0.55, 0.75, 0.9, 0.35, 0.5  # inches


class _Panel(NamedTuple):
    """Effects of one model, signed, NaN where there is no number."""

    heads: Float[np.ndarray, "layer head"]
    mlps: Float[np.ndarray, "layer"]


def ablation_map(task: Mapping[str, Any]) -> bytes:
    """Heat maps of what removing each head and each MLP does to the logit difference.

    Rows are layers, columns heads, with the MLP as one more column. Both models share the colours:
    red is lost, blue is gained. In percent of the clean logit difference where both models have
    one, else in nats. The colours end at the largest effect of a head; an MLP beyond it has the
    last colour, and its number is written into it.

    Args:
      task: one of the tasks of a comparison.

    Returns:
      A PNG; a line of text in place of the maps if there are no effects.

    Example:
      >>> side = {"clean": 2.0, "heads": [[-1.0, 0.1]], "mlps": [-0.5]}
      >>> ablation_map({"dependence": {"teacher": side, "student": side}})[1:4]
      b'PNG'
    """
    percent = all(_has_percent(field(task, "dependence", side)) for side in SIDES)
    suffix = "_percent" if percent else ""
    panels = [_panel(field(task, "dependence", side), suffix) for side in SIDES]
    if not any(np.isfinite(panel.heads).any() or np.isfinite(panel.mlps).any() for panel in panels):
        return message("n/a: no effects of removing parts were recorded")
    limit, beyond = _limit(panels, percent)
    return png(_draw(panels, limit, beyond, "% of the clean value" if percent else "nats"))


def _has_percent(side: Any) -> bool:
    values = [_grid(field(side, key)) for key in ("heads_percent", "mlps_percent")]
    # Of a negative clean value, percentages would turn losses into gains.
    return (real(field(side, "clean")) or 0.0) > 0 and all(
        np.isfinite(value).any() for value in values
    )


def _panel(side: Any, suffix: str) -> _Panel:
    heads, mlps = _grid(field(side, "heads" + suffix)), _grid(field(side, "mlps" + suffix))
    layers = max(len(heads), mlps.shape[1])
    return _Panel(
        np.pad(heads, ((0, layers - len(heads)), (0, 0)), constant_values=np.nan),
        np.pad(mlps[0], (0, layers - mlps.shape[1]), constant_values=np.nan),
    )


def _grid(values: Any) -> Float[np.ndarray, "row column"]:
    """Rows of numbers as one array; a missing number, or a head that a layer lacks, is NaN."""
    rows = list(values) if values is not None else []
    if not any(np.ndim(row) for row in rows):
        rows = [rows]
    numbers = [[real(value) for value in row] for row in rows]
    grid = np.full((len(numbers), max(map(len, numbers))), np.nan)
    for i, row in enumerate(numbers):
        grid[i, : len(row)] = [np.nan if value is None else value for value in row]
    return grid


def _limit(panels: list[_Panel], percent: bool) -> tuple[float, str]:
    """The effect at the end of the colours, and at which ends some go beyond it."""
    heads = np.concatenate([panel.heads.ravel() for panel in panels])
    mlps = np.concatenate([panel.mlps for panel in panels])
    signed = np.concatenate([heads, mlps])
    everything = np.abs(signed)
    heads = np.abs(heads[np.isfinite(heads)])
    limit = float(heads.max()) if heads.size else float(np.nanmax(everything))
    limit = min(limit, 100.0) if percent else limit
    limit = limit or float(np.nanmax(everything)) or 1.0
    beyond = (bool(np.nanmin(signed) < -limit), bool(np.nanmax(signed) > limit))
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    return limit, ends.get(beyond, "both")


def _draw(panels: list[_Panel], limit: float, beyond: str, unit: str) -> Figure:
    most = max(panel.heads.shape[1] for panel in panels)
    cell = float(np.clip(5.2 / max(most, 1), 0.11, 0.33))
    widths = [(panel.heads.shape[1] + GAP + 1) * cell for panel in panels]
    heights = [max(len(panel.mlps), 1) * cell for panel in panels]
    width, tall = LEFT + sum(widths) + BETWEEN + BAR, max(max(heights), 1.6)
    height = TOP + tall + BOTTOM
    figure = canvas(width, height)
    norm, left = Normalize(-limit, limit), LEFT
    for side, panel, w, h in zip(SIDES, panels, widths, heights, strict=True):
        box = (left / width, (height - TOP - h) / height, w / width, h / height)
        _draw_panel(figure.add_axes(box), panel, norm, cell)
        # Both titles at one height, above cells that begin there.
        figure.text(left / width, 1 - 0.2 / height, side, size=SIZE + 2, weight="bold", color=INK)
        left += w + BETWEEN
    left -= BETWEEN - 0.25
    box = (left / width, (height - TOP - tall) / height, 0.14 / width, tall / height)
    bar = figure.colorbar(
        ScalarMappable(norm, COLOURS),
        cax=figure.add_axes(box),
        extend=beyond,
    )
    bar.ax.tick_params(labelsize=SIZE, labelcolor=INK, color=GREY)
    bar.outline.set_visible(False)
    bar.set_label(f"change of the logit difference\nwhen removed ({unit})", size=SIZE, color=INK)
    return figure


def _draw_panel(axes: Any, panel: _Panel, norm: Normalize, cell: float) -> None:
    layers, heads = panel.heads.shape
    for column, values in [*enumerate(panel.heads.T), (heads + GAP, panel.mlps)]:
        axes.pcolormesh(
            [column - 0.5, column + 0.5], np.arange(layers + 1) - 0.5, values[:, None],
            norm=norm, cmap=COLOURS, edgecolors="white", linewidth=0.6,
        )  # fmt: skip
    step = 1 if cell > 0.22 else 4
    axes.set_xticks([*range(0, heads, step), heads + GAP], [*range(0, heads, step), "MLP"])
    axes.set_yticks(range(0, layers, step))
    axes.set(xlim=(-0.5, heads + GAP + 0.5), ylim=(layers - 0.5, -0.5))
    axes.set_xlabel("head", size=SIZE, color=INK)
    axes.set_ylabel("layer", size=SIZE, color=INK)
    axes.tick_params(labelsize=SIZE - 0.5, length=0, pad=3, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if cell > 0.28:
        _write_numbers(axes, panel, norm.vmax or 1.0)


def _write_numbers(axes: Any, panel: _Panel, limit: float) -> None:
    """The effects worth a number: a head's from a tenth of the scale on, an MLP's always."""
    heads = panel.heads.shape[1]
    found = [
        (column, layer, value)
        for (layer, column), value in np.ndenumerate(panel.heads)
        if abs(value) >= limit / 10
    ]
    found += [(heads + GAP, i, x) for i, x in enumerate(panel.mlps) if np.isfinite(x)]
    for x, y, value in found:
        text = f"{value:.0f}" if limit >= 10 else f"{value:.1f}"
        text = text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)
        colour = "white" if abs(value) > 0.6 * limit else INK
        axes.text(x, y, text, ha="center", va="center", size=6.3, color=colour)
