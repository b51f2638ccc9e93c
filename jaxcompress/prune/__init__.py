"""Pruning: score, select, mask, shrink; four files, four questions."""

from jaxcompress.prune import l0, masks, regularizers, schedule
from jaxcompress.prune.calibrate import (
    Masked,
    Text,
    answer,
    calibrate,
    embedding,
    masked_token,
    next_token,
    speaking,
    targets,
)
from jaxcompress.prune.criteria import CRITERIA, from_sums, score
from jaxcompress.prune.kernels import WEIGHT_CRITERIA, prune_weights
from jaxcompress.prune.select import budget, select
from jaxcompress.prune.shrink import fold, kept, pad, shrink
from jaxcompress.prune.size import flops_per_token, parameters

__all__ = [
    "CRITERIA",
    "WEIGHT_CRITERIA",
    "Masked",
    "Text",
    "answer",
    "budget",
    "calibrate",
    "embedding",
    "flops_per_token",
    "fold",
    "from_sums",
    "kept",
    "l0",
    "masked_token",
    "masks",
    "next_token",
    "pad",
    "parameters",
    "prune_weights",
    "regularizers",
    "schedule",
    "score",
    "select",
    "shrink",
    "speaking",
    "targets",
]
