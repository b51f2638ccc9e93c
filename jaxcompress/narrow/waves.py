"""The Fourier basis of the numbers modulo p, and what weights and neurons look like in it.

All functions are pure, and take a leading axis of seeds or checkpoints under `vmap`. Frequency
k = 1, ..., (p - 1) / 2 is at place k - 1.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcompress import check

__all__ = ["basis", "frequency_norms", "gini", "neuron_shares", "waves_of"]


def basis(p: int) -> Float[np.ndarray, "wave p"]:
    """Orthonormal waves over 0, ..., p - 1 as rows: constant, then cosine and sine by frequency.

    Args:
      p: an odd modulus.

    Returns:
      (p, p) float32; cosine and sine of frequency k are rows 2 k - 1 and 2 k.

    Raises:
      ValueError: if p is even (its last frequency has no sine) or below 3.

    Example:
      >>> waves = basis(5)
      >>> bool(np.allclose(waves @ waves.T, np.eye(5), atol=1e-6))
      True
    """
    if check.integer("p", p, 3) % 2 == 0:
        raise check.fail("p", "an odd modulus", p)
    angle = 2 * np.pi * np.outer(np.arange(1, (p + 1) // 2), np.arange(p)) / p
    pairs = np.stack([np.cos(angle), np.sin(angle)], axis=1).reshape(p - 1, p)
    rows = [np.full((1, p), p**-0.5), pairs * (2 / p) ** 0.5]
    return np.concatenate(rows).astype(np.float32)


def frequency_norms(matrix: Float[Any, "p feature"]) -> Float[Array, "frequency"]:
    """Norm of a matrix in each frequency of its first axis: of sine and cosine together.

    For the embedding W_E give its first p rows; for W_L, what neurons write on logits, the product
    of the unembedding and the MLP's output weights, (class, neuron).

    Example:
      >>> wave = np.cos(2 * np.pi * np.arange(5) / 5)[:, None]
      >>> (frequency_norms(wave) ** 2).round(2).tolist()
      [2.5, 0.0]
    """
    waves = waves_of(basis(matrix.shape[0]) @ matrix)
    return jnp.sqrt(jnp.sum(waves**2, axis=(1, 2)))


def gini(values: Float[Any, "*batch value"]) -> Float[Array, "*batch"]:
    """Gini coefficient along the last axis: 0 if all are equal, near 1 if one has it all.

    sum_i (2 i - n - 1) v_(i) / (n sum v), values at least 0, sorted upwards, i from 1.

    Example:
      >>> gini(jnp.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])).tolist()
      [0.0, 0.75]
    """
    values = jnp.sort(values, axis=-1)
    n = values.shape[-1]
    weights = 2 * jnp.arange(1, n + 1) - n - 1
    return values @ weights / (n * values.sum(-1))


def neuron_shares(neurons: Float[Any, "pair neuron"], p: int) -> Float[Array, "neuron frequency"]:
    """Share of each neuron's variance over the pairs that one frequency of x and y explains.

    The waves of frequency k are the products of {constant, cosine, sine} in x and in y, without the
    constant itself. The largest share names a neuron's cluster. A neuron that is constant has 0.

    Args:
      neurons: activations after the non-linearity at the last position, of all pairs.
      p: modulus.

    Example:
      >>> x, y = np.arange(25) // 5, np.arange(25) % 5
      >>> wave = np.cos(2 * np.pi * 2 * x / 5) * np.sin(2 * np.pi * 2 * y / 5)
      >>> jnp.round(neuron_shares(wave[:, None], 5), 3).tolist()
      [[0.0, 1.0]]
    """
    check.shape("neurons", neurons, [(p * p, neurons.shape[-1])], "(pair, neuron)")
    waves, count = basis(p), neurons.shape[-1]
    grid = (neurons - neurons.mean(0)[None]).reshape(p, p, count)
    power = jnp.einsum("ax,xyf,by->abf", waves, grid, waves) ** 2
    total = power.sum((0, 1))
    one = waves_of(power[:, 0]).sum(1) + waves_of(power[0]).sum(1)
    k = 2 * np.arange((p - 1) // 2) + 1
    two = sum(power[k + i, k + j] for i in (0, 1) for j in (0, 1))
    return (one + two).T / jnp.where(total > 0, total, 1.0)[:, None]


def waves_of(rows: Any) -> Array:
    """Coefficients of `basis` without the constant, cosine and sine of a frequency together.

    Example:
      >>> waves_of(jnp.arange(5)).tolist()
      [[1, 2], [3, 4]]
    """
    return jnp.asarray(rows[1:]).reshape(-1, 2, *rows.shape[1:])
