"""Similarity matrices with their rows put together by group, and what clusters know of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress import check
from jaxcompress.report.drawing import INK, SIZE, canvas, png
from jaxcompress.report.numbers import spread
from jaxcompress.report.sections import Section

__all__ = ["agreement", "blocks"]

Matrices = Sequence[tuple[str, Any]]


def blocks(matrices: Matrices, groups: Sequence[str], *, unit: str = "") -> bytes:
    """Square matrices side by side, rows and columns ordered by group, with the groups named.

    The diagonal, where a row meets itself, is left white.

    Args:
      matrices: titles and (row, row) numbers, on one scale.
      groups: the group of each row.
      unit: what the colours mean.

    Returns:
      A PNG.

    Raises:
      ValueError: for a matrix that has not one row for each group's name.

    Example:
      >>> blocks([("cosines", np.eye(4))], ["a", "b", "a", "b"])[1:4]
      b'PNG'
    """
    names = sorted(set(groups))
    ranks = np.array([names.index(group) for group in groups])
    order = np.argsort(ranks, kind="stable")
    ends = np.cumsum(np.bincount(ranks))
    starts = np.concatenate([[0], ends[:-1]])
    figure = canvas(4.3 * len(matrices) + 1.2, 4.4)
    grid = figure.subplots(1, len(matrices), squeeze=False)[0]
    apart = ~np.eye(len(groups), dtype=bool)
    values = [np.asarray(matrix, float) for _, matrix in matrices]
    for value in values:
        check.shape("matrices", value, [(len(groups),) * 2], "(row, row)")
    seen = [value[apart] for value in values]
    high = max(float(np.quantile(value, 0.995)) for value in seen)
    low = min(float(np.quantile(value, 0.005)) for value in seen)
    beyond = (min(map(np.min, seen)) < low, max(map(np.max, seen)) > high)
    image: Any = None
    for i, (axes, (title, _), value) in enumerate(zip(grid, matrices, values, strict=True)):
        shown = np.where(apart, value[np.ix_(order, order)], np.nan)
        image = axes.imshow(shown, vmin=low, vmax=high, cmap="viridis", interpolation="none")
        for end in ends[:-1]:
            axes.axhline(end - 0.5, color="white", linewidth=0.5)
            axes.axvline(end - 0.5, color="white", linewidth=0.5)
        axes.set_title(title, size=SIZE + 1, color=INK, loc="left")
        axes.set_xticks([])
        axes.set_yticks((starts + ends - 1) / 2, names if i == 0 else [""] * len(names))
        axes.tick_params(labelsize=SIZE, length=0, labelcolor=INK)
    figure.tight_layout()
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    bar = figure.colorbar(
        image, ax=list(grid), fraction=0.03, pad=0.02, extend=extend.get(beyond, "neither")
    )
    bar.set_label(unit, size=SIZE, color=INK)
    bar.ax.tick_params(labelsize=SIZE)
    return png(figure)


def agreement(rows: Sequence[Mapping[str, Any]]) -> Section:
    """How well clusters know task families: mean and range over seeds.

    Args:
      rows: `weights`, `clusters`, `purity` and `adjusted_rand`, one for each seed.

    Example:
      >>> row = {"weights": "trained", "clusters": 6, "purity": 0.5, "adjusted_rand": 0.25}
      >>> agreement([row]).rows
      (('trained', '6', '0.500', '0.250'),)
    """
    cells = []
    for weights, count in dict.fromkeys((row["weights"], row["clusters"]) for row in rows):
        mine = [row for row in rows if (row["weights"], row["clusters"]) == (weights, count)]
        told = (spread([row[name] for row in mine]) for name in ("purity", "adjusted_rand"))
        cells.append((weights, str(count), *told))
    columns = ("weights", "clusters", "purity", "adjusted Rand index")
    note = "Of clusters against task families, mean [range] over seeds; 0 is chance for the index."
    return Section(columns, tuple(cells), note)
