"""Which component of the student stands for which of the teacher."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

__all__ = ["best", "one_to_one", "shuffled"]


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
      The Hungarian algorithm, `optax.assignment`.
    """
    cost = -jnp.asarray(similarity)
    rows, columns = jax.jit(optax.assignment.hungarian_algorithm)(cost)
    order = np.argsort(np.asarray(rows))
    return np.asarray(rows)[order], np.asarray(columns)[order]


def shuffled(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """A random column for each row: distinct ones as far as there are enough.

    Example:
      >>> sorted(shuffled(3, 3, np.random.default_rng(0)).tolist())
      [0, 1, 2]
    """
    rounds = -(-rows // columns)
    return np.concatenate([rng.permutation(columns) for _ in range(rounds)])[:rows]
