"""Alignment: did the student keep the mechanism? Scores with their nulls, and robustness."""

from jaxcompress.align.fate import Fate, fate
from jaxcompress.align.profile import Profile, profile, similarities
from jaxcompress.align.robustness import Robustness, robustness
from jaxcompress.align.score import Alignment, Pair, align_profiles, score

__all__ = [
    "Alignment",
    "Fate",
    "Pair",
    "Profile",
    "Robustness",
    "align_profiles",
    "fate",
    "profile",
    "robustness",
    "score",
    "similarities",
]
