"""How many jobs a feature has: over how many groups of tokens its activity is spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["groups_per_feature"]


def groups_per_feature(dictionary: Any, groups: Sequence[Any], *, batch: int = 4096) -> np.ndarray:
    """The effective number of groups in which a feature is active: exp(entropy of its shares).

    A feature's share in a group is its mean activity there, divided by the sum of these means: 1
    for a feature of one group, the number of groups for one that is active alike in all. With the
    tasks of a model as groups, a feature near 1 belongs to a task, one far above it to several.

    Args:
      dictionary: with `encode`.
      groups: activations (token, width) of each group.
      batch: tokens whose features exist at once.

    Returns:
      (feature,) float64 in [1, groups]; NaN for features that are active nowhere.

    Raises:
      ValueError: for fewer than two groups, or an empty one.

    Reference:
      The perplexity of a distribution; Hill 1973, Diversity and evenness, the number of order 1.

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0))
      >>> x = jnp.ones((3, 4))
      >>> found = groups_per_feature(dictionary, [x, x])
      >>> np.unique(found[np.isfinite(found)]).round(6).tolist()
      [2.0]
    """
    if len(groups) < 2 or not all(map(len, groups)):
        got = [len(group) for group in groups]
        raise check.fail("groups", "at least two groups of tokens", f"groups of {got} tokens")
    check.integer("batch", batch, 1)
    means = np.stack([_mean(dictionary, np.asarray(group), batch) for group in groups])
    total = means.sum(axis=0, keepdims=True)
    shares = np.divide(means, total, out=np.full_like(means, np.nan), where=total > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.exp(-(shares * logs).sum(axis=0))


def _mean(dictionary: Any, x: np.ndarray, batch: int) -> np.ndarray:
    """(feature,) mean activity."""
    starts = range(0, len(x), batch)
    sums = [np.asarray(_sum(dictionary, jnp.asarray(x[i : i + batch])), float) for i in starts]
    return np.sum(sums, axis=0) / len(x)


@jax.jit
def _sum(dictionary: Any, x: jax.Array) -> jax.Array:
    return dictionary.encode(x).sum(axis=0)
