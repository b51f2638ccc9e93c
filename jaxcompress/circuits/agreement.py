"""How well scores by gradients agree with patching."""

from __future__ import annotations

import numpy as np
from scipy import stats

from jaxcompress import check
from jaxcompress.circuits.scores import Scores

__all__ = ["rank_correlation"]


def rank_correlation(scores: Scores, exact: Scores, *, least: float = 0.01) -> tuple[float, float]:
    """Spearman's correlation over all edges or nodes that there can be, and over those that matter.

    Args:
      scores: of edges or nodes, one value each.
      exact: of the same.
      least: what matters has at least this share of the largest exact effect.

    Returns:
      Over all, and over those that matter; ties share a rank.

    Raises:
      ValueError: for scores per position, of neurons, or of another level or graph.

    Example:
      >>> from jaxcompress.circuits.graph import Graph
      >>> graph = Graph(1, 1, 1, ((1, 1, 8),))
      >>> one, other = (Scores(graph, "node", np.array(values), np.ones(1), np.zeros(1))
      ...               for values in ([0.0, 1.0, 2.0], [0.001, 0.0, 2.0]))
      >>> [round(value, 3) for value in rank_correlation(one, other, least=0.0001)]
      [0.5, 1.0]
    """
    there = exact.graph.present_senders if exact.level == "node" else exact.graph.valid
    for one in (scores, exact):
        if one.values.shape != there.shape:
            got = f"shape {one.values.shape}"
            raise check.fail("scores", f"one value per {exact.level}", got)
    x, y = scores.values[there], exact.values[there]
    big = np.abs(y) >= least * np.abs(y).max()
    return _spearman(x, y), _spearman(x[big], y[big])


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    ranks = stats.rankdata(x), stats.rankdata(y)
    return float(np.corrcoef(*ranks)[0, 1])
