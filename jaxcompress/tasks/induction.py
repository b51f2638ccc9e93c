"""Induction: a random sequence comes again; the token that followed last time follows now.

Olsson et al. 2022, "In-context Learning and Induction Heads" (arXiv 2209.11895), section 2. Works
on token ids, so it needs no text and suits a vocabulary of 27 as well as one of 50,257.
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
    length: int = 10,
    repeat: int | None = None,
    vocabulary: Sequence[int] | None = None,
    context: int | None = None,
) -> Prompts:
    """Repeated random tokens: `[bos] s_1 ... s_n s_1 ... s_m`, answer `s_(m+1)`.

    All n tokens differ, so the answer is determined. In the corrupted prompt the first copy is made
    of n other tokens: nothing has been seen before, and the answer is not in the prompt at all. The
    wrong answer is a token of the sequence, neither the answer nor the last token.

    Args:
      tokenizer: tells the ordinary ids and the special tokens around a text; no text is encoded.
      count: how many prompts.
      rng: consumed.
      length: n, at least 3; the vocabulary must have 2 n ordinary tokens.
      repeat: m, in [1, n - 1]; half of n by default. The same for all prompts, which are therefore
        equally long.
      vocabulary: ids to draw from; by default all but special and reserved ones.
      context: longest prompt the model takes, in tokens.

    Returns:
      `count` different prompts of 1 + n + m tokens (one more with a mask, n + m without a bos).

    Raises:
      ValueError: for a vocabulary or context too small for `length`.

    Example:
      >>> class Letters:
      ...     vocab_size, bos_token_id, all_special_ids = 27, 0, [0]
      ...     def __call__(self, text): return {"input_ids": [0]}
      >>> batch = prompts(Letters(), 2, np.random.default_rng(0), length=4, repeat=2)
      >>> batch.tokens.shape, bool((batch.tokens[:, 1:3] == batch.tokens[:, 5:7]).all())
      ((2, 7), True)
    """
    check.integer("count", count, 1)
    check.integer("length", length, 3)
    repeat = check.integer("repeat", length // 2 if repeat is None else repeat, 1, length - 1)
    ids = tokens.vocabulary(tokenizer, vocabulary, "length", length)

    def draw() -> tuple[list[int], list[int], int, int]:
        # The corrupted half takes as many other tokens.
        drawn = [int(token) for token in rng.choice(ids, size=2 * length, replace=False)]
        sequence, others = drawn[:length], drawn[length:]
        seen, right = sequence[:repeat], sequence[repeat]
        wrong = int(rng.choice([t for t in sequence if t not in (right, seen[-1])]))
        return sequence + seen, others + seen, right, wrong

    hint = f"A length of {length} over {ids.size} tokens gives few sequences"
    return different(draw, count, tokenizer, context=context, hint=hint)
