"""From scores to circuits: the best edges, those above a threshold, or grown from the logits."""

from __future__ import annotations

from typing import Literal

import numpy as np

from jaxcompress import check
from jaxcompress.circuits.circuit import Circuit
from jaxcompress.circuits.scores import Scores

__all__ = ["find", "ranked"]


def find(
    scores: Scores,
    *,
    edges: int | None = None,
    share: float | None = None,
    threshold: float | None = None,
    how: Literal["top", "greedy"] = "top",
    signed: bool = True,
    connected: bool = True,
) -> Circuit:
    """A circuit from the scores of its edges; exactly one of the three sizes is given.

    Args:
      scores: of edges; of nodes (one value each), `edges` and `share` count nodes, and all edges
        between the chosen nodes are taken.
      edges: how many; of several equal scores, the first.
      share: of all edges that there can be, in (0, 1].
      threshold: edges of at least this importance, in the metric's unit.
      how: `top`, the highest everywhere, or `greedy`: from the logits backwards, always the highest
        among the edges into what is already in the circuit (EAP-IG's search).
      signed: rank by help, so that edges that hurt come last (smaller circuits that do the task);
        otherwise by size (circuits that do what the model does, its faults too).
      connected: drop dead ends.

    Returns:
      A circuit with the scores of its edges; it may be empty.

    Raises:
      ValueError: unless exactly one size is given, within bounds, and scores are of edges, or of
        nodes at all positions together.

    Reference:
      Hanna et al. 2024 (arXiv 2403.17806, section 3: greedy); Conmy et al. 2023 for the threshold.

    Example:
      >>> from jaxcompress.circuits.graph import Graph
      >>> graph = Graph(1, 1, 1, ((1, 1, 8),))
      >>> values = np.zeros(graph.shape)
      >>> values[graph.edge("embed->m0")], values[graph.edge("m0->logits")] = -2.0, 1.0
      >>> scores = Scores(graph, "edge", values, np.ones(1), np.zeros(1))
      >>> find(scores, edges=1).edges  # one edge alone is a dead end
      ()
      >>> found = find(scores, edges=2, signed=False)
      >>> found.edges
      ('embed->m0', 'm0->logits')
    """
    sizes = {"edges": edges, "share": share, "threshold": threshold}
    given = [name for name, value in sizes.items() if value is not None]
    if len(given) != 1:
        raise check.fail("find", "one of edges, share, threshold", given or "none")
    check.known("how", how, ("top", "greedy"))
    check.known("scores.level", scores.level, ("edge", "node"))
    if scores.level == "node" and scores.values.ndim > 1:
        hint = "sum them over positions"
        raise check.fail("scores", "one value per node", f"shape {scores.values.shape}", hint)
    if share is not None and not 0 < share <= 1:
        raise check.fail("share", "a number in (0, 1]", share)
    graph, values = scores.graph, scores.importance
    order = ranked(scores, signed=signed)
    possible = len(order)
    count = possible
    if edges is not None:
        count = check.integer("edges", edges, 0, possible)
    if share is not None:
        count = max(1, round(share * possible))
    if threshold is not None:
        rank = values if signed else np.abs(values)
        count = int((rank.reshape(-1)[order] >= threshold).sum())
    if scores.level == "node":
        names = [graph.senders[i] for i in order[:count]]
        circuit = Circuit.of_nodes(graph, names)
        return circuit.connected() if connected else circuit
    if how == "greedy":
        mask = _greedy(scores, order, count, threshold)
    else:
        mask = np.zeros(values.shape, bool)
        mask.reshape(-1)[order[:count]] = True
    about = {"method": scores.method, "metric": scores.metric}
    circuit = Circuit(graph, mask, scores.values, about)
    return circuit.connected() if connected else circuit


def ranked(scores: Scores, *, signed: bool = False) -> np.ndarray:
    """Flat places of all edges (or nodes) that there can be, the most important first.

    Example:
      >>> from jaxcompress.circuits.graph import Graph
      >>> graph = Graph(1, 1, 1, ((1, 1, 8),))
      >>> values = np.array([0.0, -2.0, 3.0])
      >>> ranked(Scores(graph, "node", values, np.ones(1), np.zeros(1)), signed=True).tolist()
      [1, 0, 2]
    """
    there = scores.graph.present_senders if scores.level == "node" else scores.graph.valid
    valid = np.broadcast_to(there, scores.values.shape)
    places = np.flatnonzero(valid)
    values = scores.importance.reshape(-1)[places]
    return places[np.argsort(-(values if signed else np.abs(values)), kind="stable")]


def _greedy(scores: Scores, order: np.ndarray, count: int, threshold: float | None) -> np.ndarray:
    """Grows from the logits: the best edge into the circuit, then what its sender reads."""
    graph = scores.graph
    if scores.values.ndim != 2:
        raise check.fail("how", "top for scores per position", "greedy")
    rank = np.full(graph.shape, np.inf)
    rank.reshape(-1)[order] = np.arange(len(order))
    limit = len(order) if threshold is None else count
    mask = np.zeros(graph.shape, bool)
    open_rows = np.zeros(len(graph.receivers), bool)
    open_rows[-1] = True
    for _ in range(count):
        left = np.where(open_rows[:, None] & ~mask, rank, np.inf)
        place = np.unravel_index(left.argmin(), left.shape)
        if left[place] >= limit:
            break
        mask[place] = True
        open_rows |= graph.feeds[place[1]]
    return mask
