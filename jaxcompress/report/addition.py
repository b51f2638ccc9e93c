"""Figures of networks that learn modular addition: circuits over time, and their frequencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress.report.drawing import INK, SIZE, canvas, png
from jaxcompress.report.lines import Bars, Line, Panel, lines

__all__ = ["circuits", "right_logits", "spectrum"]

STEP = "step"


def circuits(steps: Any, found: Mapping[str, Any]) -> bytes:
    """The memorising against the generalising circuit over time, in six panels.

    Args:
      steps: (time,) of the snapshots.
      found: what `narrow.grokking.trajectory` returns.

    Returns:
      A PNG.

    Example:
      >>> names = ("train_loss", "test_loss", "restricted_loss", "excluded_loss", "train_accuracy",
      ...          "test_accuracy", "embedding_gini", "neuron_gini", "square_weights")
      >>> found = {name: np.ones(2) for name in names}
      >>> found |= {name: np.ones((2, 2)) for name in ("excluded_each", "coefficients")}
      >>> circuits([1, 2], found | {"keys": np.array([0, 1])})[1:4]
      b'PNG'
    """
    keys = np.flatnonzero(np.asarray(found["keys"]))

    def of(names: Mapping[str, str]) -> list[Line]:
        return [Line(label, steps, found[name]) for label, name in names.items()]

    def each(name: str) -> list[Line]:
        return [Line(f"k = {k + 1}", steps, np.asarray(found[name])[:, k]) for k in keys]

    losses = {
        "train": "train_loss",
        "test": "test_loss",
        "restricted (generalising part)": "restricted_loss",
        "excluded, train (memorising part)": "excluded_loss",
    }
    right = {"train": "train_accuracy", "test": "test_accuracy"}
    ginis = {"embedding W_E": "embedding_gini", "neurons to logits W_L": "neuron_gini"}
    weights = {"": "square_weights"}
    return lines(
        [
            Panel("Losses", STEP, "nats", of(losses), "y"),
            Panel("Accuracy", STEP, "share right", of(right)),
            Panel("Excluded loss of each key frequency", STEP, "nats", each("excluded_each"), "y"),
            Panel("Part of cos(w(x + y - z)) in the logits", STEP, "norm", each("coefficients")),
            Panel("Gini of the Fourier norms", STEP, "Gini coefficient", of(ginis)),
            Panel("Sum of squared weights", STEP, "sum", of(weights)),
        ]
    )


def spectrum(name: str, shares: Any, keys: Any, neurons: Any, norms: Any = None) -> list[Bars]:
    """Panels of `lines.bars`: frequencies of the logits, of the neurons and of the embedding.

    Args:
      name: of the network.
      shares: (frequency,) of the variance of the logits, see `narrow.fourier.sum_shares`.
      keys: (frequency,) 1 for key frequencies.
      neurons: (neuron, frequency) see `narrow.fourier.neuron_shares`.
      norms: (frequency,) of the embedding, or `None` for no such panel.

    Example:
      >>> [panel.title for panel in spectrum("net", np.ones(2), np.ones(2), np.eye(2))]
      ['net: variance of the logits', 'net: neurons by frequency']
    """
    keys = np.asarray(keys) > 0
    x, axis = np.arange(1, len(keys) + 1), "frequency k"
    neurons = np.asarray(neurons)
    counts = np.bincount(neurons.argmax(1)[neurons.max(1) > 0], minlength=len(keys))
    panels = [
        Bars(f"{name}: variance of the logits", axis, "share", x, shares, keys),
        Bars(f"{name}: neurons by frequency", axis, "neurons", x, counts, keys),
    ]
    if norms is not None:
        panels.append(Bars(f"{name}: embedding", axis, "norm", x, norms, keys))
    return panels


def right_logits(networks: Sequence[tuple[str, Any, int]]) -> bytes:
    """The right answer's logit by sum and distance: stripes across distance are the pizza's.

    Args:
      networks: title, (pair, class) logits of all pairs a * p + b, and p.

    Returns:
      A PNG.

    Example:
      >>> right_logits([("net", np.arange(250.0).reshape(25, 10), 5)])[1:4]
      b'PNG'
    """
    columns = 2 if len(networks) == 4 else min(len(networks), 3)
    height = -(-len(networks) // columns)
    figure = canvas(4.6 * columns, 3.6 * height)
    grids = figure.subplots(height, columns, squeeze=False).flat
    for axes, (title, logits, p) in zip(grids, networks, strict=False):
        a, b = np.arange(p * p) // p, np.arange(p * p) % p
        grid = np.zeros((p, p))
        grid[(a - b) % p, (a + b) % p] = np.asarray(logits)[np.arange(p * p), (a + b) % p]
        image = axes.imshow(grid, cmap="viridis", origin="lower", interpolation="none")
        axes.set_title(title, size=SIZE + 1, color=INK, loc="left")
        axes.set_xlabel("sum (a + b) mod p", size=SIZE, color=INK)
        axes.set_ylabel("distance (a - b) mod p", size=SIZE, color=INK)
        axes.tick_params(labelsize=SIZE)
        bar = figure.colorbar(image, ax=axes, fraction=0.046)
        bar.set_label("logit of the right answer", size=SIZE, color=INK)
        bar.ax.tick_params(labelsize=SIZE)
    figure.tight_layout()
    return png(figure)
