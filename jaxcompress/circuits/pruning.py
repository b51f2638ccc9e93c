"""Circuits by taking away: ACDC over edges, sweeps over nodes, path patching.

All three go through candidates in order and ask of each whether it may go, given what went before.
Runs in a row are made together under the guess that all of them go; where one has to stay, what was
guessed after it is run again. So the result is that of the loop, in fewer and larger steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from jaxcompress import check
from jaxcompress.ablate.forward import validated
from jaxcompress.circuits.circuit import Circuit
from jaxcompress.circuits.forward import Pairs, measure, size
from jaxcompress.circuits.graph import Graph
from jaxcompress.tasks.metrics import Metric, get_metric

__all__ = ["acdc", "path_patching", "prune_nodes"]

_AHEAD = 16  # runs made together


class _Runs:
    """Mean metric of masks, on prompts that were run once."""

    def __init__(self, model, prompts, metric, replacement, memory) -> None:
        self.model, self.metric, self.memory = model, get_metric(metric), memory
        prompts = validated(model.config, prompts)
        room = size(model.config, prompts.tokens.shape[1], memory)
        self.found = Pairs(
            model, prompts, self.metric, replacement=replacement, batch=min(room, len(prompts))
        )
        self.clean = float(self.found.clean.mean())

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        return measure(self.model, self.found, masks, metric=self.metric, memory=self.memory).mean(
            axis=1
        )


def acdc(
    model: Any,
    prompts: Any,
    threshold: float,
    *,
    metric: str | Metric = "kl",
    replacement: Literal["resample", "mean"] = "resample",
    memory: int | None = None,
    progress: bool | None = None,
) -> Circuit:
    """Removes edges one after the other, from the logits to the embedding, while it costs little.

    Receivers are visited from the last to the first, and the senders of each likewise. An edge goes
    for good if the metric gets worse by less than the threshold. Receivers that nobody reads any
    more are skipped: all their edges go.

    Args:
      model: as in `attribute`.
      prompts: clean and corrupted.
      threshold: tau, in the metric's unit (nats for KL).
      metric: KL from the clean run, as in the paper; others are to be high, so a fall counts.
      replacement: what removed edges carry.
      memory: as in `attribute`.
      progress: show a bar; `None`: on a terminal.

    Returns:
      A circuit, without dead ends.

    Raises:
      ValueError: for a threshold that is not above 0, and as `attribute`.

    Reference:
      Conmy et al. 2023 (arXiv 2304.14997), section 3 and algorithm 1.

    Example:
      >>> circuit = acdc(model, prompts, 0.05)  # doctest: +SKIP
      >>> acdc(None, None, 0.0)
      Traceback (most recent call last):
      ...
      ValueError: threshold: expected a number above 0, got 0.0
    """
    if not threshold > 0:
        raise check.fail("threshold", "a number above 0", threshold)
    runs = _Runs(model, prompts, metric, replacement, memory)
    graph = Graph.of(model.config)
    sign = 1.0 if metric == "kl" or getattr(metric, "__name__", "") == "kl" else -1.0
    mask, now = graph.valid.copy(), runs.clean
    bar = tqdm(
        total=int(mask.sum()), desc="acdc", unit="edge", delay=1,
        disable=None if progress is None else not progress,
    )  # fmt: skip
    with bar:
        for row in reversed(range(graph.shape[0])):
            bar.update(int(mask[row].sum()))
            if not _read(graph, mask, row):
                mask[row] = False
                continue
            spots = [(row, column) for column in reversed(np.flatnonzero(mask[row]))]

            def worse(before: float, after: float) -> bool:
                return sign * (after - before) >= threshold

            mask, now = _go_through(runs, mask, now, [[spot] for spot in spots], worse)
    return Circuit(graph, mask).connected()


def _read(graph: Graph, mask: np.ndarray, row: int) -> bool:
    """Whether what this receiver feeds is read by anybody."""
    if row == len(graph.receivers) - 1:
        return True
    nodes = graph.feeds[:, row]
    return bool(mask[:, nodes].any())


def _go_through(
    runs: Callable[[np.ndarray], np.ndarray],
    mask: np.ndarray,
    now: float,
    steps: list[list[Any]],
    stays: Callable[[float, float], bool],
) -> tuple[np.ndarray, float]:
    """Removes each step's places in order unless it has to stay; the mask and its metric."""
    done = 0
    while done < len(steps):
        ahead = steps[done : done + _AHEAD]
        masks = np.repeat(mask[None].astype(np.float32), _AHEAD, axis=0)
        for i, step in enumerate(ahead):
            for place in step:
                masks[i:, place[0], place[1]] = 0
        values = runs(masks)[: len(ahead)]
        for i, value in enumerate(values):
            done += 1
            if stays(now, float(value)):
                break
            mask, now = masks[i] > 0, float(value)
    return mask, now


