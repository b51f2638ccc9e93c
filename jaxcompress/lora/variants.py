"""The formulas of LoRA, rsLoRA, DoRA and PiSSA on matrices (..., in, out).

The factors are the transposes of the papers': `a` is (..., in, rank), `b` is (..., rank, out), and
the edit is `scale * a @ b`. The keys of `leaves` say the rest: `m`, a magnitude for each output, is
DoRA; `a0` and `b0`, constants whose product is taken off, are PiSSA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["VARIANTS", "delta", "edited", "norms", "scale", "start"]

VARIANTS = ("lora", "rslora", "dora", "pissa")

HIGHEST = jax.lax.Precision.HIGHEST  # an edit is far smaller than the weight it is added to


def scale(variant: str, rank: int, alpha: float) -> float:
    """What the product of the factors is multiplied by: alpha / rank, for rsLoRA alpha / rank^0.5.

    Example:
      >>> scale("lora", 4, 8.0), scale("rslora", 4, 8.0)
      (2.0, 4.0)

    Reference: Kalajdzievski 2023 (rsLoRA, arXiv 2312.03732), section 3.
    """
    return alpha / (rank**0.5 if variant == "rslora" else rank)


def start(
    variant: str, weight: Float[Array, "... i o"], rank: int, scale: float, key: jax.Array
) -> dict[str, jax.Array]:
    """The leaves with which training starts; the weight is then exactly what it was.

    LoRA draws `a` uniformly within 1 / sqrt(in), as PEFT does, and sets `b` to zero. PiSSA takes
    both from the singular value decomposition of the weight.

    Args:
      variant: see the top.
      weight: (..., in, out).
      rank: columns of `a`, at most the smaller side of the weight.
      scale: as `scale` returns.
      key: typed PRNG key; PiSSA draws nothing.

    Example:
      >>> leaves = start("lora", jnp.ones((4, 3)), 2, 1.0, jax.random.key(0))
      >>> leaves["a"].shape, leaves["b"].shape
      ((4, 2), (2, 3))

    Reference: Hu et al. 2021 (arXiv 2106.09685), section 4.1; Liu et al. 2024 (DoRA, arXiv
    2402.09353), equation 5; Meng et al. 2024 (PiSSA, arXiv 2404.02948), equations 2 to 4.
    """
    weight = weight.astype(jnp.float32)
    if variant == "pissa":
        u, s, v = jnp.linalg.svd(weight, full_matrices=False)
        root = jnp.sqrt(s[..., :rank] / scale)
        a, b = u[..., :rank] * root[..., None, :], root[..., :, None] * v[..., :rank, :]
        return {"a": a, "b": b, "a0": a, "b0": b}
    *lead, inputs, outputs = weight.shape
    bound = inputs**-0.5
    leaves = {
        "a": jax.random.uniform(key, (*lead, inputs, rank), minval=-bound, maxval=bound),
        "b": jnp.zeros((*lead, rank, outputs)),
    }
    return leaves | {"m": norms(weight)} if variant == "dora" else leaves


def norms(weight: Float[Array, "... i o"]) -> Float[Array, "... o"]:
    """The length of the weights of each output.

    Example:
      >>> norms(jnp.array([[3.0, 0.0], [4.0, 1.0]])).tolist()
      [5.0, 1.0]
    """
    return jnp.sqrt(jnp.square(weight).sum(axis=-2))


def delta(leaves: Mapping[str, Any], scale: Any) -> jax.Array:
    """What is added to the weight: scale * (a @ b - a0 @ b0), the constants without a gradient.

    Example:
      >>> delta({"a": jnp.ones((2, 1)), "b": jnp.ones((1, 2))}, 0.5).tolist()
      [[0.5, 0.5], [0.5, 0.5]]
    """
    added = jnp.matmul(leaves["a"], leaves["b"], precision=HIGHEST)
    if "a0" in leaves:
        a0, b0 = (jax.lax.stop_gradient(leaves[name]) for name in ("a0", "b0"))
        # Two products, not one of twice the rank: at the start the difference is exactly zero.
        added = added - jnp.matmul(a0, b0, precision=HIGHEST)
    return scale * added


def edited(
    weight: Float[Array, "... i o"], leaves: Mapping[str, Any], scale: Any
) -> Float[Array, "... i o"]:
    """The weight with the edit in it.

    Args:
      weight: (..., in, out) in float32.
      leaves: see the top.
      scale: as `scale` returns.

    Example:
      >>> leaves = {"a": jnp.zeros((2, 1)), "b": jnp.ones((1, 1)), "m": jnp.array([10.0])}
      >>> edited(jnp.array([[3.0], [4.0]]), leaves, 1.0).tolist()
      [[6.0], [8.0]]

    Reference: Hu et al. 2021 (arXiv 2106.09685), equation 3; Liu et al. 2024 (DoRA, arXiv
    2402.09353), equation 5 and section 4.3, by which the norm is a constant to the gradient.
    """
    moved = weight + delta(leaves, scale)
    if "m" not in leaves:
        return moved
    length = jax.lax.stop_gradient(norms(moved))
    # An output without weights, such as that of a head filled up with zeros, stays without.
    return moved * (leaves["m"] / jnp.where(length > 0, length, 1))[..., None, :]
