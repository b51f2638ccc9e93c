"""Losses of sparse autoencoders: `(dictionary, x, ...) -> (mean over tokens, metrics)`.

All reconstruct, as the squared distance summed over the width; they differ in what keeps features
few. `dictionary` is a `models.Autoencoder`, or anything with its arrays and methods. Metrics are
scalars, but for `active`, (feature,): whether a feature was active at any token.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check
from jaxcompress.sae import estimates

__all__ = ["auxiliary", "jumprelu", "l1", "topk"]


def l1(dictionary: Any, x: Any, *, coefficient: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """|x - x^|^2 + coefficient * sum_i f_i |decoder_i|, mean over tokens.

    The length of the decoder's row makes the penalty the same however a feature is scaled, so no
    constraint is needed. `coefficient` may be traced: one value per member under `vmap`.

    Args:
      dictionary: of kind `relu`.
      x: (token, width), scaled such that the mean of |x|^2 is the width.
      coefficient: of the penalty; 5 in the paper, for such x.

    Reference:
      Templeton et al. 2024, Scaling Monosemanticity, "Sparse autoencoders".

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0))
      >>> loss, metrics = l1(dictionary, jnp.ones((3, 4)), coefficient=0.0)
      >>> bool(loss == metrics["squared_error"])
      True
    """
    f = dictionary.encode(x)
    error = _size(x - dictionary.decode(f))
    penalty = (f * dictionary.norms[None]).sum(axis=-1).mean()
    return error + coefficient * penalty, _metrics(error, f) | {"penalty": penalty}


def topk(
    dictionary: Any,
    x: Any,
    *,
    silent: Any,
    aux_k: int,
    coefficient: float = 1 / 32,
    revive: Any = True,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """|x - x^|^2 + coefficient * |e - e^|^2, mean over tokens: `auxiliary` revives silent features.

    Args:
      dictionary: of kind `topk`.
      x: (token, width), scaled such that the mean of |x|^2 is the width.
      silent: (feature,) true where a feature has been silent for long.
      aux_k: silent features of a token that explain the error; half the width in the paper.
      coefficient: of the second term.
      revive: a boolean that is not mapped over; where it is false the second term is 0 and costs
        nothing, which is right while no feature of any member is silent.

    Reference:
      Gao et al. 2024 (arXiv 2406.04093), appendix A.2.

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0), kind="topk", k=2)
      >>> loss, metrics = topk(dictionary, jnp.ones((3, 4)), silent=jnp.zeros(8, bool), aux_k=2)
      >>> float(metrics["auxiliary"])
      0.0
    """
    raw = dictionary.raw(x)
    f = dictionary.activate(raw)
    left = x - dictionary.decode(f)
    error = _size(left)
    aux = jax.lax.cond(
        revive, lambda: auxiliary(dictionary, left, raw, silent, aux_k), lambda: jnp.zeros(())
    )
    return error + coefficient * aux, _metrics(error, f) | {"auxiliary": aux}


def auxiliary(dictionary: Any, error: Any, raw: Any, silent: Any, aux_k: int) -> jax.Array:
    """What silent features leave of an error: |e - sum_i f_i decoder_i|^2 over the best `aux_k`.

    The error is a target, not a result: no gradient flows into it. The decoder's bias has no part.
    0 where no feature is silent.

    Args:
      dictionary: with a decoder.
      error: (token, width), x - x^.
      raw: (token, feature) before the activation.
      silent: (feature,) booleans.
      aux_k: features of a token.

    Raises:
      ValueError: for an `aux_k` outside [1, features].

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0))
      >>> error, raw = jnp.ones((3, 4)), -jnp.ones((3, 8))
      >>> float(auxiliary(dictionary, error, raw, jnp.ones(8, bool), 2))  # nothing to explain it
      4.0
    """
    check.integer("aux_k", aux_k, 1, raw.shape[-1])
    error = jax.lax.stop_gradient(error)
    f = jnp.where(silent[None], jax.nn.relu(raw), 0.0)
    f = jnp.where(dictionary.largest(f, aux_k), f, 0.0)
    return jnp.where(silent.any(), _size(error - f @ dictionary.decoder), 0.0)


def jumprelu(
    dictionary: Any, x: Any, *, coefficient: Any, bandwidth: float = 0.05
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """|x - x^|^2 + coefficient * (active features), mean over tokens.

    The number of active features is a step function of the thresholds. Their gradient is that of
    its expectation, estimated with a rectangle as wide as `bandwidth` around the threshold.

    Args:
      dictionary: of kind `jumprelu`.
      x: (token, width), scaled such that the mean of |x|^2 is the width.
      coefficient: of the number of active features; may be traced.
      bandwidth: of the estimate, in units of what the activation is taken of.

    Reference:
      Rajamanoharan et al. 2024 (arXiv 2407.14435), equations 9 to 12.

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0), kind="jumprelu")
      >>> loss, metrics = jumprelu(dictionary, jnp.ones((3, 4)), coefficient=1.0)
      >>> bool(loss == metrics["squared_error"] + metrics["l0"])
      True
    """
    raw = dictionary.raw(x)
    theta = jnp.broadcast_to(jnp.exp(dictionary.log_threshold)[None], raw.shape)
    f = estimates.jump(raw, theta, bandwidth)
    active = estimates.step(raw, theta, bandwidth).sum(axis=-1).mean()
    error = _size(x - dictionary.decode(f))
    return error + coefficient * active, _metrics(error, f)


def _size(error: jax.Array) -> jax.Array:
    """The squared length of (token, width), mean over tokens."""
    return (error**2).sum(axis=-1).mean()


def _metrics(error: jax.Array, f: jax.Array) -> dict[str, jax.Array]:
    on = f > 0
    l0 = on.sum(axis=-1).mean(dtype=jnp.float32)
    return {"squared_error": error, "l0": l0, "active": on.any(axis=0)}
