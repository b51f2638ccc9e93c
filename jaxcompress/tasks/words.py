"""Words the prompt families are filled with; each is one token for GPT-2 and for BERT.

The tests prove it. The lists are our own; those of the papers are not needed, only their kind.
"""

from __future__ import annotations

__all__ = ["EVENTS", "NAMES", "OBJECTS", "PLACES", "THINGS"]


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THINGS: tuple[str, ...] = _split(
    "Ant Apple Ball Bell Bird Book Box Bus Camera Car Cat Chair Clock Coin Cow "
    "Desk Dog Fan Farm Fish Flag Gate Glass Gold Hat Hill "
    "House Ice Jar Key King Lake Light Map Moon Mouse Oil Orange Paper Pear Pen "
    "Phone Queen Rain Ring River Road Rock Rose Salt Sand Ship Snow Star Stone Sun Table "
    "Tea Train Tree Van Wall Watch Wheel Window Wolf"
)
"""Things to be lost or done (Lan et al. 2023); capitalised, for they start a sentence."""

# No April, May or June: a name that is also a month would sit among the members of a sequence.
NAMES: tuple[str, ...] = _split(
    "Aaron Adam Alan Alex Alice Amy Andrew Anna Anne Anthony Arthur Ben Bob Brian Carl Charles "
    "Chris Daniel David Emily Eric Frank George Harry Henry Jack Jacob James Jane Jason Jeff "
    "Jim Joe John Joseph Kate Kevin Laura Lee Lisa Louis Luke Maria Mark Martin Mary Michael "
    "Nick Paul Peter Rachel Richard Robert Roger Ryan Sam Sarah Scott Simon Steve Susan Thomas "
    "Tim Tom Tony Victoria William"
)
"""First names, for IOI and for the "born" sentences of Lan et al."""

PLACES: tuple[str, ...] = _split(
    "airport bank bar beach church city farm garden gym hospital hotel house kitchen lake "
    "library market mountain museum office park restaurant river school shop station store "
    "theater village zoo"
)
"""Places two people go to; each takes "the"."""

OBJECTS: tuple[str, ...] = _split(
    "ball bag basket bell book bottle box card chair clock coat coin computer cup drink flower "
    "gift hat jacket kiss lamp letter map pen phone picture pie ring shirt sword ticket toy "
    "watch"
)
"""Things one person gives another; each takes "a"."""

EVENTS: tuple[str, ...] = _split(
    "attack battle campaign case conflict conference contract crisis deal debate drought "
    "dynasty empire expedition famine festival flood growth hunt investigation journey "
    "marriage mission operation peace plague plan practice process program project protest "
    "rebellion reign rule siege strike struggle study test trade tour trial trip truce voyage "
    "war work"
)
"""Things that last for years (Hanna et al. 2023, section 2.1)."""
