"""A synthetic language: the prompt families of `tasks`, completed, among filler text.

Made of documents: `<s>`, in one of four a filler sentence, then

* numerals, number words, months: five members in order; in one document of five they are in no
  order, so that to go on from the last member is not always right;
* IOI: the eight templates in both orders; the receiver is one of the two names before;
* greater-than: the end year is 1 to 30 years after the start year (and at most 99), so that the
  latest year is no good guess;
* facts: all 62, to be known by heart;
* induction: 4 to 14 different random tokens, again and again;
* filler: one to three sentences with nothing to work out.

Rows of a corpus are documents put one after the other, no family twice in a row, so that prompts
stand at many positions, and are filled up with filler.

Held out: the eighth of all prompts whose text has a CRC-32 divisible by 8 (`held_out`) is never
trained on, and `evaluation` draws from that eighth only. What is trained on, by contrast, has a
CRC-32 that is not, whatever the seed; so no number of seeds brings them together. This is about
text, and holds for all families but two: the facts, which cannot be known without being seen, and
induction, whose 10 random tokens out of several hundred do not come twice.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcompress import check, tasks
from jaxcompress.data import filler
from jaxcompress.tasks import facts, greater_than, ioi, sequences, words
from jaxcompress.tasks.pairs import generator
from jaxcompress.tasks.tokens import ordinary_ids

__all__ = ["SHARES", "Corpus", "Document", "corpus", "documents", "evaluation", "held_out", "texts"]

SHARES: Mapping[str, float] = {
    "numerals": 0.5,
    "number_words": 0.5,
    "months": 0.5,
    "ioi": 3.0,
    "greater_than": 1.5,
    "induction": 8.0,
    "known_facts": 0.5,
    "filler": 0.5,
}
"""How likely each family is to come next in a row, relative to the others."""

_FOLDS = 8
_LEAD = 0.25  # documents that start with a filler sentence
_DISORDER = 0.2  # sequences whose members are in no order
_FIRST_YEAR = 0.05  # greater-than from the year 01, which no prompt but the corrupted ones has
_LONGEST = 30  # years
_COPIES = (4, 14, 30)  # shortest and longest induction sequence, longest document
_SENTENCE = 5  # tokens of "Van done in 1 ."
_SPARE = 2  # evaluation draws so many times more than should be enough


class Document(NamedTuple):
    """Token ids, and which of them the text before determines (greater-than: limits)."""

    ids: Sequence[int]
    answers: Sequence[int]


class Corpus(NamedTuple):
    """Rows to train on.

    Attributes:
      tokens: (row, position) int32.
      answers: (row, position) bool, True on tokens that the text before determines.
    """

    tokens: np.ndarray
    answers: np.ndarray


def texts() -> tuple[str, ...]:
    """Texts that hold every word of the language: what `text.word_level` is to be made from.

    Example:
      >>> "The  lasted from the year  to the year " in texts()
      True
    """
    templates = (*ioi.TEMPLATES, *filler.TEMPLATES, *(fact.template for fact in facts.FACTS))
    lists = (words.THINGS, *filler.LISTS.values(), *sequences.MEMBERS.values())
    return (
        "done lost born in .",
        "The  lasted from the year  to the year ",
        *(re.sub(r"\{\w*\}", " ", template) for template in templates),
        *(f"{fact.subject} {fact.attribute}" for fact in facts.FACTS),
        *(word for options in lists for word in options),
    )


def held_out(text: str) -> bool:
    """Whether a prompt belongs to the eighth that is never trained on.

    Example:
      >>> sum(held_out(f"{i} and") for i in range(8000))
      998
    """
    return zlib.crc32(text.encode()) % _FOLDS == 0


def evaluation(name: str, tokenizer: Any, count: int, key: Any, **options: Any) -> tasks.Prompts:
    """`tasks.get` without the prompts that may have been trained on.

    Args:
      name: of the family, see `tasks.NAMES`; facts and random tokens are not held out.
      tokenizer: see `tasks.Tokenizer`.
      count: how many prompts.
      key: a typed PRNG key.
      **options: as in `tasks.texts`; for families of random tokens as in `tasks.get`.

    Raises:
      ValueError: if so many different held-out prompts do not exist.

    Example:
      >>> from jaxcompress.data.text import word_level
      >>> evaluation("ioi", word_level(texts()), 2, jax.random.key(0)).correct.shape
      (2, 1)
    """
    if name == "known_facts" or name not in tasks.TEXTS:
        return tasks.get(name, tokenizer, count, key, **options)
    drawn = tasks.texts(name, _SPARE * _FOLDS * (count + _FOLDS), key, **options)
    kept = [pair for pair in drawn if held_out(pair.clean)][:count]
    if len(kept) < count:
        raise check.fail("count", f"at most {len(kept)} held-out prompts", count)
    return tasks.encode(kept, tokenizer).validate()


def documents(name: str, tokenizer: Any, count: int, key: Any) -> tuple[Document, ...]:
    """Documents of one family, none of which contains a held-out prompt.

    Args:
      name: one of `SHARES`.
      tokenizer: made by `text.word_level` from `texts()`.
      count: how many prompts are drawn; those that are held out are left out.
      key: a typed PRNG key, not one that `evaluation` gets, though that could do no harm.

    Example:
      >>> from jaxcompress.data.text import word_level
      >>> import jax
      >>> tokenizer = word_level(texts())
      >>> document = documents("months", tokenizer, 1, jax.random.key(0))[0]
      >>> tokenizer.decode([document.ids[i] for i in document.answers])
      'March April May'
    """
    check.known("family", name, SHARES)
    rng = generator(key)
    if name == "induction":
        return tuple(_repeats(tokenizer, count, rng))
    if name == "filler":
        lines = [" ".join(filler.sentences(int(n), rng)) for n in rng.integers(1, 4, size=count)]
        return tuple(Document(ids, ()) for ids in tokenizer(lines)["input_ids"])
    pairs = tasks.texts(name, count, key)
    if name == "known_facts":
        pairs = tuple({pair.clean: pair for pair in pairs}.values())
    else:
        pairs = tuple(pair for pair in pairs if not held_out(pair.clean))
    if not pairs:
        return ()
    complete = _COMPLETE.get(name, _with_answer)
    lines, places = zip(*(complete(pair, rng) for pair in pairs), strict=True)
    first = filler.sentences(len(lines), rng)
    leads = [f"{line} " if rng.random() < _LEAD else "" for line in first]
    whole = [lead + line for lead, line in zip(leads, lines, strict=True)]
    ids = tokenizer(whole)["input_ids"]
    return tuple(
        Document(row, tuple(len(row) - place for place in back))
        for row, back in zip(ids, places, strict=True)
    )


Completed = tuple[str, tuple[int, ...]]
"""A text, and how many tokens before its end the determined ones are."""


def _with_answer(pair: tasks.TextPair, rng: np.random.Generator) -> Completed:
    return f"{pair.clean}{pair.correct[0]}.", (2,)


def _sequence(pair: tasks.TextPair, rng: np.random.Generator) -> Completed:
    """The clean prompt and its successor, or the corrupted one and any member."""
    if rng.random() >= _DISORDER:
        return f"{pair.clean}{pair.correct[0]}.", (2 + 2 * _SENTENCE, 2 + _SENTENCE, 2)
    last = pair.wrong[0].strip()
    members = next(names for names in sequences.MEMBERS.values() if last in names)
    return f"{pair.corrupted} {members[rng.integers(len(members))]}.", ()


def _years(pair: tasks.TextPair, rng: np.random.Generator) -> Completed:
    text = pair.corrupted if rng.random() < _FIRST_YEAR else pair.clean
    start = greater_than.parse(text)[2]
    end = int(rng.integers(start + 1, min(start + _LONGEST, 99) + 1))
    return f"{text}{end:02d}.", (2,)


_COMPLETE: dict[str, Callable[[tasks.TextPair, np.random.Generator], Completed]] = {
    **dict.fromkeys(sequences.MEMBERS, _sequence),
    "greater_than": _years,
}


def _repeats(tokenizer: Any, count: int, rng: np.random.Generator) -> list[Document]:
    low, high, longest = _COPIES
    ids, found = np.asarray(ordinary_ids(tokenizer)), []
    for length in rng.integers(low, high + 1, size=count).tolist():
        # Not `choice(replace=False)`, which shuffles the whole vocabulary for every sequence.
        drawn = np.unique(rng.integers(len(ids), size=length))
        sequence = ids[rng.permutation(drawn)]
        size = min(longest, 3 * len(sequence))
        row = [tokenizer.bos_token_id, *np.resize(sequence, size).tolist()]
        found.append(Document(row, tuple(range(len(sequence) + 2, len(row)))))
    return found


def corpus(
    tokenizer: Any,
    rows: int,
    key: Any,
    *,
    context: int = 48,
    pool: int = 20_000,
    shares: Mapping[str, float] = SHARES,
) -> Corpus:
    """Rows of documents to train on.

    Args:
      tokenizer: made by `text.word_level` from `texts()`.
      rows: how many.
      key: a typed PRNG key.
      context: tokens of a row, at least the longest document (40).
      pool: documents of each family that the rows are put together from, again and again.
      shares: see `SHARES`; a family left out does not occur.

    Example:
      >>> from jaxcompress.data.text import word_level
      >>> import jax
      >>> found = corpus(word_level(texts()), 2, jax.random.key(0), pool=10)
      >>> found.tokens.shape, found.answers.dtype.name
      ((2, 48), 'bool')
    """
    check.integer("context", context, 40)
    keys = jax.random.split(key, len(shares) + 2)
    pools = [
        documents(name, tokenizer, check.integer("pool", pool, 1), family)
        for name, family in zip(shares, keys, strict=False)
    ]
    for name, found in zip(shares, pools, strict=True):
        if not found:
            raise check.fail("pool", f"enough for one document of {name!r}", pool)
    rest = documents("filler", tokenizer, pool, keys[-2])
    rng = generator(keys[-1])
    # Drawing without replacement by weight: the order of log-weights plus Gumbel noise.
    noise = rng.gumbel(size=(rows, len(shares))) + np.log(list(shares.values()))
    orders = np.argsort(-noise, axis=1).tolist()
    draws = rng.random((rows, len(shares))).tolist()
    tokens = np.zeros((rows, context), np.int32)
    answers = np.zeros((rows, context), bool)
    for i, (order, draw) in enumerate(zip(orders, draws, strict=True)):
        picked = [pools[j][int(draw[j] * len(pools[j]))] for j in order]
        end = _place(picked, tokens[i], answers[i])
        while end < context:
            ids = rest[rng.integers(len(rest))].ids[: context - end]
            tokens[i, end : end + len(ids)] = ids
            end += len(ids)
    return Corpus(tokens, answers)


def _place(picked: Sequence[Document], tokens: np.ndarray, answers: np.ndarray) -> int:
    """Writes the documents that fit whole, one after the other; returns where they end."""
    end = 0
    for document in picked:
        if end + len(document.ids) > len(tokens):
            continue
        tokens[end : end + len(document.ids)] = document.ids
        answers[[end + i for i in document.answers]] = True
        end += len(document.ids)
    return end
