"""Addition modulo a number, as prompts: a, b (and "=") -> a + b.

Nanda et al. 2023 (arXiv 2301.05217), section 3; Zhong et al. 2023 (arXiv 2306.17844), section 2,
whose networks see no "=".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcompress import check
from jaxcompress.tasks.prompts import Prompts, others

__all__ = ["prompts", "variables"]


def prompts(
    modulus: int, *, equals: bool = True, count: int | None = None, seed: int = 0
) -> Prompts:
    """Pairs of numbers, all of them or a random draw; corrupted by other pairs.

    Args:
      modulus: p; the numbers are the tokens 0 to p - 1.
      equals: whether the token p comes last, and the answer is read there.
      count: how many different pairs; `None` is all p * p, in order.
      seed: of the draw and the corruption.

    Returns:
      (count, 2 or 3) tokens; the wrong answers are all other numbers.

    Example:
      >>> batch = prompts(5, count=2)
      >>> batch.tokens.shape, batch.wrong.shape
      ((2, 3), (2, 4))
    """
    check.integer("modulus", modulus, 3)
    rng = np.random.default_rng(seed)
    chosen = np.arange(modulus**2)
    if count is not None:
        check.integer("count", count, 1, modulus**2)
        chosen = np.sort(rng.permutation(modulus**2)[:count])
    tokens = np.stack(np.divmod(chosen, modulus), axis=1).astype(np.int32)
    if equals:
        tokens = np.pad(tokens, ((0, 0), (0, 1)), constant_values=modulus)
    right = tokens[:, :2].sum(axis=1, keepdims=True) % modulus
    wrong = (right + np.arange(1, modulus)[None]) % modulus
    last = np.full(len(tokens), tokens.shape[1] - 1, np.int32)
    mask = np.ones_like(tokens)
    return Prompts(tokens, tokens[others(len(tokens), rng)], mask, last, right, wrong)


def variables(batch: Prompts, modulus: int) -> dict[str, Any]:
    """(batch,) values of what an effect may depend on: a, b, a + b and a - b, modulo `modulus`.

    Example:
      >>> found = variables(prompts(3, count=1), 3)
      >>> bool((found["a"] + found["b"]) % 3 == found["a + b"])
      True
    """
    a, b = np.asarray(batch.tokens)[:, :2].T
    return {"a": a, "b": b, "a + b": (a + b) % modulus, "a - b": (a - b) % modulus}
