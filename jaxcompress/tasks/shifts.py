"""The same tasks asked in another way: other sentences, other words, longer sequences.

What a model learnt on the published sentences it may not do on these. A drop that the student has
and its teacher has not is what "brittle" means outside the training distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxcompress.tasks import sequences, words

__all__ = ["SHIFTS"]

# Words in other than their usual place: names for what is done or lost, things for what is born.
_SWAPPED = {
    verb: words.NAMES if said is words.THINGS else words.THINGS
    for verb, said in sequences.VERBS.items()
}
_SEQUENCES: dict[str, dict[str, Any]] = {
    "other verbs": {"verbs": {verb: words.THINGS for verb in ("found", "kept", "sold")}},
    "swapped words": {"verbs": _SWAPPED},
    "longer": {"shown": 6},
}

SHIFTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    **dict.fromkeys(sequences.MEMBERS, _SEQUENCES),
    "ioi": {
        "other sentences": {
            "templates": (
                "When {0} and {1} met at the {place}, {2} offered a {object} to",
                "Friends {0} and {1} met at the {place}. {2} wanted to give a {object} to",
                "After {0} and {1} got a {object} at the {place}, {2} passed it to",
                "Last week, {0} and {1} visited the {place}. {2} handed a {object} to",
            )
        },
        "things for names": {"names": words.THINGS},
    },
    "greater_than": {
        "other sentence": {
            "template": "The {event} that began in the year {century}{year:02d} lasted to the "
            "year {century}"
        },
        "places for events": {"events": words.PLACES},
    },
    "linear_function": {"longer": {"shown": 9}},
    "induction": {"longer": {"length": 16}},
    "associative_recall": {"longer": {"pairs": 10}},
}
"""By task and name of the shift, the options that `get` takes. Facts have none."""
