"""Text before tokens: a clean and a corrupted prompt with their answers, and how they are drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcompress import check

__all__ = ["TextPair", "distinct", "generator"]


@dataclasses.dataclass(frozen=True)
class TextPair:
    """One prompt, its corrupted twin and its answers, as text.

    Answers are written exactly as they continue the prompt, so `prompt + answer` is the sentence:
    " 5" starts a new word, the "45" of "... to the year 17" goes on with the last one.

    Attributes:
      clean: the prompt, without the answer.
      corrupted: the same prompt with the deciding facts changed.
      correct: the right answers to `clean`, at least one.
      wrong: the wrong answers to `clean`, at least one.
      in_prompt: answers that `clean` itself must contain as tokens of their own. The mechanism the
        task is about reads them there, so a tokenizer that glues them to something is refused.

    Example:
      >>> TextPair("one two", "nine two", (" three",), (" two",)).correct
      (' three',)
    """

    clean: str
    corrupted: str
    correct: tuple[str, ...]
    wrong: tuple[str, ...]
    in_prompt: tuple[str, ...] = ()


def generator(key: Any) -> np.random.Generator:
    """The NumPy generator that belongs to a JAX key; equal keys give equal prompts.

    Args:
      key: one typed key, `jax.random.key(seed)`.

    Raises:
      ValueError: for a legacy uint32 key, a batch of keys or anything else.

    Example:
      >>> int(generator(jax.random.key(0)).integers(10)) in range(10)
      True
    """
    data = jax.random.key_data(check.key("key", key))
    return np.random.default_rng(np.asarray(data).ravel().tolist())


def distinct(draw: Callable[[int], TextPair], count: int) -> tuple[TextPair, ...]:
    """`count` pairs with different clean prompts, or fewer where the family has no more.

    Args:
      draw: makes a random pair; gets how many have been kept, so that a family can go through its
        variants in turn and stay balanced whatever is thrown away.
      count: how many pairs.

    Example:
      >>> same = TextPair("a", "b", (" c",), (" d",))
      >>> len(distinct(lambda i: same, 3))
      1
    """
    kept: dict[str, TextPair] = {}
    # Without a bound a family smaller than `count` would be drawn from for ever.
    for _ in range(20 * count + 100):
        if len(kept) == count:
            break
        pair = draw(len(kept))
        kept.setdefault(pair.clean, pair)
    return tuple(kept.values())
