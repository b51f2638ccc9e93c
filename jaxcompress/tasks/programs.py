"""Every sequence over a few symbols: inputs for programs compiled into transformers.

Lindner et al. 2023 (arXiv 2301.05062), section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.tasks.prompts import Prompts, others

__all__ = ["prompts"]


def prompts(logits: Callable[[Any], Any], symbols: int, length: int, *, seed: int = 0) -> Prompts:
    """All sequences after the start token 0; right is what the program itself answers at the end.

    Args:
      logits: from (batch, position) tokens to (batch, position, answer) logits of the program.
      symbols: the tokens 1 to `symbols`.
      length: of a sequence, without the start token.
      seed: of the corrupted prompts, which are the same sequences in another order.

    Returns:
      symbols ** length prompts; all other answers are wrong.

    Example:
      >>> batch = prompts(lambda tokens: jnp.eye(4)[tokens], 3, 2)
      >>> batch.tokens.shape, batch.correct[:3, 0].tolist()
      ((9, 3), [1, 2, 3])
    """
    check.integer("symbols", symbols, 1)
    grid = np.indices((symbols,) * check.integer("length", length, 1)).reshape(length, -1).T + 1
    tokens = np.pad(grid, ((0, 0), (1, 0))).astype(np.int32)
    answers = np.asarray(jnp.asarray(logits(tokens)))[:, -1]
    right = answers.argmax(axis=1)[:, None]
    wrong = (right + np.arange(1, answers.shape[1])[None]) % answers.shape[1]
    last = np.full(len(tokens), length, np.int32)
    other = tokens[others(len(tokens), np.random.default_rng(seed))]
    return Prompts(tokens, other, np.ones_like(tokens), last, right, wrong)
