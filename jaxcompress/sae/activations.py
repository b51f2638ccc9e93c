"""What dictionaries are learned of: the residual stream at the tokens of some batches."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["scale", "stream"]


def stream(model: Any, batches: Iterable[Any], layer: int) -> np.ndarray:
    """The residual stream that enters a layer, at all tokens that are no padding.

    Args:
      model: with `params`, `config` and `apply`.
      batches: with `tokens` and `attention_mask`, both (batch, position).
      layer: in [0, layers]; at `layers` the stream that the head reads.

    Returns:
      (token, width) float32, on the host, in the order of the batches, row by row.

    Raises:
      ValueError: for a layer that the model has not, or no tokens.

    Example:
      >>> import jaxcompress as jc
      >>> model = jc.load("builtin:student")
      >>> months = jc.tasks.get("months", model.tokenizer, 4, jax.random.key(0))
      >>> len(stream(model, [months], 1)) == int(months.attention_mask.sum())
      True
    """
    check.integer("layer", layer, 0, model.config.layers)
    found = []
    for batch in batches:
        x = _entering(model.apply, layer, model.params, batch.tokens, batch.attention_mask)
        found.append(np.asarray(x)[np.asarray(batch.attention_mask) > 0])
    if not sum(map(len, found)):
        raise check.fail("batches", "at least one token", "none")
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _entering(apply: Any, layer: int, params: Any, tokens: Any, mask: Any) -> jax.Array:
    out = apply(params, tokens, attention_mask=mask, taps=("resid",))
    return out.taps["resid"][layer].astype(jnp.float32)


def scale(x: Any) -> float:
    """The number that activations (token, width) times it have a mean |x|^2 of the width.

    With it coefficients of sparsity mean the same for every layer and model.

    Raises:
      ValueError: for activations that are not finite, or all 0.

    Reference:
      Templeton et al. 2024, Scaling Monosemanticity.

    Example:
      >>> scale(np.full((3, 4), 2.0))
      0.5
    """
    size = float(np.mean(np.square(x, dtype=np.float64)))
    if not 0 < size < np.inf:
        raise check.fail("x", "finite activations that are not all 0", f"a mean square of {size}")
    return size**-0.5
