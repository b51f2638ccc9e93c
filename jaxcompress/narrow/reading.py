"""One trained network that adds: its frequencies, and what it does with and without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcompress.narrow import fourier, waves
from jaxcompress.narrow.entropy import accuracy, cross_entropy

__all__ = ["KEY_SHARE", "reading"]

KEY_SHARE = 0.01
"""A key frequency has more than this share of the variance of the logits, see `sum_shares`."""


def reading(apply: Callable[..., Any], params: Any, table: Any) -> dict[str, Any]:
    """One trained network: its frequencies, and what it can do with and without them.

    Args:
      apply: `apply(params, tokens, taps=...) -> Output`.
      params: of a network with one layer.
      table: `data.modular.Table`.

    Returns:
      `accuracy`, `loss`, `restricted_loss` and `excluded_loss` over all pairs, as numbers; as
      arrays `logits` (pair, class), and by frequency `shares`, `keys`, `excluded_each` and
      `neurons` (neuron, frequency), see `fourier`.

    Example:
      >>> from jaxcompress.data.modular import table
      >>> from jaxcompress.models import create
      >>> from jaxcompress.narrow.addition import network
      >>> model = create(network(5, width=8), key=jax.random.key(0))
      >>> reading(model.apply, model.params, table(5))["neurons"].shape
      (32, 2)
    """
    p = round(len(table.answers) ** 0.5)
    out = apply(params, table.tokens, taps=("neurons",))
    logits, neurons = out.logits[:, -1], out.taps["neurons"][0, :, -1]
    shares = fourier.sum_shares(logits, p)
    keys = (shares > KEY_SHARE).astype(jnp.float32)

    def loss(logits: Array) -> Array:
        return cross_entropy(logits, table.answers).mean()

    def without(frequency: Array) -> Array:
        return loss(fourier.excluded(logits, p, frequency))

    numbers = {
        "accuracy": accuracy(logits, table.answers).mean(),
        "loss": loss(logits),
        "restricted_loss": loss(fourier.restricted(logits, p, keys)),
        "excluded_loss": without(keys),
    }
    arrays = {
        "logits": logits,
        "shares": shares,
        "keys": keys,
        "excluded_each": jax.lax.map(without, jnp.eye(len(keys))),
        "neurons": waves.neuron_shares(neurons, p),
    }
    plain = {name: float(value) for name, value in numbers.items()}
    return plain | {name: np.asarray(value) for name, value in arrays.items()}
