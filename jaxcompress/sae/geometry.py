"""Where features lie: neighbours in a dictionary, and the same features in two dictionaries."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["correlations", "cosines", "neighbours", "shared"]


def cosines(one: Any, other: Any) -> jax.Array:
    """(feature, feature) cosines of what features write, of two dictionaries of one stream.

    Args:
      one: with a `decoder` (feature, width).
      other: likewise.

    Raises:
      ValueError: for dictionaries of another width; compare those with `correlations`.

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> one = create_autoencoder(4, 8, jax.random.key(0))
      >>> np.diag(cosines(one, one)).round(3).tolist()[:2]
      [1.0, 1.0]
    """
    wanted = (other.decoder.shape[0], one.decoder.shape[1])
    check.shape("other.decoder", other.decoder, [wanted], "(feature, width)")
    return (one.decoder / one.norms[:, None]) @ (other.decoder / other.norms[:, None]).T


def neighbours(
    dictionary: Any, feature: int, count: int = 10, *, of: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """The features whose directions are nearest to that of one.

    With a larger dictionary as `of`, these are the features that it is split into.

    Args:
      dictionary: of the feature.
      feature: its number.
      count: of neighbours.
      of: dictionary in which they are looked for; by default the same one, without the feature.

    Returns:
      (count,) numbers of features, the nearest first, and their cosines.

    Raises:
      ValueError: for a feature that there is not, or more neighbours than features.

    Reference:
      Templeton et al. 2024, Scaling Monosemanticity, "Feature neighborhoods".

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> neighbours(create_autoencoder(4, 8, jax.random.key(0)), 3, 2)[0].shape
      (2,)
    """
    check.integer("feature", feature, 0, len(dictionary.decoder) - 1)
    others = dictionary if of is None else of
    check.integer("count", count, 1, len(others.decoder) - (of is None))
    near = np.array(cosines(dictionary, others)[feature])
    if of is None:
        near[feature] = -np.inf
    order = np.argsort(-near, kind="stable")[:count]
    return order, near[order]


def correlations(one: Any, other: Any, x: Any, y: Any, *, batch: int = 2048) -> np.ndarray:
    """Pearson's correlation of the activity of features of two dictionaries, over the same tokens.

    The dictionaries may be of different models and widths: what is compared is when features are
    active, not where they point.

    Args:
      one: with `encode`.
      other: likewise.
      x: (token, width), what `one` encodes.
      y: (token, width), what `other` encodes, of the same tokens in the same order.
      batch: tokens whose features exist at once.

    Returns:
      (feature, feature); 0 where a feature is constant.

    Raises:
      ValueError: for other numbers of tokens, or fewer than 2.

    Reference:
      Bricken et al. 2023, Towards Monosemanticity, "Activation similarity".

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> one = create_autoencoder(4, 8, jax.random.key(0))
      >>> x = jax.random.normal(jax.random.key(1), (64, 4))
      >>> np.diag(correlations(one, one, x, x)).round(3).tolist()[:2]
      [1.0, 1.0]
    """
    if len(x) != len(y) or len(x) < 2:
        raise check.fail("y", f"as many tokens as x ({len(x)}), at least 2", len(y))
    check.integer("batch", batch, 1)
    sums, base = None, (one.encode(jnp.asarray(x[:1]))[0], other.encode(jnp.asarray(y[:1]))[0])
    for start in range(0, len(x), batch):
        here = slice(start, start + batch)
        part = _moments(one, other, jnp.asarray(x[here]), jnp.asarray(y[here]), base)
        part = [np.asarray(value, np.float64) for value in part]
        sums = part if sums is None else [a + b for a, b in zip(sums, part, strict=True)]
    assert sums is not None
    f, g, ff, gg, fg = (value / len(x) for value in sums)
    covariance = fg - f[:, None] * g[None]
    # What rounding leaves of a constant feature is no variance.
    spread = [
        np.where((v := s - m * m) > 1e-9 * (s + np.square(c, dtype=float)), v, np.inf)
        for m, s, c in zip((f, g), (ff, gg), base, strict=True)
    ]
    return covariance / np.sqrt(spread[0][:, None] * spread[1][None])


@jax.jit
def _moments(one: Any, other: Any, x: Any, y: Any, base: Any) -> tuple[jax.Array, ...]:
    # From the first token's activity, not from 0: sums of squares of always-active features would
    # leave few digits for their variance.
    f, g = one.encode(x) - base[0][None], other.encode(y) - base[1][None]
    return f.sum(axis=0), g.sum(axis=0), (f * f).sum(axis=0), (g * g).sum(axis=0), f.T @ g


def shared(similarity: Any, *, alive: Any = None) -> float:
    """The mean over features of the first dictionary of their best similarity in the second.

    Args:
      similarity: (feature, feature), such as `cosines` and `correlations`.
      alive: (feature,) which of the first count; by default all.

    Raises:
      ValueError: if none counts.

    Reference:
      Sharkey et al. 2022, mean max cosine similarity.

    Example:
      >>> shared(np.array([[1.0, 0.2], [0.1, 0.5]]))
      0.75
    """
    best = np.asarray(similarity).max(axis=1)
    best = best if alive is None else best[np.asarray(alive, bool)]
    if not len(best):
        raise check.fail("alive", "at least one feature", "none")
    return float(best.mean())
