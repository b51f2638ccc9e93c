"""What is known of one model on prompts, and of two, whoever measured it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

__all__ = ["Job", "Profile"]


@dataclasses.dataclass(frozen=True)
class Profile:
    """Everything about one model that alignment looks at.

    Components are in one axis: heads of layer 0, of layer 1, ..., then the MLPs.

    Attributes:
      names: (component,) such as "head 0.1" and "mlp 3".
      heads: how many of them are heads.
      effects: (component, batch) logit difference with the component removed minus clean, in nats.
      clean: (batch,) logit difference of the whole model, in nats.
      patterns: (head, query, key) attention, averaged over prompts.
      rows: (query,) how many prompts have this query.
      outputs: (layer, token, width) MLP outputs at the real tokens.
      logits: (component, batch, token) change of some logits when the component is removed, in
        nats, with their mean subtracted; the tokens are the same for every model of a vocabulary.
      written: what heads (head, batch, width) and MLPs (layer, batch, width) write into the
        residual stream at the answer position.
      attention: (head, batch, key) attention of the answer position; here and in `patterns`,
        positions count real tokens.
      roles: (head, role) shares of the attention, see `align.habits`.
    """

    names: tuple[str, ...]
    heads: int
    effects: np.ndarray
    clean: np.ndarray
    patterns: Any
    rows: Any
    outputs: Any
    logits: Any = None
    written: Any = None
    attention: Any = None
    roles: Any = None


@dataclasses.dataclass(frozen=True)
class Job:
    """What a component of the teacher does, and the components of the student that do it.

    Attributes:
      teacher: name.
      students: the set whose joint removal is most like its removal.
      similarity: of the two removals, cosine of the logit changes.
      alone: the same for the best single component, the first of the set.
      floor: likeness that chance can have; what is not above it says nothing.
      drop_teacher: share of the clean logit difference that its removal costs, in percent.
      drop_student: likewise for the set.
    """

    teacher: str
    students: tuple[str, ...]
    similarity: float
    alone: float
    floor: float
    drop_teacher: float
    drop_student: float
