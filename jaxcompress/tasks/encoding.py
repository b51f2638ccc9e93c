"""From texts to token batches, for any tokenizer: what cannot be measured with it is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.tasks import tokens
from jaxcompress.tasks.pairs import TextPair
from jaxcompress.tasks.prompts import Prompts
from jaxcompress.tasks.tokens import Reader, Tokenizer

__all__ = [
    "Encoded",
    "RefusalError",
    "collate",
    "different",
    "encode",
    "encode_pair",
    "reasons",
]


class Encoded(NamedTuple):
    """One pair as token ids; the two prompts are equally long and aligned."""

    clean: list[int]
    corrupted: list[int]
    position: int
    correct: list[int]
    wrong: list[int]


class RefusalError(ValueError):
    """Why a pair cannot be used with a tokenizer; raised inside, returned by `encode_pair`."""

    def __init__(self, reason: str, *, multi_token: bool = False, merged: bool = False):
        super().__init__(reason)
        self.multi_token = multi_token
        self.merged = merged


def _template(pair: TextPair, reader: Reader) -> tuple[str, str]:
    """What comes after a prompt in place of the answer, and what comes after the answer."""
    if reader.mask is None:
        return "", ""
    gap = " " if pair.correct[0].startswith(" ") else ""
    return f"{gap}{reader.mask}.", "."


def _tokens(
    pair: TextPair, answers: Sequence[str], base: list[int], position: int, reader: Reader
) -> dict[str, int | RefusalError]:
    """The one token that each answer adds to the prompt, or why it adds none."""
    after = _template(pair, reader)[1]
    filled = tokens.all_ids(reader, [pair.clean + answer + after for answer in answers])
    # A mask is replaced by the answer; a causal prompt is continued by it.
    start = position if after else position + 1
    rest = base[position + 1 :]
    return {
        answer: _token(answer, ids, base[:start], rest, reader)
        for answer, ids in zip(answers, filled, strict=True)
    }


def _token(
    answer: str, filled: list[int], before: list[int], after: list[int], reader: Reader
) -> int | RefusalError:
    """That token: what stands between what is before the answer and what is after it."""
    start, end = len(before), len(filled) - len(after)
    if filled[:start] != before or filled[end:] != after or end <= start:
        reason = f"{answer!r} merges with the text around it"
        return RefusalError(reason, multi_token=True, merged=True)
    if end - start > 1:
        listed = tokens.show(reader.tokenizer, filled[start:end])
        return RefusalError(f"{answer!r} is {end - start} tokens ({listed})", multi_token=True)
    if filled[start] == reader.unknown:
        return RefusalError(f"{answer!r} is not in the vocabulary")
    return filled[start]


def _answer_tokens(
    pair: TextPair, base: list[int], position: int, reader: Reader
) -> tuple[list[int], list[int]]:
    """The tokens of each side; alternatives that are no single token are left out."""
    # First, because they decide most: a hundred years are not tried where 1732 is one token.
    for answer, token in _tokens(pair, pair.in_prompt, base, position, reader).items():
        if isinstance(token, RefusalError):
            raise token
        if token not in base:
            raise RefusalError(f"{answer!r} is no token of its own inside the prompt")
    found = _tokens(pair, (*pair.correct, *pair.wrong), base, position, reader)
    correct, wrong = (_usable(side, found, reader) for side in (pair.correct, pair.wrong))
    if set(correct) & set(wrong):
        raise RefusalError(f"{pair.correct[0]!r} and {pair.wrong[0]!r} share a token")
    return correct, wrong


def _usable(
    side: tuple[str, ...], known: Mapping[str, int | RefusalError], reader: Reader
) -> list[int]:
    """The tokens of the alternatives that have one; a `RefusalError` if none has."""
    found: dict[str, int] = {}
    refusals: dict[str, RefusalError] = {}
    for answer in side:
        token = known[answer]
        if isinstance(token, RefusalError):
            refusals[answer] = token
        else:
            found[answer] = token
    if not found:
        raise next(iter(refusals.values()))
    # GPT-2 writes 1700 as one token, so "00" never follows "17" in its text, but its token "00" is
    # a year like the others and the literature counts it. Taken only if tokens of this kind are the
    # same alone and in the middle of a word, which WordPiece's and SentencePiece's are not.
    first = next(iter(found))
    if _alone(first, reader) == found[first]:
        merged = {a: _alone(a, reader) for a, refusal in refusals.items() if refusal.merged}
        found |= {answer: token for answer, token in merged.items() if token is not None}
    return [found[answer] for answer in side if answer in found]


def _alone(answer: str, reader: Reader) -> int | None:
    """The token of an answer that continues a word, tokenised on its own; `None` if not one."""
    if answer.startswith(" ") or reader.mask is not None:
        return None
    ids = [i for i in tokens.prompt_ids(reader, answer) if i not in reader.trailing]
    return ids[0] if len(ids) == 1 and ids[0] != reader.unknown else None


def _changes(clean: str, corrupted: str) -> list[tuple[str, str]]:
    """For every run of changed words, both texts up to its end."""
    left, right = clean.split(" "), corrupted.split(" ")
    if len(left) != len(right):
        return []  # one run is all we can know of, and for one run equal length is alignment
    differs = [a != b for a, b in zip(left, right, strict=True)] + [False]
    ends = [i + 1 for i in range(len(left)) if differs[i] and not differs[i + 1]]
    return [(" ".join(left[:end]), " ".join(right[:end])) for end in ends]


def _check_alignment(pair: TextPair, reader: Reader) -> None:
    # Equal total length is not enough: one name a token longer and the next one a token shorter
    # would shift everything between them, and patching would mix up positions.
    texts = [text for both in _changes(pair.clean, pair.corrupted) for text in both]
    ids = tokens.all_ids(reader, texts)
    for i in range(0, len(texts), 2):
        if len(ids[i]) != len(ids[i + 1]):
            ends = [text.split(" ")[-1] for text in texts[i : i + 2]]
            raise RefusalError(f"{ends[0]!r} and {ends[1]!r} differ in token count")


def _encode(pair: TextPair, reader: Reader) -> Encoded:
    slot = _template(pair, reader)[0]
    clean, corrupted = tokens.all_ids(reader, [pair.clean + slot, pair.corrupted + slot])
    if reader.unknown in {*clean, *corrupted}:
        raise RefusalError("words of the prompt are not in the vocabulary")
    position = len(clean) - 1
    if slot:
        places = [i for i, token in enumerate(clean) if token == reader.mask_id]
        if len(places) != 1:
            raise RefusalError(f"{reader.mask!r} is there {len(places)} times, not once")
        position = places[0]
    correct, wrong = _answer_tokens(pair, clean, position, reader)
    if len(clean) != len(corrupted):
        raise RefusalError(f"clean and corrupted are {len(clean)} and {len(corrupted)} tokens long")
    if clean == corrupted:
        raise RefusalError("clean and corrupted are the same tokens")
    if slot and corrupted[position] != reader.mask_id:
        raise RefusalError(f"{reader.mask!r} is elsewhere in the corrupted prompt")
    _check_alignment(pair, reader)
    return Encoded(clean, corrupted, position, correct, wrong)


def encode_pair(pair: TextPair, reader: Reader) -> Encoded | RefusalError:
    """Tokenises one pair, or says why it cannot be used; see `encode` for the rules.

    Example:
      >>> letters = tokens.reader(lambda text: {"input_ids": [ord(letter) for letter in text]})
      >>> encode_pair(TextPair("ab", "xb", ("cd",), ("b",)), letters)
      RefusalError("'cd' is 2 tokens (99 100)")
    """
    try:
        return _encode(pair, reader)
    except RefusalError as refusal:
        return refusal


def reasons(refusals: Iterable[RefusalError], limit: int = 4) -> str:
    """The most frequent reasons of refusal, for an error message.

    Example:
      >>> reasons([RefusalError("' 5' is 2 tokens"), RefusalError("' 5' is 2 tokens")])
      "' 5' is 2 tokens (2x)"
    """
    counted = Counter(str(refusal) for refusal in refusals).most_common(limit)
    return "; ".join(f"{reason} ({times}x)" for reason, times in counted)


def _pad(rows: Sequence[Sequence[int]], value: int, side: str = "right") -> np.ndarray:
    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest), value, np.int32)
    for i, row in enumerate(rows):
        start = 0 if side == "right" else longest - len(row)
        padded[i, start : start + len(row)] = row
    return padded


def collate(
    encoded: Sequence[Encoded],
    reader: Reader,
    *,
    context: int | None = None,
    padding_side: str = "right",
) -> Prompts:
    """Pads encoded pairs to one batch; arguments and errors as in `encode`.

    Example:
      >>> rows = [Encoded([5, 6], [7, 6], 1, [8], [9]), Encoded([5], [7], 0, [8], [9])]
      >>> collate(rows, tokens.reader(lambda text: {"input_ids": []})).tokens.tolist()
      [[5, 6], [5, 0]]
    """
    check.known("padding_side", padding_side, ("left", "right"))
    longest = max(len(row.clean) for row in encoded)
    if context is not None and longest > context:
        hint = "The model's context is too short for this task"
        raise check.fail("prompts", f"at most {context} tokens", f"{longest} tokens", hint)
    shifts = [longest - len(row.clean) if padding_side == "left" else 0 for row in encoded]
    fill = reader.padding
    return Prompts(
        tokens=jnp.asarray(_pad([row.clean for row in encoded], fill, padding_side)),
        corrupted=jnp.asarray(_pad([row.corrupted for row in encoded], fill, padding_side)),
        attention_mask=jnp.asarray(
            _pad([[1] * len(row.clean) for row in encoded], 0, padding_side)
        ),
        answer_position=jnp.asarray(
            [row.position + shift for row, shift in zip(encoded, shifts, strict=True)], jnp.int32
        ),
        correct=jnp.asarray(_pad([row.correct for row in encoded], -1)),
        wrong=jnp.asarray(_pad([row.wrong for row in encoded], -1)),
    )


def encode(
    pairs: Sequence[TextPair],
    tokenizer: Tokenizer,
    *,
    on_multi_token: str = "filter",
    context: int | None = None,
    padding_side: str = "right",
) -> Prompts:
    """Tokenises pairs with any tokenizer, causal or masked.

    A pair is used if its answers are one token each, the clean and the corrupted prompt have equal
    token counts up to every changed word, and no word is unknown. Of a set of alternatives (the
    years of greater-than) those that are no single token are left out, as long as one remains on
    each side; one that merges with the word it continues is looked up on its own. With a tokenizer
    that has a mask token the text is `prompt + " " + mask + "."`.

    Args:
      pairs: the texts.
      tokenizer: see `Tokenizer`.
      on_multi_token: "filter" drops pairs whose answer is more than one token, "error" raises.
      context: longest prompt the model takes, in tokens.
      padding_side: "right" or "left".

    Returns:
      `Prompts` of the usable pairs, in order; int32 arrays.

    Raises:
      ValueError: if no pair is usable, if a prompt is longer than `context`, or for a multi-token
        answer if `on_multi_token` is "error". The message names the answers and their pieces.

    Example:
      >>> letters = lambda text: {"input_ids": [ord(letter) for letter in text]}
      >>> prompts = encode([TextPair("ab", "xb", ("c",), ("b",))], letters)
      >>> prompts.tokens.tolist(), prompts.correct.tolist(), prompts.answer_position.tolist()
      ([[97, 98]], [[99]], [1])
    """
    check.known("on_multi_token", on_multi_token, ("error", "filter"))
    reader = tokens.reader(tokenizer)
    results = [encode_pair(pair, reader) for pair in pairs]
    refusals = [result for result in results if isinstance(result, RefusalError)]
    kept = [result for result in results if isinstance(result, Encoded)]
    if on_multi_token == "error" and any(refusal.multi_token for refusal in refusals):
        refused = [refusal for refusal in refusals if refusal.multi_token]
        got = f"{len(refused)} of {len(results)} prompts without"
        raise check.fail("answers", "single tokens (on_multi_token='error')", got, reasons(refused))
    if not kept:
        expected = "at least one prompt with single-token answers under this tokenizer"
        raise check.fail("pairs", expected, f"0 of {len(results)}", reasons(refusals))
    return collate(kept, reader, context=context, padding_side=padding_side)


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens of the tokenizer before a prompt; its mask, if any, and what is behind."""
    around = [int(token) for token in tokenizer("")["input_ids"]]
    starts = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "cls")}
    before = around[:1] if around and around[0] in starts else []
    mask = getattr(tokenizer, "mask_token_id", None)
    return before, [] if mask is None else [mask, *around[len(before) :]]


