"""Greater-than: a thing that began in 1732 ended in a year 17yy with yy above 32.

Hanna, Liu and Variengien 2023 (arXiv 2305.00586), section 2; template, centuries 11 to 17 and
start years 02 to 98 as in the data of EAP-IG (Hanna, Pezzelle and Belinkov 2024, 2403.17806).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from jaxcompress import check
from jaxcompress.tasks import words
from jaxcompress.tasks.pairs import TextPair, distinct

__all__ = ["CENTURIES", "TEMPLATE", "YEARS", "answers", "pairs", "parse"]

CENTURIES: tuple[int, ...] = tuple(range(11, 18))
YEARS: tuple[int, ...] = tuple(range(2, 99))
"""Start years: 01 is the corrupted one, and 99 would leave no right answer."""

TEMPLATE = "The {event} lasted from the year {century}{year:02d} to the year {century}"
"""The published sentence."""

_PATTERN = re.compile(r"The (\w+) lasted from the year (\d\d)(\d\d) to the year (\d\d)")


def parse(text: str) -> tuple[str, int, int]:
    """The event, the century and the start year of a prompt; another text is a `ValueError`.

    Example:
      >>> parse("The war lasted from the year 1732 to the year 17")
      ('war', 17, 32)
    """
    match = _PATTERN.fullmatch(text)
    if match is None or match[2] != match[4]:
        raise check.fail("text", "'The X lasted from the year CCYY to the year CC'", repr(text))
    return match[1], int(match[2]), int(match[3])


def answers(year: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All two-digit years above `year`, and all from 00 up to and including it.

    Example:
      >>> right, wrong = answers(97)
      >>> right, len(wrong), wrong[-1]
      (('98', '99'), 98, '97')
    """
    check.integer("year", year, 0, 98)
    every = [f"{end:02d}" for end in range(100)]
    return tuple(every[year + 1 :]), tuple(every[: year + 1])


def pairs(
    count: int,
    rng: np.random.Generator,
    *,
    template: str = TEMPLATE,
    events: Sequence[str] = words.EVENTS,
) -> tuple[TextPair, ...]:
    """Greater-than prompts, corrupted by setting the start year to 01.

    The start year must be a token of its own, and the years must continue the century as one token
    each. A year that the tokenizer merges with its century (GPT-2 has one token for 1700) is no
    start year, but counts as an answer by its two-digit token, as in the paper.

    Args:
      count: how many pairs.
      rng: consumed.
      template: with slots for event, century, year and century, as in `TEMPLATE`.
      events: what lasted.

    Returns:
      Pairs with different clean prompts, `count` of them (there are about 33,000).

    Example:
      >>> pair = pairs(1, np.random.default_rng(0))[0]
      >>> len(pair.correct) + len(pair.wrong)
      100
    """

    def draw(_: int) -> TextPair:
        scene = {"event": str(rng.choice(events)), "century": int(rng.choice(CENTURIES))}
        year = int(rng.choice(YEARS))
        clean = template.format(year=year, **scene)
        right, wrong = answers(year)
        return TextPair(clean, template.format(year=1, **scene), right, wrong, (f"{year:02d}",))

    return distinct(draw, count)
