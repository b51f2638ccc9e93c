"""What a model with an adapter answers."""

from __future__ import annotations

import inspect
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
    options |= {"attention_mask": prompts.attention_mask, "lora": lora}
    if "answer_position" in inspect.signature(apply).parameters:
        # The unembedding of one position, where it is most of a small model's work.
        options["answer_position"] = prompts.answer_position
        return apply(params, prompts.tokens, **options).logits
    logits = apply(params, prompts.tokens, **options).logits
    return jnp.take_along_axis(logits, prompts.answer_position[:, None, None], axis=1)[:, 0]
