"""Associative recall: pairs of random tokens, one of the keys again; its value follows.

Ba et al. 2016 (arXiv 1610.06258), section 4.1, and Arora et al. 2023 (arXiv 2312.04927), section 3,
with one question for each prompt. Works on token ids, as `induction` does, but position tells
nothing: any of the keys may be the one that comes again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcompress import check
from jaxcompress.tasks import tokens
from jaxcompress.tasks.encoding import different
from jaxcompress.tasks.prompts import Prompts
from jaxcompress.tasks.tokens import Tokenizer

__all__ = ["prompts"]


def prompts(
    tokenizer: Tokenizer,
    count: int,
    rng: np.random.Generator,
    *,
    pairs: int = 5,
    vocabulary: Sequence[int] | None = None,
    context: int | None = None,
) -> Prompts:
    """Keys and values: `[bos] k_1 v_1 ... k_n v_n k_i`, answer `v_i`.

    All 2 n tokens differ. In the corrupted prompt `v_i` and another value have changed places, and
    that one is the wrong answer: both stand in both prompts, and what differs is who belongs to
    whom.

    Args:
      tokenizer: tells the ordinary ids and the special tokens around a text; no text is encoded.
      count: how many prompts.
      rng: consumed.
      pairs: n, at least 2; the vocabulary must have 2 n ordinary tokens.
      vocabulary: ids to draw from; by default all but special and reserved ones.
      context: longest prompt the model takes, in tokens.

    Returns:
      `count` different prompts of 2 n + 2 tokens, one less without a bos; with a mask token, that
      and what the tokenizer puts behind it come after these.

    Raises:
      ValueError: for a vocabulary or context too small for `pairs`.

    Example:
      >>> class Letters:
      ...     vocab_size, bos_token_id, all_special_ids = 27, 0, [0]
      ...     def __call__(self, text): return {"input_ids": [0]}
      >>> batch = prompts(Letters(), 2, np.random.default_rng(0), pairs=3)
      >>> batch.tokens.shape, int((batch.tokens != batch.corrupted).sum())
      ((2, 8), 4)
    """
    check.integer("count", count, 1)
    check.integer("pairs", pairs, 2)
    ids = tokens.vocabulary(tokenizer, vocabulary, "pairs", pairs)

    def draw() -> tuple[list[int], list[int], int, int]:
        drawn = rng.choice(ids, size=(pairs, 2), replace=False)
        asked, other = rng.choice(pairs, size=2, replace=False)
        changed = drawn.copy()
        changed[[asked, other], 1] = drawn[[other, asked], 1]
        clean, corrupted = ([*one.ravel().tolist(), int(one[asked, 0])] for one in (drawn, changed))
        return clean, corrupted, int(drawn[asked, 1]), int(drawn[other, 1])

    hint = f"{pairs} pairs over {ids.size} tokens give few prompts"
    return different(draw, count, tokenizer, context=context, hint=hint)
