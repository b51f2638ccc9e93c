"""Clusters of directions, and how they agree with a known truth."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from jaxcompress import check

__all__ = ["Agreement", "agreement", "angular", "clusters"]


def angular(cosine: Any) -> np.ndarray:
    """Angular similarity 1 - arccos(c) / pi: 1 for one direction, 0.5 for right angles, 0 opposite.

    Example:
      >>> angular([1.0, 0.0, -1.0]).tolist()
      [1.0, 0.5, 0.0]
    """
    return 1.0 - np.arccos(np.clip(cosine, -1.0, 1.0)) / np.pi


def clusters(similarity: Any, count: int, *, seed: int = 0, starts: int = 30) -> np.ndarray:
    """Spectral clustering of a similarity matrix; clusters are numbered from the largest.

    Args:
      similarity: (token, token) at least 0, symmetric, such as `angular` gives.
      count: clusters.
      seed: of the k-means at its end.
      starts: of that k-means, of which the best counts.

    Returns:
      (token,) cluster of each.

    Raises:
      ValueError: for more clusters than tokens and for similarities below 0.

    Example:
      >>> clusters(np.kron(np.eye(2), np.ones((3, 3))) + 0.01, 2).tolist()
      [0, 0, 0, 1, 1, 1]
    """
    similarity = np.asarray(similarity, np.float64)
    check.shape("similarity", similarity, [(len(similarity),) * 2], "(token, token)")
    check.integer("count", count, 1, len(similarity))
    if not similarity.min() >= 0:
        raise check.fail("similarity", "numbers at least 0", similarity.min())
    spectral = SpectralClustering(
        count, affinity="precomputed", n_init=starts, random_state=seed, assign_labels="kmeans"
    )
    labels = spectral.fit_predict(similarity)
    sizes = np.bincount(labels, minlength=count)
    first = np.array([np.argmax(labels == i) if sizes[i] else len(labels) for i in range(count)])
    rank = np.empty(count, int)
    rank[np.lexsort((first, -sizes))] = np.arange(count)
    return rank[labels]


class Agreement(NamedTuple):
    """How clusters agree with a known truth.

    Attributes:
      purity: share of the tokens that belong to the most frequent class of their cluster.
      adjusted_rand: adjusted Rand index: 1 for the same partition, 0 for chance.
    """

    purity: float
    adjusted_rand: float


def agreement(labels: Any, truth: Any) -> Agreement:
    """Purity and adjusted Rand index of clusters against classes.

    Args:
      labels: (token,) clusters.
      truth: (token,) classes, numbers or names.

    Example:
      >>> agreement([0, 0, 1, 1], ["a", "a", "b", "b"])
      Agreement(purity=1.0, adjusted_rand=1.0)
    """
    labels, truth = np.asarray(labels), np.asarray(truth)
    check.shape("truth", truth, [labels.shape], "(token,)")
    most = [np.unique(truth[labels == i], return_counts=True)[1].max() for i in np.unique(labels)]
    return Agreement(float(sum(most) / len(labels)), float(adjusted_rand_score(truth, labels)))
