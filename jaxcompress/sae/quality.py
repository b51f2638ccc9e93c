"""How good a dictionary is at its activations: error, sparsity, dead features."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["Quality", "quality"]


@dataclasses.dataclass(frozen=True)
class Quality:
    """Of a dictionary on activations it was not trained on.

    Attributes:
      explained: share of the variance that is explained, 1 - sum |x - x^|^2 / sum |x - mean|^2.
      l0: active features of a token, mean.
      density: (feature,) share of the tokens at which each is active.
      strongest: (feature,) the largest f_i |decoder_i| seen.
      tokens: how many were looked at.
    """

    explained: float
    l0: float
    density: np.ndarray
    strongest: np.ndarray
    tokens: int

    @property
    def dead(self) -> float:
        """Share of the features that were never active."""
        return float((self.density == 0).mean())


def quality(dictionary: Any, x: Any, *, batch: int = 4096) -> Quality:
    """Measures a dictionary on activations, some tokens at a time.

    Args:
      dictionary: a `models.Autoencoder`, one.
      x: (token, width).
      batch: tokens whose features exist at once.

    Raises:
      ValueError: for another width, fewer than 2 tokens, or activations that are all the same.

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0))
      >>> x = jax.random.normal(jax.random.key(1), (32, 4))
      >>> quality(dictionary, x).density.shape
      (8,)
    """
    x = np.asarray(x)
    width = dictionary.decoder_bias.shape[-1]
    if x.ndim != 2 or x.shape[1] != width or len(x) < 2:
        raise check.fail("x", f"at least 2 tokens (token, {width})", x.shape)
    check.integer("batch", batch, 1)
    spread = float(((x - x.mean(axis=0, keepdims=True, dtype=np.float64)) ** 2).sum())
    if not spread > 0:
        raise check.fail("x", "finite activations that differ", f"a variance of {spread}")
    error, active, strongest = 0.0, 0.0, -np.inf
    for start in range(0, len(x), batch):
        part = _measured(dictionary, jnp.asarray(x[start : start + batch]))
        error += float(part[0])
        active = active + np.asarray(part[1], np.float64)
        strongest = np.maximum(strongest, np.asarray(part[2]))
    density = np.asarray(active) / len(x)
    explained = 1 - error / spread
    return Quality(explained, float(density.sum()), density, np.asarray(strongest), len(x))


@jax.jit
def _measured(dictionary: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    f = dictionary.encode(x)
    error = ((x - dictionary.decode(f)) ** 2).sum()
    return error, (f > 0).sum(axis=0), (f * dictionary.norms[None]).max(axis=0)
