"""A small network as a drawing: its weights from layer to layer, blue and red by sign."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from jaxcompress import check
from jaxcompress.report.drawing import GREY, INK, SIZE, canvas, png

__all__ = ["Drawn", "networks"]

POSITIVE, NEGATIVE = "#1f5a94", "#b3261e"
# Okabe and Ito's colours without the two that the weights have.
_GROUPS = ("#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#7a5195", "#8c564b", "#f0e442", "#999999")


class Drawn(NamedTuple):
    """A network to be drawn.

    Attributes:
      kernels: weights (in, out) of one layer after the other.
      gates: (layer, neuron) of the hidden layers, 0 where a neuron was removed; `None`: all stay.
    """

    kernels: Sequence[Any]
    gates: Any = None


def networks(
    panels: Mapping[str, Drawn],
    *,
    groups: Mapping[str, Sequence[int]],
    outputs: Sequence[str] = (),
    faint: float = 0.1,
) -> bytes:
    """Networks side by side, inputs to the left, with one scale of weights for all.

    Hidden neurons stand near the inputs that they read; removed ones are not drawn, and their
    number is written below the layer. Lines are as strong as the weight is large; weights of less
    than `faint` of the largest one in any panel between the same layers are left out.

    Args:
      panels: by title.
      groups: by name the inputs that belong together and share a colour; others are grey.
      outputs: names of the outputs.
      faint: share of the largest weight below which nothing is drawn.

    Returns:
      A PNG.

    Raises:
      ValueError: if there are no panels, or kernels do not follow one another.

    Example:
      >>> ones = [np.ones((3, 4)), np.ones((4, 2))]
      >>> networks({"before": Drawn(ones)}, groups={"bits": [0, 1, 2]})[1:4]
      b'PNG'
    """
    if not panels:
        raise check.fail("panels", "at least one network", "none")
    scales = _scales(panels)
    figure = canvas(4.2 * len(panels) + 0.3, 4.6)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, drawn) in zip(row, panels.items(), strict=True):
        _panel(axes, drawn, groups, outputs, scales, faint)
        axes.set_title(title, size=SIZE + 1, color=INK, loc="left")
    colours = dict(zip(groups, _cycle(len(groups)), strict=True))
    for name, colour in colours.items():
        row[0].plot([], [], "o", color=colour, markersize=5, label=name)
    row[0].plot([], [], color=POSITIVE, label="positive weight")
    row[0].plot([], [], color=NEGATIVE, label="negative weight")
    figure.legend(
        loc="lower center", ncols=min(6, len(groups) + 2), fontsize=SIZE, frameon=False,
        bbox_to_anchor=(0.5, 1.0), labelcolor=INK,
    )  # fmt: skip
    figure.tight_layout()
    return png(figure)


def _panel(
    axes: Any,
    drawn: Drawn,
    groups: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    scales: list[float],
    faint: float,
) -> None:
    kernels, kept = _kept(drawn)
    heights = [_spread(len(kernels[0]))]
    for kernel in kernels[:-1]:
        heights.append(_sorted(kernel, heights[-1]))
    heights.append(_spread(kernels[-1].shape[1], 0.3))
    for i, kernel in enumerate(kernels):
        axes.add_collection(_lines(kernel, i, heights, scales[i], faint))
    colours = np.full(len(heights[0]), GREY, object)
    for members, colour in zip(groups.values(), _cycle(len(groups)), strict=True):
        colours[list(members)] = colour
    for i, height in enumerate(heights):
        colour = colours.tolist() if i == 0 else INK
        size = 260 / max(20, len(height))
        axes.scatter(np.full(len(height), i), height, s=size, c=colour, zorder=3, linewidths=0)
    for name, height in zip(outputs, heights[-1], strict=False):
        axes.text(len(kernels) + 0.08, height, name, size=SIZE, color=INK, va="center")
    words = [
        "inputs",
        *(f"{len(h)} of {n} neurons" for h, n in zip(heights[1:], kept, strict=False)),
    ]
    for i, word in enumerate([*words, "outputs"]):
        axes.text(i, -0.06, word, size=SIZE, color=INK, ha="center", va="top")
    axes.set_xlim(-0.25, len(kernels) + 0.45)
    axes.set_ylim(-0.12, 1.03)
    axes.axis("off")


def _kept(drawn: Drawn) -> tuple[list[np.ndarray], list[int]]:
    """Kernels without the removed neurons, and how many neurons there were."""
    kernels = [np.asarray(kernel, float) for kernel in drawn.kernels]
    for i, (a, b) in enumerate(itertools.pairwise(kernels)):
        if a.shape[1] != b.shape[0]:
            raise check.fail(f"kernels[{i + 1}]", f"{a.shape[1]} inputs", b.shape[0])
    sizes = [kernel.shape[1] for kernel in kernels[:-1]]
    if drawn.gates is not None:
        gates = np.asarray(drawn.gates)
        check.shape("gates", gates, [(len(sizes), sizes[0])], "(layer, neuron)")
        for i, stays in enumerate(gates != 0):
            kernels[i], kernels[i + 1] = kernels[i][:, stays], kernels[i + 1][stays]
    return kernels, sizes


def _scales(panels: Mapping[str, Drawn]) -> list[float]:
    """The largest weight between each two layers, over all panels."""
    found = [[np.abs(k).max(initial=0.0) for k in _kept(one)[0]] for one in panels.values()]
    if len({len(one) for one in found}) > 1:
        raise check.fail("panels", "networks of one depth", [len(one) for one in found])
    return [max(column) or 1.0 for column in zip(*found, strict=True)]


def _spread(count: int, margin: float = 0.0) -> np.ndarray:
    """Heights from top to bottom."""
    if count == 1:
        return np.array([0.5])
    return np.linspace(1 - margin, margin, count)


def _sorted(kernel: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Heights of neurons in the order of where their weights come from."""
    weight = np.square(kernel)
    centre = before @ weight / np.maximum(weight.sum(axis=0), 1e-30)
    height = np.empty(len(centre))
    height[np.argsort(-centre, kind="stable")] = _spread(len(centre))
    return height


def _lines(
    kernel: np.ndarray, i: int, heights: list[np.ndarray], scale: float, faint: float
) -> LineCollection:
    strength = np.abs(kernel) / scale
    a, b = np.nonzero(strength > faint)
    order = np.argsort(strength[a, b])  # the strongest on top
    a, b = a[order], b[order]
    strong = strength[a, b]
    colours = np.array(
        [to_rgba(POSITIVE if kernel[x] > 0 else NEGATIVE) for x in zip(a, b, strict=True)]
    )
    colours = colours.reshape(-1, 4)
    colours[:, 3] = 0.15 + 0.75 * strong
    ends = np.stack([np.full(len(a), i), heights[i][a], np.full(len(a), i + 1), heights[i + 1][b]])
    return LineCollection(ends.T.reshape(-1, 2, 2).tolist(), colors=colours, linewidths=2 * strong)


def _cycle(count: int) -> list[str]:
    return [_GROUPS[i % len(_GROUPS)] for i in range(count)]
