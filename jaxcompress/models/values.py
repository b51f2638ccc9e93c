"""Whether what a forward is given is there to be looked up."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxcompress import check
from jaxcompress.models.config import ModelConfig

__all__ = ["in_range"]


def in_range(
    config: ModelConfig,
    tokens: Any,
    *,
    attention_mask: Any = None,
    answer_position: Any = None,
    answer_tokens: Any = None,
    prefix: Any = None,
    **_: Any,
) -> None:
    """Raises for indices out of range, which XLA would wrap, clamp or turn into NaN.

    Args:
      config: of the model.
      tokens: as in `transformer.apply`, and so are the others.
      attention_mask: what it hides may be any number.
      answer_position: within the prompt, after the prefix.
      answer_tokens: of the model's outputs.
      prefix: of earlier positions, that mask and answer position count too.
      **_: what else a forward is given.

    Raises:
      ValueError: for values that are known, not traced; naming the argument.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> in_range(config, [[3, 11]])
      Traceback (most recent call last):
      ...
      ValueError: tokens: expected integers in [0, 11), got 3 to 11
    """
    # Of a prefix with too few axes `transformer.apply` tells.
    earlier = 0 if prefix is None else sum(np.shape(jax.tree.leaves(prefix)[0])[2:3])
    values = np.asarray(tokens) if _known(tokens) else np.zeros(0)
    if _known(attention_mask):
        real = np.asarray(attention_mask)
        if not np.isin(real, (0, 1)).all():
            raise check.fail("attention_mask", "1 on tokens and 0 on padding", np.unique(real))
        real = real[..., earlier:]
        values = values[real == 1] if real.shape == values.shape else values
    elif attention_mask is not None:
        values = np.zeros(0)  # of which nobody knows what is hidden
    length = earlier + (np.shape(tokens) or (0,))[-1]
    _within("tokens", values, config.vocab)
    _within("answer_position", answer_position, length, start=earlier)
    _within("answer_tokens", answer_tokens, config.outputs or config.vocab)


def _within(name: str, given: Any, stop: int, start: int = 0) -> None:
    values = np.asarray(given) if _known(given) else np.zeros(0)
    if values.size and not start <= values.min() <= values.max() < stop:
        got = f"{values.min()} to {values.max()}"
        raise check.fail(name, f"integers in [{start}, {stop})", got)


def _known(values: Any) -> bool:
    """Whether there are values, and here: not traced, nor on another host."""
    given = values is not None and not isinstance(values, Tracer)
    return given and getattr(values, "is_fully_addressable", True)
