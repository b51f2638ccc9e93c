"""What a component does, in terms that every model shares: prompts, tokens, and nothing else.

The mark of a component is how its removal moves the logits, on every prompt and over the
vocabulary. It is free of everything that has no meaning across models: the order of the heads,
their inner bases, the basis of the residual stream, even the kind of component. Marks of unrelated
components are nearly orthogonal, so their cosine is near 0 by itself; a published attention
similarity is near 1 instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxcompress import check
from jaxcompress.align.habits import in_common
from jaxcompress.align.measured import Profile
from jaxcompress.cka import pairwise_cka

__all__ = ["MARKS", "cosine", "marks", "masses"]

MARKS = ("causal", "effects", "functional", "roles", "attention", "attention_with_sink")
"""Ways to compare two components; `causal` is the one that the score uses."""


def masses(profile: Profile) -> np.ndarray:
    """(component,) share of what the model depends on: mean over prompts of |effect|, summing to 1.

    Example:
      >>> profile = Profile(("head 0.0", "mlp 0"), 1, np.array([[-3.0, 3.0], [1.0, 1.0]]),
      ...                   np.ones(2), None, None, None)
      >>> masses(profile).tolist()
      [0.75, 0.25]
    """
    size = np.abs(profile.effects).mean(axis=1, dtype=np.float64)
    return size / size.sum() if size.sum() > 0 else size


def marks(
    student: Profile,
    teacher: Profile,
    *,
    across: bool = False,
    only: Sequence[str] = MARKS,
) -> dict[str, np.ndarray]:
    """Similarity of every student component with every teacher component, by each of `MARKS`.

    * `causal`: cosine of the logit changes, prompts and sampled tokens together.
    * `effects`: correlation over prompts of the changes of the logit difference.
    * `functional`: debiased linear CKA over prompts of what is written at the answer position.
    * `roles`: what two heads' shares of attention have in common (`align.habits`); of MLPs,
      `functional`.
    * `attention`: mean over prompts of the cosine of the attention of the answer position, the
      first position left out; of MLPs, `functional`.
    * `attention_with_sink`: likewise, all positions.

    Args:
      student: of the same prompts as
      teacher: the other profile.
      across: whether a head may stand for an MLP (`causal` and `effects` only).
      only: which of them.

    Returns:
      By name (student component, teacher component) in [0, 1]; what is negative is set to 0.

    Example:
      >>> marks(profile(student, prompts), profile(teacher, prompts))["causal"]  # doctest: +SKIP
    """
    h, k = student.heads, teacher.heads
    kind = np.zeros((len(student.names), len(teacher.names)))
    kind[:h, :k] = kind[h:, k:] = 1.0
    allowed = np.ones_like(kind) if across else kind
    found = {}
    for name in only:
        check.known("marks", name, MARKS)
        if name == "causal":
            value = _cosine(student.logits, teacher.logits) * allowed
        elif name == "effects":
            value = _cosine(_deviations(student), _deviations(teacher)) * allowed
        else:
            value = np.zeros(kind.shape)
            value[h:, k:] = _cka(student.written[1], teacher.written[1])
            if name == "functional":
                value[:h, :k] = _cka(student.written[0], teacher.written[0])
            elif name == "roles":
                value[:h, :k] = in_common(student.roles, teacher.roles)
            else:
                first = 1 if name == "attention" else 0
                rows = (one.attention[..., first:] for one in (student, teacher))
                value[:h, :k] = _row_cosine(*rows)
        found[name] = np.clip(value, 0.0, 1.0)
    return found


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """Cosine of two marks, prompts and tokens together; 0 if one is 0.

    Example:
      >>> cosine(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
      1.0
    """
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return float((x * y).sum() / norm) if norm > 0 else 0.0


def _deviations(profile: Profile) -> np.ndarray:
    effects = np.asarray(profile.effects, np.float64)
    return effects - effects.mean(axis=1, keepdims=True)


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (np.asarray(z).reshape(len(z), -1) for z in (x, y))
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)[None]
    return np.divide(x @ y.T, norms, out=np.zeros_like(norms), where=norms > 1e-12)


_pairwise = jax.jit(pairwise_cka)


def _cka(x: Any, y: Any) -> Any:
    return np.asarray(_pairwise(x, y)) if len(x) and len(y) else 0.0


def _row_cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(head, head) mean over prompts of the cosine; rescaling the rows would not change it."""
    unit = [z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12) for z in (x, y)]
    return np.einsum("ibt,jbt->ij", *unit) / x.shape[1]
