"""Losses that ask a student to keep its teacher's mechanism, and not its answers alone.

Each is made from a teacher, a student and pairs of their components, and is `(params, batch) ->
scalar` for `finetune.distilled(extra=...)` or any other training step. A batch has `tokens`,
`attention_mask` and `answer_position`. The teacher gets no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.cka import linear_cka
from jaxcompress.distill.features import hidden_mse
from jaxcompress.distill.mapping import layerwise
from jaxcompress.models.gates import Gates
from jaxcompress.types import Model

__all__ = ["Head", "circuit_cka", "gate_gradients", "hidden_states", "match_by_effect"]

Head = tuple[int, int]
"""(layer, head)."""

Pairs = Sequence[tuple[Head, Head]]
Extra = Callable[[Any, Any], jax.Array]


def hidden_states(
    teacher: Model, student: Model, pairs: Sequence[tuple[int, int]], *, weight: float = 1.0
) -> Extra:
    """Mean squared difference of the residual streams after paired layers, of one width.

    Args:
      teacher: of any depth.
      student: likewise; its parameters are those that the loss is called with.
      pairs: (student layer, teacher layer), as of `mapping.uniform`.
      weight: of the loss; the streams are divided by the teacher's mean square.

    Example:
      >>> hidden_states(teacher, student, mapping.uniform(2, 4))(student.params, batch)
      ... # doctest: +SKIP

    Reference: Romero et al. 2015 (FitNets, arXiv 1412.6550), section 2.2.
    """
    after = [(ours + 1, theirs + 1) for ours, theirs in pairs]

    def loss(params: Any, batch: Any) -> jax.Array:
        ours = _run(student, params, batch, ("resid",)).taps["resid"]
        theirs = _run(teacher, teacher.params, batch, ("resid",)).taps["resid"]
        value, _ = layerwise(hidden_mse, after)(ours, theirs, batch.attention_mask)
        size, _ = layerwise(hidden_mse, after)(0 * ours, theirs, batch.attention_mask)
        return weight * value / jnp.maximum(size, 1e-12)

    return loss


def circuit_cka(teacher: Model, student: Model, pairs: Pairs, *, weight: float = 1.0) -> Extra:
    """Sum over pairs of heads of 1 - CKA of what they compute at the answer, over the batch.

    Args:
      teacher: of any shape.
      student: likewise.
      pairs: (student head, teacher head), such as of `match_by_effect` or `Judge.matched`; a
        random matching and one of all heads are the controls.
      weight: lambda.

    Raises:
      ValueError: without pairs, or for heads that are not there.

    Example:
      >>> circuit_cka(teacher, student, [((0, 1), (0, 1))])(student.params, batch)
      ... # doctest: +SKIP

    Reference: Wadhwa et al. 2025 (arXiv 2509.25002), section 3; the position is not given there.
    """
    ours, theirs = _indices(pairs, student, teacher)

    def loss(params: Any, batch: Any) -> jax.Array:
        x = _at_answer(_run(student, params, batch, ("heads",)).taps["heads"], batch)
        y = _at_answer(_run(teacher, teacher.params, batch, ("heads",)).taps["heads"], batch)
        alike = jax.vmap(linear_cka)(x[tuple(ours.T)], jax.lax.stop_gradient(y[tuple(theirs.T)]))
        return weight * (1 - alike).sum()

    return loss


def gate_gradients(
    teacher: Model,
    student: Model,
    pairs: Pairs,
    metric: Callable[[Any, Any], jax.Array],
    *,
    weight: float = 1.0,
) -> Extra:
    """1 - cosine of what paired heads do to a metric on each prompt, by gradients at their gates.

    The gradient of the metric at a head's gate is, to first order, what is lost with the head. Two
    models use a head alike if these numbers agree over prompts and pairs up to a common factor, so
    this asks for the same reliance and for no particular activations. Teacher heads that share a
    student head are added up: a merged head is to do the sum of their jobs.

    Args:
      teacher: of any shape.
      student: likewise.
      pairs: (student head, teacher head).
      metric: `(logits, batch) -> (batch,)` of logits (batch, vocab) at the answer.
      weight: of the loss, which is in [0, 2 * weight].

    Raises:
      ValueError: as `circuit_cka`.

    Example:
      >>> gate_gradients(teacher, student, pairs, tasks.metrics.logit_difference)
      ... # doctest: +SKIP
    """
    ours, theirs = _indices(pairs, student, teacher)
    heads, place = np.unique(ours, axis=0, return_inverse=True)

    def loss(params: Any, batch: Any) -> jax.Array:
        x = _reliance(student, params, batch, metric)[:, heads[:, 0], heads[:, 1]]
        y = _reliance(teacher, teacher.params, batch, metric)[:, theirs[:, 0], theirs[:, 1]]
        y = jax.lax.stop_gradient(jax.ops.segment_sum(y.T, place.reshape(-1), len(heads)).T)
        size = jnp.sqrt(jnp.maximum((x * x).sum() * (y * y).sum(), 1e-24))
        return weight * (1 - (x * y).sum() / size)

    return loss


def match_by_effect(student: Any, teacher: Any, keep: Any = None) -> list[tuple[Head, Head]]:
    """Each student head with the teacher head whose removal costs nearest as much.

    Args:
      student: (layer, head) or (layer, head, task): what is left, or lost from one baseline that
        both models share, without each head; NaN where there is no such head. Of a student that
        can do the tasks: one that cannot has nothing to lose, and all its heads match one.
      teacher: likewise.
      keep: (layer, head) bools of the student heads that are matched; all by default.

    Returns:
      (student head, teacher head) pairs; a teacher head may come up more than once.

    Raises:
      ValueError: for other tasks of the teacher, or one without heads.

    Example:
      >>> match_by_effect([[0.9, 0.0]], [[0.1, 1.0]])
      [((0, 0), (0, 1)), ((0, 1), (0, 0))]

    Reference: Wadhwa et al. 2025 (arXiv 2509.25002), equation 4.
    """
    ours, theirs = (np.asarray(x, float) for x in (student, teacher))
    ours, theirs = (x.reshape(*x.shape[:2], -1) for x in (ours, theirs))
    check.shape("teacher", theirs, [(*theirs.shape[:2], ours.shape[2])], "(layer, head, task)")
    if not np.isfinite(theirs).all(axis=-1).any():
        raise check.fail("teacher", "some head with finite effects", "none")
    kept = np.isfinite(ours).all(axis=-1) & (True if keep is None else np.asarray(keep, bool))
    found = []
    for layer, head in np.argwhere(kept).tolist():
        distance = np.nan_to_num(np.abs(ours[layer, head] - theirs).sum(axis=-1), nan=np.inf)
        nearest = np.unravel_index(np.argmin(distance), distance.shape)
        found.append(((layer, head), (int(nearest[0]), int(nearest[1]))))
    return found


def _run(model: Model, params: Any, batch: Any, taps: tuple[str, ...]) -> Any:
    return model.apply(params, batch.tokens, attention_mask=batch.attention_mask, taps=taps)


def _at_answer(heads: jax.Array, batch: Any) -> jax.Array:
    """(layer, batch, position, head, head_dim) -> (layer, head, batch, head_dim)."""
    rows = jnp.asarray(batch.answer_position)[None, :, None, None, None]
    return jnp.take_along_axis(heads, rows, axis=2)[:, :, 0].swapaxes(1, 2)


def _reliance(model: Model, params: Any, batch: Any, metric: Any) -> jax.Array:
    """(batch, layer, head) gradients of the metric at the gates of each prompt."""
    config = model.config  # pyright: ignore[reportAttributeAccessIssue]

    def total(heads: jax.Array) -> jax.Array:
        out = model.apply(
            params, batch.tokens, attention_mask=batch.attention_mask, gates=Gates(heads=heads),
            answer_position=batch.answer_position,
        )  # fmt: skip
        return metric(out.logits, batch).sum()

    return jax.grad(total)(jnp.ones((len(batch.tokens), config.layers, config.heads)))


def _indices(pairs: Any, student: Any, teacher: Any) -> tuple[np.ndarray, np.ndarray]:
    """(pair, 2) student and teacher heads, checked."""
    if not len(pairs):
        raise check.fail("pairs", "at least one pair of heads", "none")
    both = np.asarray(pairs, int)
    for name, heads, model in (("student", both[:, 0], student), ("teacher", both[:, 1], teacher)):
        limit = np.array([model.config.layers, model.config.heads])
        if (heads < 0).any() or (heads >= limit).any():
            raise check.fail("pairs", f"heads of the {name} below {limit.tolist()}", heads.tolist())
    return both[:, 0], both[:, 1]
