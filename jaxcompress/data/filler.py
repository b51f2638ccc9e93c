"""Filler text: short sentences of a small grammar, so that not every word is part of a task."""

from __future__ import annotations

import re

import numpy as np

from jaxcompress import check
from jaxcompress.tasks import sequences, words

__all__ = ["LISTS", "TEMPLATES", "sentences"]


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LISTS: dict[str, tuple[str, ...]] = {
    "name": words.NAMES,
    "place": words.PLACES,
    "object": words.OBJECTS,
    "event": words.EVENTS,
    "month": sequences.MEMBERS["months"],
    "number": sequences.MEMBERS["number_words"],
    "digit": sequences.MEMBERS["numerals"],
    "century": tuple(str(century) for century in range(11, 18)),
    "year": tuple(f"{year:02d}" for year in range(100)),
    "person": _split(
        "farmer teacher doctor child king queen soldier baker nurse artist sailor hunter judge "
        "singer driver guard neighbor stranger captain student"
    ),
    "animal": _split("cat dog horse bird fox bear rabbit duck goat sheep mouse wolf lion frog"),
    "quality": _split(
        "old young tall small happy sad tired hungry clever quiet brave kind angry proud lonely "
        "gentle strange famous"
    ),
    "look": _split("red blue green white black heavy light broken new golden wooden dirty shiny"),
    "moved": _split("walked ran went came returned hurried moved rode"),
    "saw": _split("saw found lost liked took wanted bought sold kept painted cleaned carried"),
    "felt": _split("slept waited smiled laughed sang danced rested cried worked listened"),
    "weather": _split("cold warm rainy sunny windy snowy dark cloudy calm stormy"),
    "time": _split("morning evening afternoon night"),
    "way": _split("slowly quickly quietly alone again together happily softly"),
    "things": _split("boxes apples stones letters coins eggs books trees flowers bottles"),
}
"""What each slot of `TEMPLATES` is filled with."""

TEMPLATES: tuple[str, ...] = (
    "The {quality} {person} {moved} to the {place}.",
    "The {animal} {felt} {way} near the {place}.",
    "It was a {weather} {time} in {month}.",
    "The {person} {saw} a {look} {object} at the {place}.",
    "The {quality} {animal} {moved} {way}.",
    "{name} {saw} the {look} {object}.",
    "The {person} counted {number} {look} {things}.",
    "There were {digit} {things} in the {place}.",
    "The {event} began in the year {century}{year}.",
    "Every {time} the {animal} {felt} {way}.",
    "In {month} the {place} was {weather} and the {person} {felt}.",
    "The {object} was {look} and the {person} was {quality}.",
)
"""Sentences with slots that are filled independently of each other: nothing to be worked out."""

_PARTS = tuple(re.split(r"\{(\w+)\}", template) for template in TEMPLATES)


def sentences(count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Random sentences, each from a random template with random words.

    Args:
      count: how many.
      rng: consumed.

    Example:
      >>> line = sentences(1, np.random.default_rng(0))[0]
      >>> line.endswith(".")
      True
    """
    check.integer("count", count, 0)
    slots = max(len(parts) for parts in _PARTS) // 2
    kinds = rng.integers(len(TEMPLATES), size=count).tolist()
    draws = rng.random((count, slots)).tolist()
    return tuple(_fill(_PARTS[kind], draw) for kind, draw in zip(kinds, draws, strict=True))


def _fill(parts: list[str], draw: list[float]) -> str:
    filled = list(parts)
    for i, slot in enumerate(parts[1::2]):
        options = LISTS[slot]
        filled[2 * i + 1] = options[int(draw[i] * len(options))]
    return "".join(filled)
