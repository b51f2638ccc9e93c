"""Sparse autoencoders: activations as sums of few directions out of many; three kinds, one class.

An `Autoencoder` is a pytree, so `jit`, `vmap` (over seeds) and `grad` take it as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check
from jaxcompress.models.largest import largest

__all__ = ["KINDS", "Autoencoder", "create_autoencoder"]

KINDS = ("relu", "topk", "jumprelu")
"""Features are few by a penalty on their sum, by keeping the `k` largest, or by thresholds."""

_DATA = ("encoder", "encoder_bias", "decoder", "decoder_bias", "log_threshold")


@functools.partial(jax.tree_util.register_dataclass, data_fields=_DATA, meta_fields=("kind", "k"))
@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """x ~ decoder_bias + sum_i f_i decoder_i, with f = activation(x encoder + encoder_bias).

    A feature counts by what it writes, f_i |decoder_i|: `topk` keeps the largest of these. So no
    length of the decoder's rows has to be held, and scaled activations may be learned (`rescaled`).

    Attributes:
      encoder: (width, feature).
      encoder_bias: (feature,).
      decoder: (feature, width).
      decoder_bias: (width,).
      log_threshold: (feature,) of `jumprelu`, otherwise `None`.
      kind: one of `KINDS`.
      k: features of a token that stay, of `topk`.

    Reference:
      Templeton et al. 2024, Scaling Monosemanticity (the formula); Gao et al. 2024 (arXiv
      2406.04093, top-k); Rajamanoharan et al. 2024 (arXiv 2407.14435, JumpReLU).

    Example:
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0), kind="topk", k=2)
      >>> f = dictionary.encode(jnp.ones((3, 4)))
      >>> f.shape, bool(((f > 0).sum(axis=-1) <= 2).all()), dictionary.decode(f).shape
      ((3, 8), True, (3, 4))
    """

    encoder: Any
    encoder_bias: Any
    decoder: Any
    decoder_bias: Any
    log_threshold: Any = None
    kind: str = "relu"
    k: int | None = None

    @property
    def norms(self) -> jax.Array:
        """(feature,) lengths of what one unit of a feature writes; the slope at 0 is 0."""
        return jnp.sqrt(jnp.maximum((self.decoder**2).sum(axis=-1), 1e-24))

    def raw(self, x: Any) -> Any:
        """(..., feature) before the activation, of activations (..., width)."""
        return _plus(x @ self.encoder, self.encoder_bias)

    def activate(self, raw: Any) -> jax.Array:
        """(..., feature): what is left of `raw`; ties at the last place of `topk` all stay."""
        f = jax.nn.relu(raw)
        if self.kind == "jumprelu":
            theta = jnp.exp(self.log_threshold)
            return jnp.where(raw > _along(theta, raw), f, 0.0)
        if self.kind == "relu":
            return f
        return jnp.where(self.largest(f, self.k), f, 0.0)

    def largest(self, f: jax.Array, k: Any) -> jax.Array:
        """(..., feature) which features are among the `k` of their token that write most."""
        return largest(f * _along(self.norms, f), k)

    def encode(self, x: Any) -> jax.Array:
        """(..., feature), not negative, of activations (..., width)."""
        return self.activate(self.raw(x))

    def decode(self, f: Any) -> Any:
        """(..., width) of features (..., feature)."""
        return _plus(f @ self.decoder, self.decoder_bias)

    def rescaled(self, scale: Any) -> Autoencoder:
        """The dictionary of x where this is the one of `scale` x: the same features."""
        changes = {"encoder": self.encoder * scale, "decoder": self.decoder / scale}
        return dataclasses.replace(self, decoder_bias=self.decoder_bias / scale, **changes)


def create_autoencoder(
    width: int,
    features: int,
    key: Any,
    *,
    kind: str = "relu",
    k: int | None = None,
    mean: Any = None,
    threshold: float = 0.1,
) -> Autoencoder:
    """A random dictionary: decoder rows of length 1, the encoder its transpose.

    Args:
      width: of the activations.
      features: directions of the dictionary.
      key: typed PRNG key.
      kind: one of `KINDS`.
      k: active features of a token, for `topk` and only for it.
      mean: (width,) of the activations, where the decoder starts; by default 0.
      threshold: of all features at the start, for `jumprelu`.

    Raises:
      ValueError: for unknown kinds, a `k` that does not fit, a threshold that is not positive.

    Example:
      >>> create_autoencoder(4, 8, jax.random.key(0)).norms.round(3).tolist()[:2]
      [1.0, 1.0]
    """
    check.known("kind", kind, KINDS)
    check.integer("width", width, 1)
    check.integer("features", features, 1)
    if kind == "topk":
        check.integer("k", k, 1, features)
    elif k is not None:
        raise check.fail("k", f"None, as {kind} has none", k)
    if not (math.isfinite(threshold) and threshold > 0):
        raise check.fail("threshold", "a positive number", threshold)
    decoder = jax.random.normal(key, (features, width))
    decoder = decoder / jnp.linalg.norm(decoder, axis=-1, keepdims=True)
    start = jnp.zeros(width) if mean is None else jnp.asarray(mean, jnp.float32)
    check.shape("mean", start, [(width,)], "(width,)")
    # What the decoder starts with is nobody's feature: the encoder does not see it.
    log_threshold = jnp.full(features, math.log(threshold)) if kind == "jumprelu" else None
    return Autoencoder(decoder.T, -decoder @ start, decoder, start, log_threshold, kind, k)


def _along(values: Any, x: Any) -> Any:
    """Values of the last axis, with the leading axes that `x` has."""
    return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _plus(x: Any, bias: Any) -> Any:
    return x + _along(bias, x)