def different(
    draw: Callable[[], tuple[Sequence[int], Sequence[int], int, int]],
    count: int,
    tokenizer: Tokenizer,
    *,
    context: int | None = None,
    hint: str,
) -> Prompts:
    """`count` prompts of token ids that differ, with the special tokens of the tokenizer around.

    Args:
      draw: makes one: clean and corrupted ids, the right and the wrong answer.
      count: how many.
      tokenizer: see `encode`; with a mask token, the answer belongs there, behind the prompt.
      context: longest prompt the model takes, in tokens.
      hint: why there may be too few.

    Raises:
      ValueError: if so many different ones do not turn up, or they are longer than the context.

    Example:
      >>> class Letters:
      ...     bos_token_id, all_special_ids = 0, [0]
      ...     def __call__(self, text): return {"input_ids": [0]}
      >>> prompts = different(lambda: ([7, 8], [9, 8], 1, 2), 1, Letters(), hint="There is one")
      >>> prompts.tokens.tolist(), prompts.corrupted.tolist(), prompts.answer_position.tolist()
      ([[0, 7, 8]], [[0, 9, 8]], [2])
    """
    before, after = _frame(tokenizer)
    rows: dict[tuple[int, ...], Encoded] = {}
    for _ in range(20 * count + 100):
        if len(rows) == count:
            break
        clean, corrupted, right, wrong = draw()
        whole, changed = ([*before, *ids, *after] for ids in (clean, corrupted))
        position = len(before) + len(clean) - (0 if after else 1)
        rows.setdefault(tuple(whole), Encoded(whole, changed, position, [right], [wrong]))
    if len(rows) < count:
        raise check.fail("count", f"at most {len(rows)}", count, hint)
    return collate(list(rows.values()), tokens.reader(tokenizer), context=context)
