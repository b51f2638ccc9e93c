"""Modular addition in the Fourier basis: which frequencies a network computes with, and how far.

A network that has grokked adds by trigonometry: its logits are sums of cos(w (x + y - z)) over a
few key frequencies w = 2 pi k / p. What depends on x and y through their sum alone is the mean over
all pairs of one sum, so projections onto directions cos(w (x + y)) and sin(w (x + y)) are 1-D
transforms of those means, not 2-D ones of all pairs.

All functions are pure, work in one program under `jit`, and take a leading axis of seeds or
checkpoints under `vmap`. Logits are those of all p * p pairs, pair x * p + y, at the last position;
classes from p on ("equals") are dropped. Frequency k = 1, ..., (p - 1) / 2 is at place k - 1.

Reference: Nanda et al. 2023 (arXiv 2301.05217), sections 4 and 5, and their code.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcompress import check
from jaxcompress.narrow.waves import basis, waves_of

__all__ = ["cosine_coefficients", "excluded", "restricted", "sum_shares"]


def sum_shares(logits: Float[Any, "pair vocab"], p: int) -> Float[Array, "frequency"]:
    """Share of the logits' variance over the pairs that lies in each frequency of x + y.

    Key frequencies are those with more than 1 %: `sum_shares(logits, p) > 0.01`.

    Args:
      logits: of all pairs; their mean over the pairs is taken out first.
      p: modulus.

    Example:
      >>> s = (np.arange(25) // 5 + np.arange(25) % 5) % 5
      >>> logits = np.cos(2 * np.pi * 2 * (s[:, None] - np.arange(5)) / 5)
      >>> jnp.round(sum_shares(logits, 5), 3).tolist()
      [0.0, 1.0]
    """
    logits = _classes(logits, p)
    total = jnp.sum((logits - logits.mean(0)[None]) ** 2)
    waves = waves_of(basis(p) @ _by_sum(logits, p)) * p**0.5
    return jnp.sum(waves**2, axis=(1, 2)) / total


def restricted(
    logits: Float[Any, "pair vocab"], p: int, keys: Float[Any, "frequency"]
) -> Float[Array, "pair p"]:
    """The logits with nothing left in them but the key frequencies of x + y, and their mean.

    The loss of these logits is the restricted (or trigonometric) loss: that of the generalising
    circuit alone.

    Args:
      logits: of all pairs.
      p: modulus.
      keys: 1 for each key frequency, else 0; may be traced.

    Example:
      >>> s = (np.arange(25) // 5 + np.arange(25) % 5) % 5
      >>> wave = np.cos(2 * np.pi * 2 * (s[:, None] - np.arange(5)) / 5).astype(np.float32)
      >>> noise = np.random.default_rng(0).standard_normal((25, 5)).astype(np.float32)
      >>> rest = restricted(wave + noise, 5, np.array([0.0, 1.0])) - wave
      >>> bool((rest**2).sum() < (noise**2).sum() / 2)
      True
    """
    logits = _classes(logits, p)
    return _in_keys(logits, p, keys) + logits.mean(0)[None]


def excluded(
    logits: Float[Any, "pair vocab"], p: int, keys: Float[Any, "frequency"]
) -> Float[Array, "pair p"]:
    """The logits without the key frequencies of x + y.

    Their loss on the training pairs is the excluded loss: that of what was memorised. Arguments as
    in `restricted`; with a single key it is the loss without that frequency.

    Example:
      >>> s = (np.arange(25) // 5 + np.arange(25) % 5) % 5
      >>> wave = np.cos(2 * np.pi * 2 * (s[:, None] - np.arange(5)) / 5)
      >>> bool(jnp.abs(excluded(wave, 5, np.array([0.0, 1.0]))).max() < 1e-5)
      True
    """
    logits = _classes(logits, p)
    return logits - _in_keys(logits, p, keys)


def cosine_coefficients(logits: Float[Any, "pair vocab"], p: int) -> Float[Array, "frequency"]:
    """How much of cos(w (x + y - z)) is in the logits, for each frequency.

    The coefficient of the direction that has norm 1 over all triples (x, y, z).

    Example:
      >>> s = (np.arange(25) // 5 + np.arange(25) % 5) % 5
      >>> logits = np.cos(2 * np.pi * 2 * (s[:, None] - np.arange(5)) / 5)
      >>> found = cosine_coefficients(logits, 5)
      >>> abs(float(found[0])) < 1e-5, bool(jnp.isclose(found[1], np.linalg.norm(logits)))
      (True, True)
    """
    waves = basis(p)
    both = waves_of(waves @ _by_sum(_classes(logits, p), p) @ waves.T)  # (frequency, 2, wave)
    k = np.arange((p - 1) // 2)
    # cos(w s) cos(w z) + sin(w s) sin(w z), in unit norm over s and z, then over p pairs of a sum.
    return (both[k, 0, 2 * k + 1] + both[k, 1, 2 * k + 2]) * (p / 2) ** 0.5


def _classes(logits: Any, p: int) -> Array:
    """Logits of the classes below p, of all pairs."""
    logits = jnp.asarray(logits)
    if logits.ndim != 2 or logits.shape[0] != p * p or logits.shape[1] < p:
        expected = f"({p * p}, at least {p}): all pairs, all classes"
        raise check.fail("logits", expected, logits.shape)
    return logits[:, :p]


def _by_sum(logits: Array, p: int) -> Float[Array, "sum p"]:
    """Means over the p pairs of each sum modulo p."""
    x = np.arange(p)
    pairs = x[None] * p + (np.arange(p)[:, None] - x[None]) % p
    return logits[pairs].mean(1)


def _in_keys(logits: Array, p: int, keys: Any) -> Float[Array, "pair p"]:
    """The part of the logits in the key frequencies of x + y."""
    check.shape("keys", keys, [((p - 1) // 2,)], "(frequency,)")
    waves = basis(p)
    weight = jnp.concatenate([jnp.zeros(1), jnp.repeat(jnp.asarray(keys, jnp.float32), 2)])
    means = waves.T @ (weight[:, None] * (waves @ _by_sum(logits, p)))
    sums = (np.arange(p)[:, None] + np.arange(p)[None]).ravel() % p
    return jnp.asarray(means)[sums]
