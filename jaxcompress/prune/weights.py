"""What a single weight is worth: scores of the shape of the weights, higher is kept longer.

A kernel is seen as (..., inputs, outputs), with any number of leading axes along which separate
matrices are stacked; `jaxcompress.matrices` gives that view of a model's leaf. What comes from
data (gradients, norms of inputs) is passed in, so that all criteria can be had from one pass.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = [
    "fisher",
    "lamp",
    "magnitude",
    "random",
    "snip",
    "wanda",
]


def magnitude(weight: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """|w|, in float32.

    Example:
      >>> magnitude(jnp.array([1.0, -2.0])).tolist()
      [1.0, 2.0]

    Reference: Han et al. 2015 (arXiv 1506.02626), section 3.
    """
    return jnp.abs(weight.astype(jnp.float32))


def random(key: jax.Array, weight: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Uniform in [0, 1): the control that every criterion has to beat.

    Example:
      >>> random(jax.random.key(0), jnp.zeros((2, 3))).shape
      (2, 3)
    """
    return jax.random.uniform(key, weight.shape)


def snip(weights: Any, gradients: Any) -> Any:
    """Connection sensitivity: |g w| as a share of its sum over all weights.

    Args:
      weights: any pytree; the sum is over all of it.
      gradients: of the loss, likewise.

    Returns:
      Scores that sum to 1; all zero if every |g w| is.

    Example:
      >>> snip(jnp.array([1.0, -3.0]), jnp.array([1.0, 1.0])).tolist()
      [0.25, 0.75]

    Reference: Lee et al. 2019 (arXiv 1810.02340), equation 6.
    """
    effect = jax.tree.map(lambda w, g: magnitude(w) * magnitude(g), weights, gradients)
    total = jnp.asarray(sum(leaf.sum() for leaf in jax.tree.leaves(effect)))
    return jax.tree.map(lambda leaf: leaf / jnp.where(total > 0, total, 1.0), effect)


def fisher(
    weight: Float[Array, "*axes"], curvature: Float[Array, "*axes"]
) -> Float[Array, "*axes"]:
    """Optimal brain damage: h w^2 / 2, the rise of the loss if h is the diagonal of its Hessian.

    Args:
      weight: any shape.
      curvature: h. For the Fisher diagonal the mean over examples of the squared gradient of one
        example: of labels drawn from the model, or of the data's ("empirical" Fisher). The square
        of the mean gradient is something else.

    Example:
      >>> fisher(jnp.array([1.0, -2.0]), jnp.array([4.0, 3.0])).tolist()
      [2.0, 6.0]

    Reference: LeCun et al. 1990 (Optimal Brain Damage), equation 5; Theis et al. 2018
    (arXiv 1801.05787), equation 6.
    """
    return 0.5 * curvature.astype(jnp.float32) * magnitude(weight) ** 2


def wanda(
    kernel: Float[Array, "*stack i o"], input_norm: Float[Array, "*stack i"]
) -> Float[Array, "*stack i o"]:
    """|w_ij| ||x_i||: its square is the output error of zeroing that weight alone.

    Made to be ranked within each output (`patterns.per_row`), not across the matrix.

    Args:
      kernel: (..., inputs, outputs).
      input_norm: (..., inputs), the L2 norm of each input over all calibration tokens.

    Example:
      >>> wanda(jnp.array([[1.0, -1.0], [2.0, 0.0]]), jnp.array([3.0, 0.5])).tolist()
      [[3.0, 3.0], [1.0, 0.0]]

    Reference: Sun et al. 2024 (arXiv 2306.11695), equation 1.
    """
    return magnitude(kernel) * input_norm.astype(jnp.float32)[..., None]


def lamp(squares: Float[Array, "*stack i o"]) -> Float[Array, "*stack i o"]:
    """Makes scores of several matrices comparable: each as a share of those not yet pruned.

    s_u / sum_v s_v over the v of the same matrix that would be pruned no earlier than u; of equal
    scores the later index goes first. The largest of each matrix gets 1, so that no matrix
    disappears in a global selection before every other is down to its last weight.

    Args:
      squares: (..., inputs, outputs) at least 0; squared weights, as published.

    Returns:
      Scores in [0, 1], for `patterns.global_`; those of a matrix of zeros are 0.

    Example:
      >>> lamp(jnp.array([[1.0, 3.0, 4.0]])).tolist()
      [[0.125, 0.4285..., 1.0]]

    Reference: Lee et al. 2021 (arXiv 2010.07611), equation 1.
    """
    flat = squares.reshape(*squares.shape[:-2], -1)
    order = jnp.argsort(flat, axis=-1, descending=True, stable=True)
    ranked = jnp.take_along_axis(flat, order, axis=-1)
    total = jnp.cumsum(ranked, axis=-1)
    shares = ranked / jnp.where(total > 0, total, 1.0)
    return jnp.put_along_axis(flat, order, shares, axis=-1, inplace=False).reshape(squares.shape)
