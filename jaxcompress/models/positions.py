"""Where tokens stand and what they see: positions, rotary angles, masks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.control import Sight

__all__ = ["positions", "rope_frequencies", "sight", "under_mask"]


def under_mask(tokens: jax.Array, attention_mask: Any) -> jax.Array:
    """Tokens, 0 where there is padding, whatever number stands there.

    A number that is no token has no embedding, and NaN is not hidden by an attention of 0.

    Example:
      >>> under_mask(jnp.array([[-100, 7]]), jnp.array([[0, 1]])).tolist()
      [[0, 7]]
    """
    return (
        tokens if attention_mask is None else jnp.where(jnp.asarray(attention_mask) != 0, tokens, 0)
    )


def positions(attention_mask: Any, length: int) -> jax.Array:
    """(1 or batch, position): how many real tokens come before each.

    Example:
      >>> positions(jnp.array([[0, 0, 1, 1, 1]]), 5).tolist()
      [[0, 0, 0, 1, 2]]
    """
    if attention_mask is None:
        return jnp.arange(length)[None]
    return jnp.maximum(jnp.cumsum(jnp.asarray(attention_mask) != 0, axis=1) - 1, 0)


def sight(config: ModelConfig, attention_mask: Any, length: int, earlier: int) -> Sight:
    """Visibility and rotary angles of the last `length` of `earlier + length` positions.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> sight(config, None, 3, 0).visible.astype(int)[0].tolist()
      [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    total = earlier + length
    visible = None
    if config.causal:
        visible = jnp.tril(jnp.ones((total, total), bool))[None, earlier:]
    if attention_mask is not None:
        keys = jnp.asarray(attention_mask).astype(bool)[:, None, :]
        if keys.shape[2] != total:
            raise check.fail("attention_mask", f"{total} positions", keys.shape[2])
        visible = (
            jnp.broadcast_to(keys, (len(keys), length, total))
            if visible is None
            else (keys & visible)
        )
    if config.positions != "rope":
        return Sight(visible, None, None)
    angles = positions(attention_mask, total)[..., None] * rope_frequencies(config).reshape(
        1, 1, -1
    )
    return Sight(visible, angles[:, earlier:], angles)


def rope_frequencies(config: ModelConfig) -> jax.Array:
    """(rotated / 2,) radians per position, with Llama 3's scaling if it is configured.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> rope_frequencies(config).tolist()
      [1.0, 0.009999...]
    """
    half = config.rotated // 2
    frequencies = config.rope_theta ** (-jnp.arange(half) / half)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original * frequencies / (2 * jnp.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (smooth + (1 - smooth) / scaling.factor)
