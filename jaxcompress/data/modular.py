"""Modular addition: all pairs, their sums, and the part of them that is trained on."""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import numpy as np

from jaxcompress import check

__all__ = ["Table", "order", "split", "table", "triples"]


class Table(NamedTuple):
    """All p * p pairs (a, b), row by row: pair a * p + b.

    Attributes:
      tokens: (pair, position) int32: a, b and, if asked for, the token p that says "equals".
      answers: (pair,) int32: (a + b) mod p, to be predicted at the last position.
    """

    tokens: np.ndarray
    answers: np.ndarray


def table(p: int, *, equals: bool = True) -> Table:
    """The addition table modulo p.

    Args:
      p: the modulus, at least 3.
      equals: whether a third token, p, follows a and b.

    Raises:
      ValueError: for a modulus below 3.

    Example:
      >>> found = table(3)
      >>> found.tokens[5].tolist(), int(found.answers[5])
      ([1, 2, 3], 0)

    Reference: Nanda et al. 2023 (arXiv 2301.05217), section 3.
    """
    check.integer("p", p, 3)
    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
    columns = (a, b, np.full(p * p, p)) if equals else (a, b)
    return Table(np.stack(columns, 1).astype(np.int32), ((a + b) % p).astype(np.int32))


def order(p: int, seed: int) -> np.ndarray:
    """All pairs, shuffled: the first of them are trained on.

    The shuffle is the published one (Python's `random`), so that the first 3830 of seed 0 at
    p = 113 are the paper's training set.

    Args:
      p: the modulus.
      seed: of the shuffle.

    Returns:
      (pair,) int32: numbers of pairs in `table`.

    Example:
      >>> order(3, 0).tolist()
      [7, 5, 1, 3, 4, 2, 0, 8, 6]
    """
    pairs = list(range(check.integer("p", p, 3) ** 2))
    random.Random(seed).shuffle(pairs)
    return np.array(pairs, np.int32)


def split(p: int, fraction: float, seed: int) -> np.ndarray:
    """Which pairs are trained on: the first `int(fraction * p * p)` in `order`.

    Of two fractions with one seed, the smaller set is part of the larger.

    Args:
      p: the modulus.
      fraction: in (0, 1).
      seed: of the shuffle.

    Returns:
      (pair,) bool, in the order of `table`.

    Raises:
      ValueError: if one of the two parts would be empty.

    Example:
      >>> int(split(113, 0.3, 0).sum())
      3830
    """
    check.integer("p", p, 3)
    count = int(fraction * p * p) if 0 < fraction < 1 else 0
    if count < 1:
        raise check.fail("fraction", f"in (0, 1), with at least 1 of {p * p} pairs", fraction)
    chosen = np.zeros(p * p, bool)
    chosen[order(p, seed)[:count]] = True
    return chosen


def triples(p: int, count: int, seed: int) -> np.ndarray:
    """Random different triples (a, b, c) below p; 100 of seed 42 at p = 59 are a published choice.

    Args:
      p: the modulus.
      count: at most p^3.
      seed: of the shuffle of all.

    Returns:
      (count, 3) int32.

    Raises:
      ValueError: if there are not so many.

    Example:
      >>> triples(3, 2, 0).shape
      (2, 3)
    """
    check.integer("count", count, 1, check.integer("p", p, 3) ** 3)
    found = list(itertools.product(range(p), repeat=3))
    random.Random(seed).shuffle(found)
    return np.array(found[:count], np.int32)
