"""Where a head looks, in words that every model shares: its role, as shares of its attention.

What a head attends to is told by what the key is to the query: the token itself, the one before it,
the one after it, another token of the same kind, the one after such a token, or anything else.
Attention to the first position, where heads rest, is left out. Unlike attention patterns these
shares do not depend on where in the prompt things stand.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

__all__ = ["HABITS", "habits", "in_common"]

HABITS = ("current", "previous", "next", "duplicate", "induction", "elsewhere")
"""What a key can be to its query; the first that fits counts."""


def habits(
    pattern: Float[Array, "l b h t s"], tokens: Int[Array, "b t"], mask: Any = None
) -> Float[Array, "l h r"]:
    """Shares of each head's attention by what it looks at, over all queries but the first.

    Args:
      pattern: (layer, batch, head, query, key), the tap of a forward.
      tokens: (batch, position).
      mask: (batch, position), 1 on real tokens, or `None`.

    Returns:
      (layer, head, role), roles as in `HABITS`, that sum to 1; to 0 for a head that looks at the
      first position alone.

    Example:
      >>> before = jnp.eye(4, k=-1)[None, None, None]
      >>> habits(before, jnp.array([[5, 6, 7, 8]]))[0, 0].tolist()
      [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    tokens = jnp.asarray(tokens)
    real = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask) > 0
    places = jnp.cumsum(real, axis=1)  # the first real token is at 1
    apart = places[:, :, None] - places[:, None, :]
    same = (tokens[:, :, None] == tokens[:, None, :]) & real[:, None, :]
    after_same = jnp.pad(same[..., :-1] & (apart[..., :-1] != 0), ((0, 0), (0, 0), (1, 0)))
    looked = (real & (places > 1))[:, :, None] & (real & (places > 1))[:, None, :]
    kinds, left = [], looked
    for kind in (apart == 0, apart == 1, apart == -1, same, after_same, looked):
        kinds.append(left & kind)
        left = left & ~kind
    sums = jnp.einsum("lbhts,rbts->lhr", pattern, jnp.stack(kinds).astype(pattern.dtype))
    total = sums.sum(axis=-1, keepdims=True)
    return sums / jnp.where(total > 1e-9, total, 1.0)


def in_common(student: Any, teacher: Any) -> np.ndarray:
    """(student head, teacher head) in [0, 1]: 1 minus the total variation of their shares.

    Example:
      >>> in_common(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
      [[0.5, 1.0]]
    """
    # What is not on any of these is on the first position alone.
    ours, theirs = (
        np.concatenate([x, 1 - np.sum(x, axis=-1, keepdims=True)], axis=-1)
        for x in (np.asarray(student, float), np.asarray(teacher, float))
    )
    return np.minimum(ours[:, None], theirs[None]).sum(axis=-1)