def prune_nodes(
    model: Any,
    prompts: Any,
    *,
    keep: float = 0.8,
    metric: str | Metric = "logit_difference",
    replacement: Literal["resample", "mean"] = "mean",
    sweeps: int = 10,
    memory: int | None = None,
) -> Circuit:
    """Removes heads and MLPs one after the other while the rest keeps a share of the metric.

    Sweeps go from the last layer to the first (in each the MLP, then its heads) and from the first
    to the last (heads, then MLP) in turn, until a sweep removes nothing.

    Args:
      model: as in `attribute`.
      prompts: clean and corrupted.
      keep: share of the clean metric that must be left; 0.8 is the paper's threshold of 20 %.
      metric: to be high.
      replacement: what removed nodes write: the mean over corrupted prompts, as in the paper.
      sweeps: at most so many.
      memory: as in `attribute`.

    Returns:
      The circuit of all edges between the nodes that stay.

    Raises:
      ValueError: for a share outside (0, 1], and where the clean metric is not above 0, so that a
        share of it means nothing.

    Reference:
      Lan, Torr and Barez 2023 (arXiv 2311.04131), section 3; used by Haskins and Adams 2025.

    Example:
      >>> circuit = prune_nodes(model, prompts)  # doctest: +SKIP
    """
    if not 0 < keep <= 1:
        raise check.fail("keep", "a number in (0, 1]", keep)
    runs = _Runs(model, prompts, metric, replacement, memory)
    if runs.clean <= 1e-6:
        hint = "the model cannot do this task, so a share of its metric means nothing"
        raise check.fail("task", "a clean metric above 0", f"{runs.clean:.3g}", hint)
    graph = Graph.of(model.config)
    mask, now, left = graph.valid.copy(), runs.clean, _orders(graph)
    for sweep in range(sweeps):
        steps = []
        for node in left[sweep % 2]:
            if mask[:, node].any():
                steps.append([(row, node) for row in np.flatnonzero(graph.valid[:, node])])
        before = int(mask.sum())
        mask, now = _go_through(runs, mask, now, steps, lambda _, after: after < keep * runs.clean)
        if int(mask.sum()) == before and sweep:
            break
    used = np.asarray(mask.any(axis=0))
    names = [name for name, on in zip(graph.senders, used, strict=True) if on and name != "embed"]
    return Circuit.of_nodes(graph, names)


def _orders(graph: Graph) -> tuple[list[int], list[int]]:
    """Nodes backward and forward."""
    layers = [range(1 + i * (graph.heads + 1), 1 + (i + 1) * (graph.heads + 1))
              for i in range(graph.layers)]  # fmt: skip
    back = [node for layer in reversed(layers) for node in (layer[-1], *layer[:-1])]
    forward = [node for layer in layers for node in layer]
    there = graph.present_senders
    return [n for n in back if there[n]], [n for n in forward if there[n]]


def path_patching(
    model: Any,
    prompts: Any,
    circuit: Circuit,
    *,
    keep: float = 0.8,
    metric: str | Metric = "logit_difference",
    replacement: Literal["resample", "mean"] = "mean",
    memory: int | None = None,
) -> Circuit:
    """Keeps the edges of a circuit without which a share of its metric is lost.

    Each edge alone is replaced in the circuit; it stays if the metric falls below `keep` of what
    the circuit has. A circuit from `prune_nodes` is the usual start.

    Args:
      model: as in `attribute`.
      prompts: clean and corrupted.
      circuit: its edges are tried.
      keep: edges that leave at least this share of the metric go.
      metric: to be high.
      replacement: what edges carry that are not in the circuit, or tried.
      memory: as in `attribute`.

    Returns:
      A smaller circuit, without dead ends.

    Raises:
      ValueError: for a circuit of a model with other nodes or edges, and one whose metric is not
        above 0.

    Reference:
      Lan, Torr and Barez 2023 (arXiv 2311.04131), section 3; Goldowsky-Dill et al. 2023 (arXiv
      2304.05969) for path patching.

    Example:
      >>> graph = Graph(1, 1, 1, ((1, 1, 8),))
      >>> path_patching(None, None, Circuit.of(graph, []))
      Traceback (most recent call last):
      ...
      ValueError: circuit: expected at least one edge, got none
    """
    places = np.argwhere(circuit.flat)
    if not len(places):
        raise check.fail("circuit", "at least one edge", "none")
    circuit.graph.require(model.config)
    runs = _Runs(model, prompts, metric, replacement, memory)
    masks = np.repeat(circuit.flat[None].astype(np.float32), len(places) + 1, axis=0)
    masks[(np.arange(len(places)), *places.T)] = 0
    values = runs(masks)
    if values[-1] <= 1e-6:
        hint = "the circuit does not do the task, so a share of its metric means nothing"
        raise check.fail("circuit", "a metric above 0", f"{values[-1]:.3g}", hint)
    kept = np.zeros_like(circuit.flat)
    kept[tuple(places[values[:-1] < keep * values[-1]].T)] = True
    return Circuit(circuit.graph, kept, None, circuit.about).connected()
