"""What a block is told besides its input: gates, edits and what it may see, laid out for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["LayerControl", "Sight", "rotate"]


class LayerControl(NamedTuple):
    """What one block sees of gates and edits, or of all blocks with a leading layer axis.

    Gates are (1 or batch, 1 or position, ...), edits (1 or batch, 1 or position, ...), or `None`.
    """

    heads: Any = None
    attns: Any = None
    mlps: Any = None
    neurons: Any = None
    heads_edit: Any = None
    attns_edit: Any = None
    mlps_edit: Any = None
    neurons_edit: Any = None


class Sight(NamedTuple):
    """What the queries of a forward may see, and where they stand.

    Attributes:
      visible: (1 or batch, query, key) bool, or `None`: everything.
      query_angles: (1 or batch, query, rotated / 2) rotary angles in radians, or `None`.
      key_angles: (1 or batch, key, rotated / 2), or `None`.
    """

    visible: Any
    query_angles: Any
    key_angles: Any


def rotate(x: jax.Array, angles: Any) -> jax.Array:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864), half-split layout; `None` leaves x.

    Numbers beyond two for each angle stay as they are.

    Example:
      >>> rotate(jnp.array([[[[1.0, 0.0]]]]), jnp.array([[[jnp.pi / 2]]])).round().tolist()
      [[[[-0.0, 1.0]]]]
    """
    if angles is None:
        return x
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    half = angles.shape[-1]
    a, b, rest = jnp.split(x.astype(jnp.float32), [half, 2 * half], axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1).astype(x.dtype)
