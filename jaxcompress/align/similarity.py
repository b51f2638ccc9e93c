"""How alike two components are: attention patterns, output subspaces, CKA."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcompress.cka import linear_cka

__all__ = ["linear_cka", "mean_pattern", "pattern_cosine", "rescale", "subspace_cosine"]

SUBSPACE = 3  # leading directions of an MLP's output, as published


def mean_pattern(
    pattern: Float[Array, "l b h t s"], mask: Any = None
) -> tuple[Float[Array, "l h t s"], Float[Array, " t"]]:
    """Attention patterns averaged over the prompts, each query over those that have it.

    Args:
      pattern: (layer, batch, head, query, key), the tap of a forward.
      mask: (batch, position), 1 on real tokens, or `None`.

    Returns:
      (layer, head, query, key), and for each query how many prompts have it.

    Example:
      >>> mean, weight = mean_pattern(jnp.ones((1, 2, 1, 3, 3)) / 3)
      >>> mean.shape, weight.tolist()
      ((1, 1, 3, 3), [2.0, 2.0, 2.0])
    """
    batch, length = pattern.shape[1], pattern.shape[3]
    mask = jnp.ones((batch, length)) if mask is None else jnp.asarray(mask, jnp.float32)
    weight = mask.sum(axis=0)
    total = jnp.einsum("lbhts,bt->lhts", pattern, mask)
    return total / jnp.maximum(weight, 1).reshape(1, 1, -1, 1), weight


def pattern_cosine(
    student: Float[Array, "i t s"], teacher: Float[Array, "j t s"], weight: Float[Array, " t"]
) -> Float[Array, "i j"]:
    """Cosine of attention rows, averaged over the queries: the published head similarity.

    `mean_t cos(student[i, t], teacher[j, t])` on patterns averaged over prompts. Rows that no
    prompt has are left out.

    Args:
      student: (head, query, key) mean patterns, all layers in one axis.
      teacher: likewise.
      weight: (query,), zero where no prompt has the query.

    Returns:
      (student head, teacher head) in [0, 1].

    Example:
      >>> eye = jnp.eye(3)[None]
      >>> float(pattern_cosine(eye, eye, jnp.ones(3))[0, 0])
      1.0

    Reference:
      Haskins and Adams 2025 (arXiv 2505.10822), as in their code.
    """
    unit = [
        x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        for x in (student, teacher)
    ]
    rows = (weight > 0).astype(student.dtype)
    return jnp.einsum("its,jts,t->ij", *unit, rows) / jnp.maximum(rows.sum(), 1)


def subspace_cosine(
    student: Float[Array, "i n m"], teacher: Float[Array, "j n m"]
) -> Float[Array, "i j"]:
    """Cosines of the leading output directions of two MLPs: the published MLP similarity.

    Of each MLP's outputs A (tokens, width) the three leading eigenvectors of the uncentred second
    moment A^T A / N; the similarity is the absolute mean of the nine signed cosines. The sign of an
    eigenvector is arbitrary and the published number depends on it; here the largest entry of each
    is made positive, so that the number is at least reproducible.

    Args:
      student: (layer, token, width) MLP outputs.
      teacher: likewise, of the same width.

    Returns:
      (student layer, teacher layer) in [0, 1].

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (1, 20, 5))
      >>> subspace_cosine(x, x).shape
      (1, 1)

    Reference:
      Haskins and Adams 2025 (arXiv 2505.10822), as in their code.
    """

    def leading(outputs: Float[Array, "n m"]) -> Float[Array, "m k"]:
        moment = outputs.T @ outputs / outputs.shape[0]
        vectors = jnp.linalg.eigh(moment)[1][:, -SUBSPACE:]
        largest = jnp.take_along_axis(vectors, jnp.abs(vectors).argmax(0)[None], axis=0)
        return vectors * jnp.where(largest < 0, -1.0, 1.0)

    a, b = jax.vmap(leading)(student), jax.vmap(leading)(teacher)
    return jnp.abs(jnp.einsum("imk,jmq->ijkq", a, b).mean(axis=(2, 3)))


def rescale(mlps: Float[Array, "i j"], heads: Float[Array, "n p"]) -> Float[Array, "i j"]:
    """Puts MLP similarities on the scale of the heads', as published.

    z-scored, times the heads' standard deviation, plus their mean, then divided by the largest. So
    the only pair of two models of one layer, which has no spread, comes out as 1 whatever it was:
    the published scores say nothing of such MLPs.

    Args:
      mlps: (student layer, teacher layer) similarities.
      heads: (student head, teacher head) similarities.

    Returns:
      (student layer, teacher layer); largest entry 1.

    Example:
      >>> float(rescale(jnp.array([[0.1, 0.3]]), jnp.array([[0.5, 0.7]])).max())
      1.0

    Reference:
      Haskins and Adams 2025 (arXiv 2505.10822), as in their code.
    """
    spread = mlps.std()
    z = (mlps - mlps.mean()) / jnp.where(spread > 0, spread, 1.0)
    scaled = z * heads.std() + heads.mean()
    return scaled / scaled.max()
