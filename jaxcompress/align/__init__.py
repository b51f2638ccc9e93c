"""Alignment: did the student keep the mechanism? Scores with their nulls, and robustness."""

from jaxcompress.align.calibrated import Calibrated, calibrated, mean_of
from jaxcompress.align.disguise import disguise
from jaxcompress.align.factors import algorithm, shares
from jaxcompress.align.fate import Fate, fate
from jaxcompress.align.floors import floors
from jaxcompress.align.jobs import jobs, redundancy, together
from jaxcompress.align.measured import Job, Profile
from jaxcompress.align.profile import profile, similarities
from jaxcompress.align.robustness import Robustness, robustness
from jaxcompress.align.score import Alignment, Pair, align_profiles, score

__all__ = [
    "Alignment",
    "Calibrated",
    "Fate",
    "Job",
    "Pair",
    "Profile",
    "Robustness",
    "algorithm",
    "align_profiles",
    "calibrated",
    "disguise",
    "fate",
    "floors",
    "jobs",
    "mean_of",
    "profile",
    "redundancy",
    "robustness",
    "score",
    "shares",
    "similarities",
    "together",
]
