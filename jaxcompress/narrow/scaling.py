"""Shares and exponents with their intervals: what is said of many runs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from jaxcompress import check

__all__ = [
    "Exponent",
    "endless",
    "finite",
    "power_law",
    "reached",
    "theory",
    "wilson",
    "window",
]


class Exponent(NamedTuple):
    """Of y ~ x^-value.

    Attributes:
      value: the exponent, positive where y falls; the mean over runs.
      low: lower end of its 95 % interval, by Student's t over the runs; NaN of a single run.
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


def power_law(x: Any, y: Any, run: Any = None) -> Exponent:
    """Exponent of y ~ x^-a: least squares of the logarithms in each run, then the mean over runs.

    Points of one run follow each other and say little more than one point does, so that only whole
    runs count as independent.

    Args:
      x: (point,) positive.
      y: (point,) positive.
      run: (point,) which run a point is of; by default all are of one.

    Raises:
      ValueError: for numbers that are not positive, or a run of fewer than three different x.

    Example:
      >>> x, y = [1, 2, 4, 1, 2, 4], [16, 8, 4, 4, 2, 1]
      >>> round(power_law(x, y, [0, 0, 0, 1, 1, 1]).value, 6)
      1.0
    """
    x, y = np.asarray(x, float).reshape(-1), np.asarray(y, float).reshape(-1)
    run = np.zeros(x.shape, int) if run is None else np.asarray(run)
    for name, values in (("y", y), ("run", run)):
        check.shape(name, values, [x.shape], "(point,)")
    for name, values in (("x", x), ("y", y)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise check.fail(name, "positive numbers", values.tolist())
    found = []
    for one in np.unique(run):
        a, b = np.log(x[run == one]), np.log(y[run == one])
        if len(np.unique(a)) < 3:
            got = np.unique(x[run == one]).tolist()
            raise check.fail("x", "at least three different points of a run", got)
        found.append(-np.polyfit(a, b, 1)[0])
    value, count = float(np.mean(found)), len(found)
    if count < 2:
        return Exponent(value, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(found, ddof=1) / math.sqrt(count))
    return Exponent(value, value - half, value + half)


def window(steps: Any, learned: Any, low: int, high: int, *, points: int = 20) -> np.ndarray:
    """Which points of a curve count for a fit: evenly on a logarithmic axis, inside a window.

    The window is one of content, so that curves of any speed are fitted over the same tasks.

    Args:
      steps: (time,) rising.
      learned: (time,) tasks that are learned by then.
      low: the first point has at least so many.
      high: the last point is before more than so many.
      points: at most.

    Returns:
      Numbers of the points, rising; none if the window is empty.

    Example:
      >>> window([10, 20, 30, 40, 50, 60], [0, 1, 2, 2, 3, 4], 1, 3).tolist()
      [1, 2, 3, 4]
    """
    steps, learned = np.asarray(steps, float), np.asarray(learned)
    check.shape("learned", learned, [steps.shape], "(time,)")
    past = np.flatnonzero(learned > high)
    inside = np.arange(len(steps))[: past[0] if len(past) else None]
    enough = np.flatnonzero(learned >= low)
    inside = inside[enough[0] :] if len(enough) else inside[:0]
    if len(inside) <= points:
        return inside
    wanted = np.geomspace(steps[inside[0]], steps[inside[-1]], points)
    return np.unique(inside[np.abs(steps[inside, None] - wanted).argmin(axis=0)])


def endless(loss: Any, tasks: int, alpha: float) -> np.ndarray:
    """The mean loss if there were no last task: those that are absent cost one bit each.

    With K tasks the loss falls as n^-alpha - K^-alpha, steeper than n^-alpha from the first tasks
    on; this puts K^-alpha back.

    Args:
      loss: (...) mean over `tasks` tasks by their frequencies, in bits.
      tasks: how many there are.
      alpha: their Zipf exponent, less 1.

    Example:
      >>> loss = finite([4.0, 8.0, 16.0], tasks=20, alpha=0.4)
      >>> [round(float(x), 3) for x in endless(loss, 20, 0.4) / endless(loss, 20, 0.4)[0]]
      [1.0, 0.776, 0.595]
    """
    absent = special.zeta(1 + alpha, tasks + 1)
    whole = special.zeta(1 + alpha)
    return np.asarray((np.asarray(loss, float) * (whole - absent) + absent) / whole)


def finite(learned: Any, tasks: int, alpha: float) -> np.ndarray:
    """The mean loss in bits that theory expects with so many of the tasks learned, none in part.

    Args:
      learned: (...) the most frequent so many; may be fractions.
      tasks: how many there are.
      alpha: their Zipf exponent, less 1.

    Example:
      >>> finite([0, 1, 2], tasks=2, alpha=0.0 + 1).round(2).tolist()  # weights 1 and 1/4
      [1.0, 0.2, 0.0]
    """
    left = special.zeta(1 + alpha, np.asarray(learned, float) + 1)
    absent = special.zeta(1 + alpha, tasks + 1)
    return np.asarray((left - absent) / (special.zeta(1 + alpha) - absent))


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
