"""Power laws on logarithmic axes, and the skills that they are made of, one curve each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator

from jaxcompress.narrow.scaling import power_law, theory
from jaxcompress.report.drawing import INK, SIZE, canvas, message, png, tidy
from jaxcompress.report.numbers import NA
from jaxcompress.report.sections import Section

__all__ = ["emergence", "exponents", "scaling"]

_UNITS = {"data": "examples in the data set", "steps": "steps on fresh examples"}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def scaling(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss against what was scaled, both logarithmic, one panel each.

    Args:
      rows: with `by` (what was scaled, a panel), `alpha` (a line), `x` and `loss` in bits; points
        of one x are repeats: the line runs through their mean.

    Returns:
      A PNG; a line of text if there are no rows.

    Example:
      >>> rows = [{"by": "data", "alpha": 0.4, "x": x, "loss": 1 / x} for x in (1, 10)]
      >>> scaling(rows)[1:4]
      b'PNG'
    """
    if not rows:
        return message("n/a: nothing was measured")
    kinds, alphas = (list(dict.fromkeys(row[name] for row in rows)) for name in ("by", "alpha"))
    figure = canvas(3.4 * len(kinds) + 0.4, 3.3)
    grid = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(grid, kinds, strict=True):
        for i, alpha in enumerate(alphas):
            chosen = [row for row in rows if row["by"] == kind and row["alpha"] == alpha]
            colour, places = _COLOURS[i % len(_COLOURS)], sorted({row["x"] for row in chosen})
            means = [np.mean([row["loss"] for row in chosen if row["x"] == x]) for x in places]
            axes.plot(places, means, color=colour, linewidth=1.4, label=f"alpha {alpha}")
            if len(places) <= 40:
                points = [(row["x"], row["loss"]) for row in chosen]
                axes.scatter(*np.array(points).T, s=10, color=colour, linewidths=0)
        _logarithmic(axes)
        axes.set_xlabel(_UNITS.get(kind, kind), size=SIZE, color=INK)
    grid[0].set_ylabel("mean test loss (bits)", size=SIZE, color=INK)
    grid[-1].legend(fontsize=SIZE, frameon=False, labelcolor=INK)
    figure.tight_layout()
    return png(figure)


def _logarithmic(axes: Any) -> None:
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log")
        low, high = axis.get_data_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("")
    tidy(axes, grid="y")


def emergence(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """How the tasks are learned: their losses over time, and when each one falls.

    Args:
      rows: one for each task, with `frequency`, `curve` (loss in bits at equal steps), `step` at
        which it fell below 0.1 bit (NaN: never), and `alpha` and `seed`; the curves are those of
        the first alpha and seed, the steps of all.

    Returns:
      A PNG; a line of text if there are no rows.

    Example:
      >>> row = {"frequency": 0.5, "curve": [1.0, 0.0], "step": 100.0, "alpha": 0.4, "seed": 0}
      >>> emergence([row])[1:4]
      b'PNG'
    """
    if not rows:
        return message("n/a: nothing was measured")
    figure = canvas(8.2, 3.3)
    left, right = figure.subplots(1, 2)
    often = [row["frequency"] for row in rows]
    shade = ScalarMappable(LogNorm(min(often), max(max(often), 1.001 * min(often))))
    shade.set_cmap(mpl.colormaps["viridis"])
    for row in rows:
        if all(row[name] == rows[0][name] for name in ("alpha", "seed")):
            share = np.linspace(0, 1, len(row["curve"]) + 1)[1:]
            left.plot(share, row["curve"], color=shade.to_rgba(row["frequency"]), linewidth=0.9)
    left.set_xlabel("share of the training", size=SIZE, color=INK)
    left.set_ylabel("loss of a task (bits)", size=SIZE, color=INK)
    bar = figure.colorbar(shade, ax=left)
    bar.set_label("frequency of the task", size=SIZE, color=INK)
    bar.ax.tick_params(labelsize=SIZE)
    learned = [row for row in rows if np.isfinite(row["step"])]
    for i, alpha in enumerate(dict.fromkeys(row["alpha"] for row in learned)):
        chosen = [(row["frequency"], row["step"]) for row in learned if row["alpha"] == alpha]
        colour = _COLOURS[i % len(_COLOURS)]
        right.scatter(*np.array(chosen).T, s=9, color=colour, linewidths=0, label=f"alpha {alpha}")
    if learned:
        _logarithmic(right)
        right.legend(fontsize=SIZE, frameon=False, labelcolor=INK)
    right.set_xlabel("frequency of the task", size=SIZE, color=INK)
    right.set_ylabel("steps to 0.1 bit", size=SIZE, color=INK)
    tidy(left, grid="y")
    tidy(right, grid="y")
    figure.tight_layout()
    return png(figure)


def exponents(
    rows: Sequence[Mapping[str, Any]],
    recorded: Mapping[str, Mapping[float, float]],
    *,
    fitted: tuple[Any, Any],
    below: float,
) -> Section:
    """Fitted exponents of the loss beside theory and what others recorded.

    Args:
      rows: as for `scaling`; `by` is `parameters`, `data` or `steps`, and others are passed over.
      recorded: by what was scaled and alpha.
      fitted: lowest and highest step that count for the fit in steps.
      below: bits of loss below which a point counts for the fit in data.

    Example:
      >>> rows = [{"by": "data", "alpha": 0.4, "x": x, "loss": x**-0.5} for x in (2.0, 4.0, 8.0)]
      >>> exponents(rows, {}, fitted=(1, 9), below=0.95).rows[1][:4:3]
      ('data, alpha 0.4', '0.286')
    """
    cells = []
    for alpha in dict.fromkeys(row["alpha"] for row in rows):
        for kind, expected in theory(alpha).items():
            chosen = [row for row in rows if row["by"] == kind and row["alpha"] == alpha]
            if kind == "steps":
                chosen = [row for row in chosen if fitted[0] <= row["x"] <= fitted[1]]
            elif kind == "data":
                chosen = [row for row in chosen if 0 < row["loss"] < below]
            text = (NA, NA)
            if len({row["x"] for row in chosen}) > 2:
                found = power_law(*([row[name] for row in chosen] for name in ("x", "loss")))
                text = f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}"
            past = recorded.get(kind, {}).get(alpha)
            other = NA if past is None else f"{past:.3f}"
            cells.append((f"{kind}, alpha {alpha}", *text, f"{expected:.3f}", other))
    columns = ("exponent in", "measured", "95 % interval", "theory", "recorded, 500 tasks")
    return Section(columns, tuple(cells))
