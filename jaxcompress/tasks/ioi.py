"""Indirect object identification: who was given the thing?

Wang, Variengien, Conmy, Shlegeris and Steinhardt 2022 (arXiv 2211.00593), section 2 and appendix
A: two names, one of them (the subject S) comes again; the answer is the other one (IO).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcompress import check
from jaxcompress.tasks import words
from jaxcompress.tasks.pairs import TextPair, distinct

__all__ = ["ORDERS", "TEMPLATES", "pairs"]

# No template starts with a name: there it would be another token than in the middle of a sentence.
TEMPLATES: tuple[str, ...] = (
    "Then, {0} and {1} went to the {place}. {2} gave a {object} to",
    "When {0} and {1} went to the {place}, {2} gave a {object} to",
    "After {0} and {1} met at the {place}, {2} handed a {object} to",
    "While {0} and {1} were working at the {place}, {2} passed a {object} to",
    "Then, {0} and {1} had a long talk at the {place}. {2} wanted to give a {object} to",
    "Last week, {0} and {1} got a {object} at the {place}. {2} decided to give it to",
    "Friends {0} and {1} found a {object} at the {place}. {2} gave it to",
    "The {place} that {0} and {1} visited had a {object}. {2} offered it to",
)
"""Slots 0 and 1 are the two people in the order they appear, slot 2 the one who gives."""

ORDERS: dict[str, tuple[str, ...]] = {
    "mixed": ("ABBA", "BABA"),
    "ABBA": ("ABBA",),
    "BABA": ("BABA",),
}
"""A is IO and B is S: ABBA names the indirect object first, BABA the subject."""


def pairs(
    count: int,
    rng: np.random.Generator,
    *,
    order: str = "mixed",
    templates: Sequence[str] = TEMPLATES,
    names: Sequence[str] = words.NAMES,
) -> tuple[TextPair, ...]:
    """IOI prompts with ABC corruption: three other names, none of them twice.

    With the repeated name gone nothing in the corrupted prompt says who receives; answers stay
    those of the clean prompt (Wang et al. 2022, section 3, p_ABC).

    Args:
      count: how many pairs.
      rng: consumed.
      order: "mixed" (ABBA and BABA in turn), "ABBA" or "BABA".
      templates: like `TEMPLATES`.
      names: at least five.

    Returns:
      `count` pairs with different clean prompts; right answer IO, wrong answer S.

    Raises:
      ValueError: for no template, or too few names.

    Example:
      >>> pair = pairs(1, np.random.default_rng(0))[0]
      >>> pair.clean.count(pair.correct[0]), pair.clean.count(pair.wrong[0])
      (1, 2)
    """
    orders = ORDERS[check.known("order", order, ORDERS)]
    if not templates or len(names) < 5:
        got = f"{len(templates)} and {len(names)}"
        raise check.fail("templates and names", "at least 1 and at least 5", got)

    def draw(index: int) -> TextPair:
        chosen = rng.choice(names, size=5, replace=False)
        receiver, subject, *others = (str(name) for name in chosen)
        abba = orders[index % len(orders)] == "ABBA"
        first = (receiver, subject) if abba else (subject, receiver)
        template = templates[int(rng.integers(len(templates)))]
        scene = {"place": str(rng.choice(words.PLACES)), "object": str(rng.choice(words.OBJECTS))}
        right, wrong = f" {receiver}", f" {subject}"
        clean = template.format(*first, subject, **scene)
        corrupted = template.format(*others, **scene)
        return TextPair(clean, corrupted, (right,), (wrong,), (right, wrong))

    return distinct(draw, count)
