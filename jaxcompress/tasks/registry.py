"""Prompt families by name: texts without a tokenizer, or token batches with one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxcompress import check
from jaxcompress.tasks import (
    associative_recall,
    facts,
    greater_than,
    induction,
    ioi,
    linear_function,
    sequences,
)
from jaxcompress.tasks.encoding import Encoded, RefusalError, collate, encode_pair, reasons
from jaxcompress.tasks.pairs import TextPair, generator
from jaxcompress.tasks.prompts import Prompts
from jaxcompress.tasks.shifts import SHIFTS
from jaxcompress.tasks.tokens import Reader, Tokenizer, reader

__all__ = ["NAMES", "TEXTS", "get", "shifted", "texts"]

_TEXTS: dict[str, Callable[..., tuple[TextPair, ...]]] = {
    **{name: functools.partial(sequences.pairs, members=name) for name in sequences.MEMBERS},
    "ioi": ioi.pairs,
    "greater_than": greater_than.pairs,
    "linear_function": linear_function.pairs,
    "known_facts": facts.pairs,
}

_TOKENS: dict[str, Callable[..., Prompts]] = {
    "induction": induction.prompts,
    "associative_recall": associative_recall.prompts,
}

TEXTS: tuple[str, ...] = tuple(_TEXTS)
"""The families that are text."""

NAMES: tuple[str, ...] = (*_TEXTS, *_TOKENS)
"""The families `get` knows: those, and the ones of random tokens."""

# How many more pairs are made, as multiples of `count`, before too few usable ones are an error.
_ROUNDS = (1, 4, 16)


def _options(name: str, function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    fixed = {"members", "context"}  # given by the name of the family, or by `get` itself
    allowed = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - fixed
    for option in options:
        if option not in allowed:
            listed = ", ".join(sorted(allowed)) or "none"
            raise check.fail(f"tasks.get({name!r})", f"options: {listed}", repr(option))
    return options


def texts(name: str, count: int, key: Any, **options: Any) -> tuple[TextPair, ...]:
    """The pairs of a family as text, before any tokenizer has refused some.

    Args:
      name: one of `TEXTS`.
      count: how many pairs.
      key: a typed key, `jax.random.key(seed)`.
      **options: of the family's `pairs`, such as `order` for "ioi" or `path` for "known_facts".

    Returns:
      `count` pairs, or fewer where the family has no more.

    Example:
      >>> import jax
      >>> texts("numerals", 1, jax.random.key(0))[0].correct
      (' 5',)
    """
    make = _TEXTS[check.known("task", name, _TEXTS)]
    count = check.integer("count", count, 1)
    return make(count, generator(key), **_options(name, make, options))


def _collect(
    make: Callable[..., tuple[TextPair, ...]], read: Reader, count: int, *, strict: bool
) -> tuple[dict[TextPair, Encoded], list[RefusalError]]:
    """Draws pairs in growing rounds until `count` usable ones have different clean prompts."""
    kept: dict[TextPair, Encoded] = {}
    refused: dict[TextPair, RefusalError] = {}
    clean: set[str] = set()
    for factor in _ROUNDS:
        asked = factor * max(count, 8)
        drawn = make(asked)
        for pair in drawn:
            if pair in kept or pair in refused:
                continue
            result = encode_pair(pair, read)
            if isinstance(result, Encoded):
                kept[pair] = result
                clean.add(pair.clean)
            else:
                refused[pair] = result
                if strict and result.multi_token:
                    raise check.fail("answers", "single tokens (on_multi_token='error')", result)
            if len(clean) >= count:
                return kept, list(refused.values())
        if len(drawn) < asked:
            break  # the family has no more
    return kept, list(refused.values())


def _first(kept: dict[TextPair, Encoded], count: int) -> list[Encoded]:
    """`count` of them; a clean prompt comes again only if there are not enough different ones."""
    fresh = {pair.clean: encoded for pair, encoded in reversed(kept.items())}
    once = [encoded for pair, encoded in kept.items() if fresh[pair.clean] is encoded]
    again = [encoded for pair, encoded in kept.items() if fresh[pair.clean] is not encoded]
    return [*once, *again][:count]


def get(
    name: str,
    tokenizer: Tokenizer,
    count: int,
    key: Any,
    *,
    on_multi_token: str = "filter",
    context: int | None = None,
    padding_side: str = "right",
    **options: Any,
) -> Prompts:
    """A batch of clean and corrupted prompts with their answers, for any tokenizer.

    Args:
      name: "numerals", "number_words", "months", "ioi", "greater_than", "linear_function",
        "known_facts", "induction" or "associative_recall"; each module says which paper it follows.
      tokenizer: a Hugging Face tokenizer or one like it (`Tokenizer`). With a mask token the
        prompts are for a masked language model.
      count: how many prompts. They differ, unless a small family of facts has no more.
      key: a typed key, `jax.random.key(seed)`; the same key gives the same prompts.
      on_multi_token: "filter" passes over prompts whose answer is more than one token and draws
        others, "error" raises at the first.
      context: longest prompt the model takes, in tokens; a longer one is an error.
      padding_side: "right" or "left".
      **options: of the family's `pairs` or `prompts`: `order` for "ioi", `path` for "known_facts",
        `length` for "induction" and so on. `SHIFTS` has some.

    Returns:
      `Prompts` with `count` rows, validated.

    Raises:
      ValueError: for an unknown name or option, a legacy key, or if this tokenizer leaves fewer
        than `count` prompts: the message says how many there were and why others were refused.

    Example:
      >>> import jax
      >>> vocab = {}
      >>> def by_word(text):
      ...     words = text.replace(".", " .").split()
      ...     return {"input_ids": [vocab.setdefault(word, len(vocab)) for word in words]}
      >>> get("numerals", by_word, 4, jax.random.key(0)).tokens.shape
      (4, 23)
    """
    check.known("task", name, NAMES)
    check.known("on_multi_token", on_multi_token, ("error", "filter"))
    check.known("padding_side", padding_side, ("left", "right"))
    if tokenizer is None:
        raise check.fail("tokenizer", "one, to write prompts with", "None")
    count, rng = check.integer("count", count, 1), generator(key)
    if name in _TOKENS:
        tokens = _TOKENS[name]
        options = _options(name, tokens, options)
        return tokens(tokenizer, count, rng, context=context, **options).validate()
    make = _TEXTS[name]
    draw = functools.partial(make, rng=rng, **_options(name, make, options))
    read = reader(tokenizer)
    kept, refused = _collect(draw, read, count, strict=on_multi_token == "error")
    if len(kept) < count:
        expected = f"{count} prompts with single-token answers under this tokenizer"
        got = f"{len(kept)} of {len(kept) + len(refused)}"
        raise check.fail(name, expected, got, reasons(refused))
    encoded = _first(kept, count)
    return collate(encoded, read, context=context, padding_side=padding_side).validate()


def shifted(
    name: str, tokenizer: Tokenizer, count: int, key: Any, *, context: int | None = None
) -> tuple[dict[str, Prompts], dict[str, str]]:
    """Prompts of every shift of a task.

    Args:
      name: of the task.
      tokenizer: as in `get`.
      count: prompts of each.
      key: a typed key.
      context: as in `get`.

    Returns:
      By shift the prompts; and by shift why there are none, for this tokenizer or context.

    Example:
      >>> import jax
      >>> vocab = {}
      >>> def by_word(text):
      ...     words = text.replace(".", " .").split()
      ...     return {"input_ids": [vocab.setdefault(word, len(vocab)) for word in words]}
      >>> found, refused = shifted("months", by_word, 4, jax.random.key(0))
      >>> {shift: prompts.tokens.shape for shift, prompts in found.items()}
      {'other verbs': (4, 23), 'swapped words': (4, 23), 'longer': (4, 33)}
    """
    found, refused = {}, {}
    for shift, options in SHIFTS.get(name, {}).items():
        try:
            found[shift] = get(name, tokenizer, count, key, context=context, **options)
        except ValueError as error:
            refused[shift] = str(error)
    return found, refused
