"""A function in context: the line through the examples, at one more place.

Garg et al. 2022, "What Can Transformers Learn In-Context? A Case Study of Simple Function Classes"
(arXiv 2208.01066), section 3, in words, as Vacareanu et al. 2024 (arXiv 2404.07544) ask language
models; in small whole numbers, which tokenizers have as single tokens:

    Input: 4, output: 11. Input: 9, output: 21. Input: 2, output: 7. Input: 6, output: -> " 15"
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcompress import check
from jaxcompress.tasks.pairs import TextPair, distinct

__all__ = ["INPUTS", "pairs"]

INPUTS: tuple[int, ...] = tuple(range(1, 13))
"""Where a function is asked for."""


def _render(function: tuple[int, int], shown: Sequence[int], asked: int) -> str:
    slope, offset = function
    examples = [f"Input: {x}, output: {slope * x + offset}." for x in shown]
    return " ".join([*examples, f"Input: {asked}, output:"])


def pairs(
    count: int,
    rng: np.random.Generator,
    *,
    shown: int = 5,
    slopes: Sequence[int] = (1, 2, 3, 4, 5),
    offsets: Sequence[int] = tuple(range(10)),
) -> tuple[TextPair, ...]:
    """Examples of a linear function and a question, corrupted by the outputs of another one.

    The inputs differ, so the answer stands nowhere among the outputs; two examples determine it.
    The wrong answer is what the other function gives.

    Args:
      count: how many pairs.
      rng: consumed.
      shown: examples, from 2 to one less than there are `INPUTS`.
      slopes: of the functions, whole numbers above 0.
      offsets: of the functions, whole numbers from 0.

    Returns:
      Pairs with different clean prompts, `count` of them or as many as there are.

    Raises:
      ValueError: for fewer than 2 examples or more than there are inputs, negative numbers, and
        fewer than two functions.

    Example:
      >>> [pair] = pairs(1, np.random.default_rng(0), shown=2, slopes=[2], offsets=[1, 3])
      >>> pair.clean
      'Input: 8, output: 17. Input: 7, output: 15. Input: 9, output:'
      >>> pair.correct, pair.wrong
      ((' 19',), (' 21',))
    """
    check.integer("shown", shown, 2, len(INPUTS) - 1)
    for name, values, least in (("slopes", slopes, 1), ("offsets", offsets, 0)):
        for value in values:
            check.integer(name, value, least)
    functions = sorted({(slope, offset) for slope in slopes for offset in offsets})
    if len(functions) < 2:
        raise check.fail("slopes, offsets", "those of at least two functions", len(functions))

    def draw(_: int) -> TextPair:
        *places, asked = (int(x) for x in rng.choice(INPUTS, size=shown + 1, replace=False))
        first = functions[rng.integers(len(functions))]
        # Never none: one of another offset, or where there is one offset of another slope.
        others = [other for other in functions if _at(other, asked) != _at(first, asked)]
        other = others[rng.integers(len(others))]
        right, wrong = (f" {_at(one, asked)}" for one in (first, other))
        return TextPair(
            _render(first, places, asked), _render(other, places, asked), (right,), (wrong,)
        )

    return distinct(draw, count)


def _at(function: tuple[int, int], x: int) -> int:
    return function[0] * x + function[1]
