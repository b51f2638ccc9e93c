"""What is read off a curve: the least share that is enough, the share at which it falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["falls", "least"]

Rows = Sequence[Mapping[str, Any]]


def least(rows: Rows, *, share: str, value: str, enough: float) -> float | None:
    """The least share from which on the mean over repeats is at least `enough`; `None` if never.

    Args:
      rows: one for each share and repeat.
      share: key of the share.
      value: key of the measure.
      enough: what it must reach, and keep at all greater shares.

    Example:
      >>> rows = [{"share": s, "carried": c} for s, c in ((0.1, 0.2), (0.2, 0.9), (1.0, 1.0))]
      >>> least(rows, share="share", value="carried", enough=0.9)
      0.2
    """
    shares, means = _means(rows, share, value)
    kept = [place for i, place in enumerate(shares) if min(means[i:]) >= enough]
    return min(kept, default=None)


def falls(rows: Rows, *, share: str, value: str, below: float) -> float | None:
    """The first share at which the mean over repeats is below a bound, between measured ones.

    Args:
      rows: as in `least`.
      share: key of the share.
      value: key of the measure.
      below: the bound. The curve is a line between shares.

    Returns:
      The share, or `None` if it never falls so far.

    Example:
      >>> rows = [{"share": s, "right": r} for s, r in ((0.0, 1.0), (0.5, 0.75), (1.0, 0.25))]
      >>> falls(rows, share="share", value="right", below=0.5)
      0.75
    """
    shares, means = _means(rows, share, value)
    low = next((i for i, mean in enumerate(means) if mean < below), None)
    if low is None or low == 0:
        return None if low is None else shares[0]
    step = (means[low - 1] - below) / (means[low - 1] - means[low])
    return shares[low - 1] + step * (shares[low] - shares[low - 1])


def _means(rows: Rows, share: str, value: str) -> tuple[list[float], list[float]]:
    shares = sorted({row[share] for row in rows})
    values = [[row[value] for row in rows if row[share] == place] for place in shares]
    return shares, [float(np.mean(some)) for some in values]
