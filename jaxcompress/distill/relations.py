"""Losses on attention, and on relations between positions: no projection between widths needed.

The losses are `(student, teacher, mask, ...) -> (mean, count)`. The mask is that of the tokens,
(..., position): a query of weight 0 is not counted, a key of weight 0 is seen by none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcompress import check
from jaxcompress.distill import masked

__all__ = ["attention_kl", "attention_mse", "minilm", "minilm_v2", "relation_kl"]

FLOOR = 1e-30  # the least probability whose logarithm is taken
HIDDEN = -1e30  # the score of a key that is not seen: finite, so that no row is all -inf


def attention_kl(
    student: Float[Array, "*batch h t t"], teacher: Float[Array, "..."], mask: Any = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """KL of attention maps: does the student look where the teacher does?

    sum_s A_teacher[t, s] log(A_teacher[t, s] / A_student[t, s]), averaged over heads and queries.

    Args:
      student: (..., head, query, key) probabilities.
      teacher: likewise, of the same number of heads.
      mask: (..., position) of the tokens, or `None`.

    Returns:
      The mean in nats, and the sum of the queries' weights.

    Raises:
      ValueError: for shapes that do not agree.

    Example:
      >>> student, teacher = jnp.full((1, 2, 2), 0.5), jnp.eye(2)[None]
      >>> loss, count = attention_kl(student, teacher)
      >>> round(float(loss), 4), float(count)
      (0.6931, 2.0)

    Reference: Wang et al. 2020 (MiniLM, arXiv 2002.10957), section 3.1.
    """
    student, teacher, weights = _maps(student, teacher, mask)
    seen = _seen(weights, causal=False)
    logs = [jnp.log(jnp.maximum(jnp.where(seen, x, 0.0), FLOOR)) for x in (teacher, student)]
    return masked.mean(masked.divergence(*logs).mean(axis=-2), weights)


def attention_mse(
    student: Float[Array, "*batch h t t"],
    teacher: Float[Array, "..."],
    mask: Any = None,
    *,
    causal: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean squared difference of attention scores or maps, over heads and pairs that are seen.

    TinyBERT compares scores, before the softmax; what stands at a pair that is not seen, mostly
    -inf, is left out of the sum and of the count.

    Args:
      student: (..., head, query, key).
      teacher: likewise, of the same number of heads.
      mask: (..., position) of the tokens, or `None`.
      causal: leave out keys after their query too.

    Returns:
      The mean, and the sum of weights of the pairs, each that of its query.

    Raises:
      ValueError: for shapes that do not agree.

    Example:
      >>> loss, count = attention_mse(jnp.ones((1, 3, 3)), jnp.zeros((1, 3, 3)), causal=True)
      >>> float(loss), float(count)
      (1.0, 6.0)

    Reference: Jiao et al. 2020 (TinyBERT, arXiv 1909.10351), section 3.1.
    """
    student, teacher, weights = _maps(student, teacher, mask)
    seen = _seen(weights, causal)
    student, teacher = (jnp.where(seen, x, 0.0) for x in (student, teacher))
    pairs = seen[..., 0, :, :] * weights[..., None]
    return masked.mean(((student - teacher) ** 2).mean(axis=-3), pairs)


