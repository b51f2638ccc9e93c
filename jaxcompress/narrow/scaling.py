"""Shares and exponents with their intervals: what is said of many runs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jaxcompress import check

__all__ = ["Exponent", "power_law", "reached", "theory", "wilson"]


class Exponent(NamedTuple):
    """Of y ~ x^-value.

    Attributes:
      value: the exponent, positive where y falls.
      low: lower end of the 95 % bootstrap interval.
      high: upper end.
    """

    value: float
    low: float
    high: float


def wilson(successes: int, count: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a share; 95 % by default.

    Args:
      successes: how many of `count`.
      count: trials.
      z: quantile of the normal distribution.

    Returns:
      Lower and upper end, in [0, 1].

    Raises:
      ValueError: if there are no trials, or more successes than trials.

    Example:
      >>> [round(end, 3) for end in wilson(27, 40)]
      [0.52, 0.799]

    Reference: Wilson 1927 (J. Am. Stat. Assoc. 22).
    """
    check.integer("count", count, 1)
    check.integer("successes", successes, 0, count)
    share, spread = successes / count, z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def power_law(x: Any, y: Any, *, samples: int = 2000, seed: int = 0) -> Exponent:
    """Exponent of y ~ x^-a: least squares of the logarithms, with a bootstrap over the points.

    Args:
      x: (point,) positive.
      y: (point,) positive.
      samples: of the bootstrap; points are drawn with replacement.
      seed: of the bootstrap.

    Raises:
      ValueError: for numbers that are not positive, or fewer than three different x.

    Example:
      >>> x = np.array([1.0, 2.0, 4.0, 8.0])
      >>> round(power_law(x, 3 * x**-0.5).value, 6)
      0.5
    """
    x, y = np.asarray(x, float).reshape(-1), np.asarray(y, float).reshape(-1)
    check.shape("y", y, [x.shape], "(point,)")
    for name, values in (("x", x), ("y", y)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise check.fail(name, "positive numbers", values.tolist())
    if len(np.unique(x)) < 3:
        raise check.fail("x", "at least three different points", np.unique(x).tolist())
    a, b = np.log(x), np.log(y)
    rows = np.random.default_rng(seed).integers(0, len(x), (samples, len(x)))
    # A draw of one x only has no slope.
    rows = rows[a[rows].std(axis=1) > 0]
    low, high = np.quantile(_slopes(a[rows], b[rows]), [0.025, 0.975])
    value = _slopes(a[None], b[None])[0]
    return Exponent(-float(value), -float(high), -float(low))


def reached(steps: Any, values: Any, threshold: float) -> np.ndarray:
    """The first step at which each curve is below a threshold; NaN if it never is.

    Args:
      steps: (time,).
      values: (time, ...) curves.
      threshold: to fall below.

    Returns:
      (...) steps.

    Example:
      >>> reached([10, 20, 30], np.array([[1.0, 1.0], [0.2, 1.0], [0.1, 1.0]]), 0.5).tolist()
      [20.0, nan]
    """
    below = np.asarray(values) < threshold
    first = np.asarray(steps, float)[below.argmax(axis=0)]
    return np.where(below.any(axis=0), first, np.nan)


def theory(alpha: float) -> dict[str, float]:
    """Exponents that the quantization model predicts of a Zipf exponent 1 + alpha.

    Returns:
      Of the loss in `parameters`, in examples of a finite data set (`data`), and in `steps`.

    Example:
      >>> {name: round(value, 3) for name, value in theory(0.4).items()}
      {'parameters': 0.4, 'data': 0.286, 'steps': 0.286}

    Reference: Michaud et al. 2023 (arXiv 2303.13506), section 2.
    """
    return {"parameters": alpha, "data": alpha / (1 + alpha), "steps": alpha / (1 + alpha)}


def _slopes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Slopes of rows of points."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return (a * b).sum(axis=1) / (a * a).sum(axis=1)
