"""Which tokens may be drawn: the likeliest k, or those that make up a share of the probability."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["truncated"]


def truncated(logits: jax.Array, *, top_k: Any = None, top_p: Any = None) -> jax.Array:
    """Logits of the tokens that may be drawn, -inf for the others.

    First all but the `top_k` most likely tokens go; then, of the distribution that is left, those
    that are less likely than the fewest which together have `top_p` of it (nucleus sampling).
    Tokens as likely as the last that stays, stay too. Both numbers may be traced.

    Args:
      logits: (..., vocab), divided by the temperature.
      top_k: at least 1; `None`, or more than there are tokens, is all.
      top_p: in (0, 1]; `None` and 1 are all.

    Example:
      >>> logits = jnp.log(jnp.array([0.5, 0.1, 0.3, 0.1]))
      >>> jnp.exp(truncated(logits, top_p=0.6)).round(1).tolist()
      [0.5, 0.0, 0.30000001192092896, 0.0]
      >>> jnp.exp(truncated(logits, top_k=1)).round(1).tolist()
      [0.5, 0.0, 0.0, 0.0]

    References: Fan et al. 2018 (arXiv 1805.04833), section 5.4; Holtzman et al. 2020
    (arXiv 1904.09751), section 3.1.
    """
    if top_k is None and top_p is None:
        return logits
    ordered = jnp.sort(logits, axis=-1, descending=True)
    least = ordered[..., -1:]
    if top_k is not None:
        last = jnp.minimum(top_k, logits.shape[-1]) - 1
        least = jax.lax.dynamic_slice_in_dim(ordered, last, 1, axis=-1)
        ordered = jnp.where(ordered >= least, ordered, -jnp.inf)
    if top_p is not None:
        shares = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(shares, axis=-1) - shares
        # Rounded sums reach 1 before the last token does.
        stays = (before < top_p) | (jnp.asarray(top_p) >= 1)
        nucleus = jnp.where(stays, ordered, jnp.inf).min(axis=-1, keepdims=True)
        least = jnp.maximum(least, nucleus)
    return jnp.where(logits >= least, logits, -jnp.inf)
