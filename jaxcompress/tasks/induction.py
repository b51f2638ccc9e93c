"""Induction: a random sequence comes again; the token that followed last time follows now.

Olsson et al. 2022, "In-context Learning and Induction Heads" (arXiv 2209.11895), section 2. Works
on token ids, so it needs no text and suits a vocabulary of 27 as well as one of 50,257.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcompress import check
from jaxcompress.tasks import tokens
from jaxcompress.tasks.encoding import Encoded, collate
from jaxcompress.tasks.prompts import Prompts
from jaxcompress.tasks.tokens import Tokenizer, reader

__all__ = ["prompts"]


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids before the sequence and those from the answer on: the tokenizer's special tokens."""
    around = [int(token) for token in tokenizer("")["input_ids"]]
    starts = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "cls")}
    before = around[:1] if around and around[0] in starts else []
    mask = reader(tokenizer).mask_id
    return before, [] if mask is None else [mask, *around[len(before) :]]


def _allowed(tokenizer: Tokenizer, vocabulary: Sequence[int] | None, length: int) -> np.ndarray:
    ids = np.unique(tokens.ordinary_ids(tokenizer) if vocabulary is None else list(vocabulary))
    if ids.size < 2 * length:
        hint = "The corrupted half takes as many other tokens; ask for a smaller length"
        got = f"{length} with {ids.size} ordinary tokens"
        raise check.fail("length", f"at most {ids.size // 2}", got, hint)
    return ids


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
    ids = _allowed(tokenizer, vocabulary, length)
    before, after = _frame(tokenizer)
    rows: dict[tuple[int, ...], Encoded] = {}
    for _ in range(20 * count + 100):
        if len(rows) == count:
            break
        drawn = [int(token) for token in rng.choice(ids, size=2 * length, replace=False)]
        sequence, others = drawn[:length], drawn[length:]
        seen, right = sequence[:repeat], sequence[repeat]
        wrong = int(rng.choice([t for t in sequence if t not in (right, seen[-1])]))
        clean = [*before, *sequence, *seen, *after]
        corrupted = [*before, *others, *seen, *after]
        position = len(before) + length + repeat - (0 if after else 1)
        rows.setdefault(tuple(clean), Encoded(clean, corrupted, position, [right], [wrong]))
    if len(rows) < count:
        hint = f"A length of {length} over {ids.size} tokens gives few sequences"
        raise check.fail("count", f"at most {len(rows)}", count, hint)
    return collate(list(rows.values()), tokens.reader(tokenizer), context=context)
