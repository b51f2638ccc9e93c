"""Clock or pizza: two algorithms for modular addition, told apart from outside.

The clock multiplies the embeddings of a and b (attention), the pizza adds them and takes absolute
values (a ReLU). What is symmetric in its inputs has equal gradients at both; the pizza's right
logit falls with the distance a - b, as |cos(w (a - b) / 2)|, the clock's does not.

Reference: Zhong et al. 2023 (arXiv 2306.17844), definitions 4.1 and 4.2, and their code.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcompress import check

__all__ = ["algorithm", "circularity", "distance_irrelevance", "gradient_symmetry"]


def gradient_symmetry(
    model: Any, tokens: Int[Any, "triple position"], classes: Int[Any, "triple"]
) -> Float[Array, "triple"]:
    """Cosine of the gradients of one logit at the embeddings of a and of b (definition 4.1).

    The gradient symmetricity of a network is the mean over random triples (a, b, c); the authors
    draw 100 of all p^3.

    Args:
      model: with `params` (learned or no positions) and `resume`, see `models.Model`.
      tokens: a, b and what follows.
      classes: c, whose logit at the last position is differentiated.

    Returns:
      In [-1, 1]; 1 if both inputs are treated alike.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="research", layers=1, heads=2, kv_heads=2, head_dim=4,
      ...                      width=8, neurons=16, vocab=5, context=2, tied=False,
      ...                      attention_coefficient=0.0, causal=False, norm="none",
      ...                      final_norm=False)
      >>> model = create(config, key=jax.random.key(0))
      >>> gradient_symmetry(model, jnp.array([[1, 2]]), jnp.array([3])).shape
      (1,)
    """
    check.shape("classes", classes, [(len(tokens),)], "(triple,)")
    embed = model.params["embed"]
    stream = embed["tokens"][jnp.asarray(tokens)]
    if "positions" in embed:
        stream = stream + embed["positions"][None, : stream.shape[1]]

    def logit(stream: Any, c: Any) -> Any:
        return model.resume(model.params, stream[None], 0).logits[0, -1, c]

    # The gradient at the stream is that at the embedding: positions are only added to it.
    slopes = jax.vmap(jax.grad(logit))(stream, jnp.asarray(classes))
    unit = slopes / jnp.linalg.norm(slopes, axis=-1, keepdims=True)
    return jnp.sum(unit[:, 0] * unit[:, 1], axis=-1)


def distance_irrelevance(logits: Float[Any, "pair vocab"], p: int) -> Float[Array, ""]:
    """How little the right answer's logit depends on the distance a - b (definition 4.2).

    With M[a + b, a - b] the logit of the right answer: the mean over distances of the standard
    deviation over sums, divided by the standard deviation of all entries.

    Args:
      logits: of all pairs, pair a * p + b, at the last position.
      p: an odd modulus.

    Returns:
      About 1 if distance explains nothing (clock), about 0 if it explains everything (pizza).

    Raises:
      ValueError: for logits of other pairs, and for an even modulus.

    Example:
      >>> a, b = np.arange(25) // 5, np.arange(25) % 5
      >>> right = np.eye(5)[(a + b) % 5] * np.cos(np.pi * (a - b) / 5)[:, None] ** 2
      >>> round(float(distance_irrelevance(right, 5)), 6)
      0.0
    """
    if check.integer("p", p, 3) % 2 == 0:
        raise check.fail("p", "an odd modulus", p)
    logits = jnp.asarray(logits)
    if logits.ndim != 2 or logits.shape[0] != p * p or logits.shape[1] < p:
        raise check.fail("logits", f"({p * p}, at least {p}): all pairs", logits.shape)
    a, b = np.arange(p * p) // p, np.arange(p * p) % p
    right = logits[np.arange(p * p), (a + b) % p]
    place = np.zeros((p, p), int)
    place[(a + b) % p, (a - b) % p] = np.arange(p * p)
    by_sum_and_distance = right[place]
    return by_sum_and_distance.std(axis=0).mean() / right.std()


def circularity(embedding: Float[Any, "p width"], components: int = 4) -> Float[Array, ""]:
    """How round the embedding is: the share of one frequency in its first principal components.

    The mean over the components of the largest share of variance that a single frequency has.

    Args:
      embedding: of the tokens 0, ..., p - 1.
      components: principal components that are looked at.

    Returns:
      In [0, 1]; networks above 0.995 are called circular in the paper.

    Example:
      >>> angle = 2 * np.pi * 2 * np.arange(5) / 5
      >>> round(float(circularity(np.stack([np.cos(angle), np.sin(angle)], 1), 2)), 4)
      1.0

    Reference: Zhong et al. 2023 (arXiv 2306.17844), appendix B.
    """
    embedding = jnp.asarray(embedding)
    check.integer("components", components, 1, min(embedding.shape))
    _, _, axes = jnp.linalg.svd(embedding - embedding.mean(0)[None], full_matrices=False)
    spectrum = jnp.abs(jnp.fft.rfft((embedding @ axes[:components].T).T)[:, 1:]) ** 2
    return (spectrum.max(1) / spectrum.sum(1)).mean()


def algorithm(symmetry: float, irrelevance: float) -> Literal["clock", "pizza", "neither"]:
    """Names the algorithm. The limits are ours (the paper draws clouds, not lines).

    Args:
      symmetry: mean of `gradient_symmetry`.
      irrelevance: `distance_irrelevance`.

    Returns:
      `pizza` above 0.9 and below 0.5, `clock` below 0.9 and above 0.5.

    Example:
      >>> algorithm(0.994, 0.172), algorithm(0.334, 0.848), algorithm(0.99, 0.9)
      ('pizza', 'clock', 'neither')
    """
    if symmetry > 0.9 and irrelevance < 0.5:
        return "pizza"
    return "clock" if symmetry < 0.9 and irrelevance > 0.5 else "neither"
