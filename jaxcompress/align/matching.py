"""Which component of the student stands for which of the teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse

from jaxcompress import check

__all__ = ["best", "one_to_one", "shuffled", "transport"]


def best(similarity: Any) -> np.ndarray:
    """For each row the column it is most like; several rows may share one. Ties: the first.

    Example:
      >>> best(np.array([[0.1, 0.9], [0.2, 0.8]])).tolist()
      [1, 1]
    """
    return np.asarray(similarity).argmax(axis=1)


def one_to_one(similarity: Any) -> tuple[np.ndarray, np.ndarray]:
    """The pairing of rows and columns, each used at most once, with the largest sum.

    Args:
      similarity: (student, teacher).

    Returns:
      Row indices and column indices of the min(rows, columns) pairs, in row order.

    Example:
      >>> [index.tolist() for index in one_to_one(np.array([[0.1, 0.9], [0.2, 0.8]]))]
      [[0, 1], [1, 0]]

    Reference:
      The Hungarian algorithm, `scipy.optimize.linear_sum_assignment`.
    """
    # SciPy orders the pairs by row.
    return scipy.optimize.linear_sum_assignment(-np.asarray(similarity, np.float64))


def shuffled(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """A random column for each row: distinct ones as far as there are enough.

    Example:
      >>> sorted(shuffled(3, 3, np.random.default_rng(0)).tolist())
      [0, 1, 2]
    """
    rounds = -(-rows // columns)
    return np.concatenate([rng.permutation(columns) for _ in range(rounds)])[:rows]


def transport(similarity: Any, rows: Any, columns: Any) -> np.ndarray:
    """Moves mass between rows and columns so that mass times similarity is largest.

    The exact linear program of optimal transport with unmatched mass: a row sends at most its mass,
    a column takes at most its own, and what would only find a similarity of 0 or less stays. A
    column may be served by several rows (a merge) and the other way round.

    Args:
      similarity: (row, column).
      rows: (row,) mass, at least 0.
      columns: (column,) mass, at least 0.

    Returns:
      (row, column) mass that is moved.

    Raises:
      ValueError: for masses that do not fit the similarity.

    Example:
      >>> transport(np.array([[1.0, 0.9], [0.8, -1.0]]), [0.5, 0.5], [0.6, 0.4]).tolist()
      [[0.1, 0.4], [0.5, 0.0]]

    Reference:
      Partial optimal transport: Figalli 2010, section 1; solved by HiGHS.
    """
    similarity = np.asarray(similarity, np.float64)
    rows, columns = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    check.shape("similarity", similarity, [(len(rows), len(columns))])
    n, m = similarity.shape
    useful = np.flatnonzero(similarity > 0)
    if not useful.size:
        return np.zeros((n, m))
    ones = np.ones(useful.size)
    places = np.concatenate([useful // m, n + useful % m])
    each = np.tile(np.arange(useful.size), 2)
    sums = scipy.sparse.csr_matrix((np.tile(ones, 2), (places, each)), (n + m, useful.size))
    found = scipy.optimize.linprog(
        -similarity.ravel()[useful],
        A_ub=sums,
        b_ub=np.concatenate([rows, columns]),
        method="highs",
    )
    plan = np.zeros(n * m)
    plan[useful] = np.round(np.maximum(found.x, 0.0), 12)
    return plan.reshape(n, m)