def relation_kl(
    student: Float[Array, "*batch t m"],
    teacher: Float[Array, "..."],
    mask: Any = None,
    *,
    heads: int,
    causal: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """KL of the relations between positions: which vectors are like which, head by head.

    The vectors are split into `heads` pieces x of size d whatever their own heads are; the relation
    is softmax(x x^T / sqrt(d)) and the loss KL(teacher || student), averaged over pieces and rows.

    Args:
      student: (..., position, width): queries, keys, values or hidden states.
      teacher: (..., position, width), any width.
      mask: (..., position) of the tokens, or `None`.
      heads: how many pieces; it divides both widths.
      causal: relate a position to itself and those before only. The papers, which treat encoders,
        relate all; for a decoder set it, or its relations tell of tokens it has not seen.

    Returns:
      The mean in nats, and the sum of the positions' weights.

    Raises:
      ValueError: for `heads` that do not divide the widths, or shapes that do not agree.

    Example:
      >>> x = jnp.arange(8.0).reshape(2, 4)
      >>> loss, count = relation_kl(x, x, heads=2)
      >>> float(loss), float(count)
      (0.0, 2.0)

    Reference: Wang et al. 2021 (MiniLMv2, arXiv 2012.15828), section 3.
    """
    check.shape("teacher", teacher, [(*student.shape[:-1], teacher.shape[-1])], "but for the width")
    weights = masked.weights(mask, student.shape[:-1], "as the vectors without their width")
    seen = _seen(weights, causal)
    both = (jax.lax.stop_gradient(teacher), student)
    logs = [_relation(masked.keep(x, weights), seen, heads) for x in both]
    return masked.mean(masked.divergence(*logs).mean(axis=-2), weights)


def minilm(
    student: tuple[Any, Any], teacher: tuple[Any, Any], mask: Any = None, *, causal: bool = False
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """MiniLM: the attention maps of a layer, and the relations of its values.

    `attention_kl` plus `relation_kl` of the values, one piece per head; for the last layer of both.

    Args:
      student: attention maps (..., head, query, key) and values (..., position, head, head_dim).
      teacher: likewise, with as many heads; head_dim may differ.
      mask: (..., position) of the tokens, or `None`.
      causal: as in `relation_kl`.

    Returns:
      The sum of both means in nats, and the sum of the positions' weights.

    Raises:
      ValueError: for shapes that do not agree.

    Example:
      >>> one = jnp.eye(3)[None], jnp.ones((3, 1, 2))
      >>> loss, count = minilm(one, one)
      >>> float(loss), float(count)
      (0.0, 3.0)

    Reference: Wang et al. 2020 (MiniLM, arXiv 2002.10957), section 3.
    """
    (student_map, student_values), (teacher_map, teacher_values) = student, teacher
    heads = student_values.shape[-2]
    expected = (*student_values.shape[:-1], teacher_values.shape[-1])
    check.shape("the teacher's values", teacher_values, [expected], "but for head_dim")
    ours, theirs = (x.reshape(*x.shape[:-2], -1) for x in (student_values, teacher_values))
    maps, count = attention_kl(student_map, teacher_map, mask)
    return maps + relation_kl(ours, theirs, mask, heads=heads, causal=causal)[0], count


def minilm_v2(
    student: Sequence[Any],
    teacher: Sequence[Any],
    mask: Any = None,
    *,
    heads: int,
    alphas: Sequence[Any] = (1.0, 1.0, 1.0),
    causal: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """MiniLMv2: the relations of queries, of keys and of values, each re-split into `heads`.

    sum_i alpha_i * relation_kl_i. Widths and head counts of the two models may differ.

    Args:
      student: queries, keys and values, each (..., position, heads * head_dim).
      teacher: likewise; of an upper layer, not the last, if the teacher is large.
      mask: (..., position) of the tokens, or `None`.
      heads: how many relation heads; the paper takes 48 for a teacher of 12 heads.
      alphas: the weights of the three terms.
      causal: as in `relation_kl`.

    Returns:
      The weighted sum of means in nats, and the sum of the positions' weights.

    Raises:
      ValueError: for lengths or shapes that do not agree.

    Example:
      >>> x = jnp.arange(8.0).reshape(2, 4)
      >>> loss, count = minilm_v2((x, x, x), (x, x, x), heads=2)
      >>> float(loss), float(count)
      (0.0, 2.0)

    Reference: Wang et al. 2021 (MiniLMv2, arXiv 2012.15828), section 3.
    """
    lengths = len(student), len(teacher), len(alphas)
    if len(set(lengths)) != 1:
        raise check.fail("student, teacher and alphas", "one length", lengths)
    terms = [
        relation_kl(ours, theirs, mask, heads=heads, causal=causal)
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    means, counts = (jnp.stack(column) for column in zip(*terms, strict=True))
    return (jnp.stack([jnp.asarray(alpha) for alpha in alphas]) * means).sum(), counts[0]


def _maps(student: Any, teacher: Any, mask: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Maps in float32, the teacher's a constant, and the weights of the positions."""
    check.shape("teacher", teacher, [student.shape], "as the student's")
    shape = (*student.shape[:-3], student.shape[-1])
    weights = masked.weights(mask, shape, "as the maps without heads and keys")
    student, teacher = (x.astype(jnp.float32) for x in (student, jax.lax.stop_gradient(teacher)))
    return student, teacher, weights


def _seen(weights: jax.Array, causal: bool) -> jax.Array:
    """(..., 1, query, key): is the key a token, and the query, and is it not in the future?"""
    real = weights > 0
    seen = real[..., None, :, None] & real[..., None, None, :]
    size = weights.shape[-1]
    past = jnp.tril(jnp.ones((size, size), bool)).reshape((1,) * (seen.ndim - 2) + (size, size))
    return seen & past if causal else seen


def _relation(x: jax.Array, seen: jax.Array, heads: int) -> jax.Array:
    """(..., head, position, position) logarithms of who is like whom."""
    width = x.shape[-1]
    if heads < 1 or width % heads:
        raise check.fail("heads", f"a divisor of the width {width}", heads)
    x = x.reshape(*x.shape[:-1], heads, width // heads)
    scores = jnp.einsum("...thd,...shd->...hts", x, x, precision="highest")
    scores = jnp.where(seen, scores / math.sqrt(width // heads), HIDDEN)
    return jax.nn.log_softmax(scores, axis=-1)
