"""What a model with an adapter answers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress.tasks.prompts import Prompts

__all__ = ["forward"]


def forward(apply: Any, params: Any, prompts: Prompts, lora: Any, **options: Any) -> jax.Array:
    """(batch, vocab) logits at the answers, of any `apply` that takes `lora`.

    Example:
      >>> from jaxcompress.types import Output
      >>> def apply(params, tokens, attention_mask=None, lora=None):
      ...     return Output(params[tokens], {})
      >>> row = jnp.ones((1, 1), int)
      >>> prompts = Prompts(row, row, row, 0 * row[:, 0], row, row)
      >>> forward(apply, jnp.eye(2), prompts, None).tolist()
      [[0.0, 1.0]]
    """
    mask = prompts.attention_mask
    logits = apply(params, prompts.tokens, attention_mask=mask, lora=lora, **options).logits
    return jnp.take_along_axis(logits, prompts.answer_position[:, None, None], axis=1)[:, 0]
