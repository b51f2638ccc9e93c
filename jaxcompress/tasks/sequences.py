"""Numerals, number words and months: continue an increasing sequence.

Lan, Torr and Barez 2023, "Towards Interpretable Sequence Continuation" (arXiv 2311.04131),
section 3; the data of Haskins and Adams 2025 (arXiv 2505.10822). Five short sentences end in
consecutive members of a sequence, the fifth member is the answer:

    Van done in 1. Hat done in 2. Ring done in 3. Desk done in 4. Sun done in -> " 5"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxcompress import check
from jaxcompress.tasks import words
from jaxcompress.tasks.pairs import TextPair, distinct

__all__ = ["MEMBERS", "VERBS", "Sequence", "answers", "pairs", "parse"]

MEMBERS: dict[str, tuple[str, ...]] = {
    "numerals": tuple(str(number) for number in range(1, 13)),
    "number_words": (
        *("one", "two", "three", "four", "five", "six"),
        *("seven", "eight", "nine", "ten", "eleven", "twelve"),
    ),
    "months": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
}
"""The members of each sequence, in order."""

# The generator Lan et al. ship writes "was done in"; their data and notebooks, and so we, do not.
VERBS: dict[str, tuple[str, ...]] = {
    "done": words.THINGS,
    "lost": words.THINGS,
    "born": words.NAMES,
}
"""The published verbs, each with what it is said of."""

_SHOWN = 4  # members before the answer
_PATTERN = re.compile(
    r"(\w+) (done|lost|born) in (\w+)\. " + r"(\w+) \2 in (\w+)\. " * 3 + r"(\w+) \2 in"
)


class Sequence(NamedTuple):
    """The parts of one prompt: five fillers, the verb, four members (one filler more)."""

    fillers: tuple[str, ...]
    verb: str
    members: tuple[str, ...]


def parse(text: str) -> Sequence:
    """Takes a prompt apart; anything not of this template is a `ValueError`.

    Example:
      >>> parse("Van lost in 1. Hat lost in 2. Ring lost in 3. Desk lost in 4. Sun lost in").members
      ('1', '2', '3', '4')
    """
    if (match := _PATTERN.fullmatch(text)) is None:
        raise check.fail("text", "four 'X done in M.' and one 'X done in'", repr(text))
    groups = match.groups()
    return Sequence((groups[0], *groups[3::2]), groups[1], groups[2:9:2])


def _render(sequence: Sequence) -> str:
    shown = zip(sequence.fillers, sequence.members, strict=False)
    facts = [f"{filler} {sequence.verb} in {member}." for filler, member in shown]
    return " ".join([*facts, f"{sequence.fillers[-1]} {sequence.verb} in"])


def answers(last: str) -> tuple[str, str]:
    """The right and the wrong answer after the last member: its successor, and itself.

    Example:
      >>> answers("4"), answers("April")
      ((' 5', ' 4'), (' May', ' April'))
    """
    for members in MEMBERS.values():
        if last in members[:-1]:
            return f" {members[members.index(last) + 1]}", f" {last}"
    raise check.fail("last", "a member that has a successor", repr(last))


def _shuffled(members: tuple[str, ...], shown: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Different members whose last two are not neighbours: `randDS` of Lan et al."""
    while True:
        order = rng.choice(len(members), size=shown, replace=False)
        if abs(int(order[-1]) - int(order[-2])) != 1:
            return tuple(members[i] for i in order)


def pairs(
    count: int,
    rng: np.random.Generator,
    *,
    members: str = "numerals",
    ahead: int = 1,
    shown: int = _SHOWN,
    verbs: Mapping[str, tuple[str, ...]] = VERBS,
) -> tuple[TextPair, ...]:
    """Prompts of Lan et al. 2023, corrupted by four random members (`randDS`).

    The three verbs take turns, and so do the eight starts within each; fillers are drawn with
    replacement, as in the published data. The corrupted prompt keeps fillers and verb.

    Args:
      count: how many pairs.
      rng: consumed. The same state gives the same fillers for every sequence.
      members: "numerals", "number_words" or "months".
      ahead: members from the last to the answer. 1 is the task of the paper; with more it is a
        changed rule, and the wrong answer is the old one, the successor.
      shown: members before the answer; 4 in the paper.
      verbs: each with the words it is said of.

    Returns:
      `count` pairs with different clean prompts.

    Raises:
      ValueError: for unknown members, or an answer too far ahead.

    Example:
      >>> pair = pairs(1, np.random.default_rng(0), members="months")[0]
      >>> parse(pair.clean).members, pair.correct, pair.wrong
      (('January', 'February', 'March', 'April'), (' May',), (' April',))
    """
    names = MEMBERS[check.known("members", members, MEMBERS)]
    said = tuple(verbs)
    # The paper's first member is one of the first eight, so that a fifth exists.
    check.integer("shown", shown, 2, len(names) - check.integer("ahead", ahead, 1, 4))
    starts = len(names) - shown - ahead + 1

    def draw(index: int) -> TextPair:
        verb, start = said[index % len(said)], (index // len(said)) % starts
        fillers = tuple(str(word) for word in rng.choice(verbs[verb], size=shown + 1))
        clean = Sequence(fillers, verb, names[start : start + shown])
        corrupted = clean._replace(members=_shuffled(names, shown, rng))
        right, wrong = answers(clean.members[-1])
        if ahead > 1:
            changed, old = (f" {names[start + shown - 1 + ahead]}",), (right,)
            return TextPair(_render(clean), _render(corrupted), changed, old)
        return TextPair(_render(clean), _render(corrupted), (right,), (wrong,), (wrong,))

    return distinct(draw, count)
