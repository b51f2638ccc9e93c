"""Power laws on logarithmic axes, and the skills that they are made of, one curve each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator

from jaxcompress.narrow.scaling import endless, finite, power_law, theory, window
from jaxcompress.report.drawing import INK, SIZE, canvas, message, png, tidy
from jaxcompress.report.numbers import NA
from jaxcompress.report.sections import Section

__all__ = ["FIRST", "emergence", "exponents", "scaling"]

FIRST = 3
"""Learned tasks from which on a curve over steps is fitted."""

_UNITS = {"data": "examples in the data set", "steps": "steps on fresh examples"}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def scaling(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss against what was scaled, both logarithmic, one panel each.

    Args:
      rows: with `by` (what was scaled, a panel), `alpha` (a line), `tasks`, `x` and `loss` in bits;
        points of one x are repeats: the line runs through their mean, and a dashed one through that
        of `narrow.scaling.endless`.

    Returns:
      A PNG; a line of text if there are no rows.

    Example:
      >>> row = {"by": "data", "alpha": 0.4, "tasks": 9}
      >>> rows = [row | {"x": x, "loss": 1 / x} for x in (1, 10)]
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
            whole = endless(means, chosen[0]["tasks"], alpha) if chosen else means
            axes.plot(places, whole, color=colour, linewidth=1.0, linestyle="--")
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
    below: float,
) -> Section:
    """Fitted exponents of the loss beside theory and what others recorded.

    The fit in steps is over the points from `FIRST` learned tasks to a quarter of them, or to the
    end. Of so few tasks as there are, theory expects a steeper fall there than of endlessly many;
    so both are told and, beside the loss as it is, that with the absent tasks put back.

    Args:
      rows: of `train.quanta.train_quanta`.
      recorded: by what was scaled and alpha; `emergence` is of the steps by frequency.
      below: bits of loss below which a point counts for the fit in data.

    Example:
      >>> rows = [{"by": "data", "alpha": 0.4, "seed": seed, "tasks": 500, "x": x, "loss": x**-0.5}
      ...         for seed in (0, 1) for x in (2.0, 4.0, 8.0)]
      >>> exponents(rows, {}, below=0.95).rows[1][:3]
      ('data, alpha 0.4', '0.500', '0.500 to 0.500')
    """
    cells = []
    for alpha in dict.fromkeys(row["alpha"] for row in rows):
        for kind, endless_tasks in theory(alpha).items():
            chosen = [row for row in rows if row["by"] == kind and row["alpha"] == alpha]
            expected = NA
            if kind == "steps":
                chosen = _inside(chosen)
                if chosen:
                    expected = _of_so_few(alpha, chosen)
            elif kind == "data":
                chosen = [row for row in chosen if 0 < row["loss"] < below]
            whole = [
                {**row, "loss": float(endless(row["loss"], row["tasks"], alpha))} for row in chosen
            ]
            past = recorded.get(kind, {}).get(alpha)
            cells.append(
                (f"{kind}, alpha {alpha}", *_fit(chosen), expected, *_fit(whole),
                 f"{endless_tasks:.3f}", NA if past is None else f"{past:.3f}")
            )  # fmt: skip
        cells += _emergence(rows, alpha, recorded)
    columns = (
        "exponent in", "measured", "95 % interval", "expected of so few tasks",
        "with the absent tasks", "95 % interval", "theory", "recorded, 500 tasks",
    )  # fmt: skip
    note = (
        "Fitted in each run: mean and Student's t over the runs. In steps: from "
        f"{FIRST} tasks below 0.1 bit to a quarter of all, or the last step. With the absent "
        "tasks: as if there were no last task, and those that are not there cost one bit each."
    )
    return Section(columns, tuple(cells), note)


def _inside(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The points of each curve that count for its fit."""
    found = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        curve = sorted((row for row in rows if row["seed"] == seed), key=lambda row: row["x"])
        steps, learned = ([row[name] for row in curve] for name in ("x", "learned"))
        found += [curve[i] for i in window(steps, learned, FIRST, curve[0]["tasks"] // 4)]
    return found


def _of_so_few(alpha: float, rows: list[Mapping[str, Any]]) -> str:
    """The exponent in steps that theory expects while as many tasks are learned as were."""
    most: dict[Any, int] = {}
    for row in rows:
        most[row["seed"]] = max(row["learned"], most.get(row["seed"], 0))
    last = float(np.mean(list(most.values())))
    if last <= FIRST:
        return NA
    learned = np.geomspace(FIRST, last, 20)
    return (
        f"{power_law(learned ** (1 + alpha), finite(learned, rows[0]['tasks'], alpha)).value:.3f}"
    )


def _fit(rows: Sequence[Mapping[str, Any]], y: str = "loss") -> tuple[str, str]:
    """The exponent and its interval, over the runs that have three points."""
    points: dict[Any, set[float]] = {}
    for row in rows:
        points.setdefault(row["seed"], set()).add(row["x"])
    chosen = [row for row in rows if len(points[row["seed"]]) > 2]
    if not chosen:
        return NA, NA
    found = power_law(*([row[name] for row in chosen] for name in ("x", y, "seed")))
    ends = f"{found.low:.3f} to {found.high:.3f}" if np.isfinite(found.low) else NA
    return f"{found.value:.3f}", ends


def _emergence(
    rows: Sequence[Mapping[str, Any]], alpha: float, recorded: Mapping[str, Mapping[float, float]]
) -> list[tuple[str, ...]]:
    """How the steps until a task is learned fall with its frequency: the most frequent quarter."""
    chosen = [
        {**row, "x": row["frequency"]}
        for row in rows
        if row["by"] == "task" and row["alpha"] == alpha and np.isfinite(row["step"])
        and row["x"] < max(row["tasks"] // 4, FIRST)
    ]  # fmt: skip
    past = recorded.get("emergence", {}).get(alpha)
    name, other = f"steps to 0.1 bit by frequency, alpha {alpha}", NA if past is None else str(past)
    return [(name, *_fit(chosen, "step"), NA, NA, NA, "1", other)] if chosen else []
