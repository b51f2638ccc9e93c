"""What attribution finds: a number for every edge, node or neuron of a graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxcompress.circuits.graph import Graph

__all__ = ["Scores", "helpful"]


def helpful(values: Any, metric: str) -> Any:
    """Changes of a metric with the sign of help: positive is what the task needs.

    Metrics such as the logit difference are to be high, a divergence is to be low.

    Example:
      >>> helpful(-2.0, "logit_difference"), helpful(-2.0, "kl")
      (2.0, -2.0)
    """
    return values if metric == "kl" else -values


@dataclasses.dataclass(frozen=True)
class Scores:
    """What corrupting one edge or node would do to a metric.

    Attributes:
      graph: of the model.
      level: `edge`, `node` or `neuron`.
      values: (receiver, sender) or (position, receiver, sender) of edges, (sender,) or (position,
        sender) of nodes, (layer, neuron) of neurons: the change of the metric, mean over prompts,
        in its unit. Negative: the metric falls without it.
      clean: (batch,) metric of the clean run.
      corrupted: (batch,) metric of the corrupted run.
      method: one of `METHODS`.
      metric: its name.
    """

    graph: Graph
    level: str
    values: np.ndarray
    clean: np.ndarray
    corrupted: np.ndarray
    method: str = "exact"
    metric: str = "logit_difference"

    @property
    def importance(self) -> np.ndarray:
        """The values with the sign of help, see `helpful`."""
        return helpful(self.values, self.metric)

    def top(self, count: int = 10) -> list[tuple[str, float]]:
        """The `count` edges or nodes of largest absolute value, by name.

        Example:
          >>> graph = Graph(1, 1, 1, ((1, 1, 8),))
          >>> Scores(graph, "node", np.array([0.0, -2.0, 1.0]), np.ones(1), np.zeros(1)).top(1)
          [('a0.h0', -2.0)]
        """
        names = _names(self)
        order = np.argsort(-np.abs(self.values), axis=None, kind="stable")[:count]
        places = np.stack(np.unravel_index(order, self.values.shape), axis=-1)
        return [(names(place), float(self.values[tuple(place)])) for place in places]


def _names(scores: Scores) -> Any:
    graph = scores.graph
    if scores.level == "node" and scores.values.ndim == 2:
        return lambda place: f"{graph.senders[place[-1]]}@{place[0]}"
    if scores.level == "node":
        return lambda place: graph.senders[place[-1]]
    if scores.level == "neuron":
        return lambda place: f"m{place[0]}.n{place[1]}"
    if scores.values.ndim == 3:
        return lambda place: f"{graph.name(place[1], place[2])}@{place[0]}"
    return lambda place: graph.name(*place)
