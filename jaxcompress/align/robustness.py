"""How much a model depends on single components: drops, their spread, their inequality."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxcompress import check

__all__ = ["Robustness", "drops", "gini", "robustness", "severity"]


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Figures of Haskins and Adams 2026 (arXiv 2505.10822v2), in percent and in raw logits.

    Attributes:
      mean_drop: mean over components of the drop, in percent of the clean logit difference.
      interval: 95 % bootstrap interval of it over components.
      severity: see `severity`, in [0, 1].
      worst5: mean drop of the worst 5 % of the components, in percent.
      gini: inequality of the drops, 0 (all alike) to 1.
      summed_drop: sum over components, in percentage points; unlike the mean it does not grow just
        because there are fewer components to share the work.
      heads_mean: mean drop of the heads, in percent.
      mlps_mean: mean drop of the MLPs, in percent.
      mean_drop_raw: mean fall of the logit difference itself, in nats, rises not clamped.
      worst5_raw: mean fall of the worst 5 %, in nats.
    """

    mean_drop: float
    interval: tuple[float, float]
    severity: float
    worst5: float
    gini: float
    summed_drop: float
    heads_mean: float
    mlps_mean: float
    mean_drop_raw: float
    worst5_raw: float


def drops(effects: Any, clean: float) -> np.ndarray:
    """Percent of a metric that is lost: 100 - clamp(100 * ablated / clean, 0, 100).

    Args:
      effects: any shape, metric with the component removed minus clean.
      clean: the metric of the whole model; if it is not above 0, there is nothing to lose in
        percent and all drops are NaN.

    Returns:
      The same shape, in [0, 100].

    Example:
      >>> drops(np.array([-0.5, 1.0, -9.0]), 2.0).tolist()
      [25.0, 0.0, 100.0]
    """
    effects = np.asarray(effects, dtype=np.float64)
    if not clean > 0:
        return np.full(effects.shape, np.nan)
    return 100.0 - np.clip(100.0 * (clean + effects) / clean, 0.0, 100.0)


def severity(
    drop: Any, *, threshold: float = 20.0, limit: float = 100.0, power: float = 1.0
) -> float:
    """Mean over components of how far a drop is on its way from `threshold` to `limit`.

    `(1/N) sum max(0, (min(limit, m) - threshold) / (limit - threshold)) ** power`.

    Args:
      drop: (component,) in percent.
      threshold: drops below it do not count, in percent.
      limit: drops above it count as this, in percent.
      power: above 1, large drops weigh more.

    Returns:
      In [0, 1].

    Example:
      >>> severity(np.array([0.0, 20.0, 60.0, 100.0]))
      0.375
    """
    share = (np.minimum(limit, drop) - threshold) / (limit - threshold)
    return float((np.maximum(0.0, share) ** power).mean())


def gini(values: Any) -> float:
    """Gini coefficient of non-negative values: 0 if all are alike, (n - 1) / n if one has all.

    Example:
      >>> gini(np.array([0.0, 0.0, 0.0, 1.0]))
      0.75
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n, total = len(x), x.sum()
    if total <= 0:
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ x / (n * total))


def robustness(
    heads: Any, mlps: Any, clean: float, *, samples: int = 10_000, seed: int = 42
) -> Robustness:
    """All figures from single-component ablations.

    Args:
      heads: (layer, head) mean effects in nats; NaN where there is no head.
      mlps: (layer,) mean effects in nats.
      clean: logit difference of the whole model, in nats.
      samples: bootstrap samples.
      seed: of the bootstrap; 42 as published.

    Returns:
      The figures; those in percent are NaN if `clean` is not above 0.

    Example:
      >>> round(robustness(np.array([[-1.0, 0.0]]), np.array([-1.0]), 2.0).mean_drop, 2)
      33.33

    Reference:
      Haskins and Adams 2026 (arXiv 2505.10822v2), `robustness/plots/compute_robustness.py`.
    """
    check.integer("samples", samples, 1)
    heads = np.asarray(heads, dtype=np.float64)
    heads, mlps = heads[~np.isnan(heads)], np.asarray(mlps, dtype=np.float64)
    effects = np.concatenate([heads, mlps])
    drop, fall = drops(effects, clean), -effects
    worst = max(1, round(0.05 * len(effects)))
    rng = np.random.default_rng(seed)
    means = drop[rng.integers(0, len(drop), (samples, len(drop)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5]) if clean > 0 else (np.nan, np.nan)
    return Robustness(
        mean_drop=float(drop.mean()),
        interval=(float(low), float(high)),
        severity=severity(drop) if clean > 0 else float("nan"),
        worst5=float(np.sort(drop)[-worst:].mean()),
        gini=gini(drop) if clean > 0 else float("nan"),
        summed_drop=float(drop.sum()),
        heads_mean=float(drops(heads, clean).mean()) if len(heads) else float("nan"),
        mlps_mean=float(drops(mlps, clean).mean()),
        mean_drop_raw=float(fall.mean()),
        worst5_raw=float(np.sort(fall)[-worst:].mean()),
    )
