"""Linear CKA: how alike two sets of activations are, whatever their bases; plain and debiased."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcompress import check

__all__ = ["linear_cka", "pairwise_cka"]


def linear_cka(
    x: Float[Array, "n p"],
    y: Float[Array, "n q"],
    mask: Any = None,
    *,
    debiased: bool = False,
) -> Float[Array, ""]:
    """Linear centred kernel alignment of two sets of activations of the same tokens.

    HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)), with HSIC(x, y) = ||x^T y||^2 of centred columns. As a
    loss take 1 minus it. The gradient goes to both. No matrix (token, token) is formed.

    Args:
      x: (token, channel).
      y: (token, channel), any number of channels.
      mask: (token,): tokens where it is 0 are left out; `None` keeps all.
      debiased: use the unbiased HSIC_1 in its place, for reporting: with few tokens for the number
        of channels the plain one is near 1 for anything. May then be negative.

    Returns:
      A scalar, at most 1; 0 if either is constant.

    Raises:
      ValueError: for a mask of another shape, or fewer than 4 tokens for the debiased one.

    Example:
      >>> x = jnp.sin(jnp.arange(12.0)).reshape(6, 2)
      >>> bool(jnp.isclose(linear_cka(x, 3 * x[:, ::-1]), 1.0))
      True

    Reference: Kornblith et al. 2019 (arXiv 1905.00414), section 3; Nguyen et al. 2021
      (arXiv 2010.15327), section 2, for the debiased one.
    """
    if debiased and len(x) < 4:
        raise check.fail("x", "at least 4 tokens for the debiased CKA", f"{len(x)}")
    kept = jnp.ones(len(x), jnp.float32)
    if mask is not None:
        check.shape("mask", mask, [x.shape[:1]], "(token,)")
        kept = (jnp.asarray(mask) > 0).astype(jnp.float32)
    x, y = (_unit(_centred(z, kept)) for z in (x, y))
    hsic = _unbiased_hsic if debiased else _hsic
    own = hsic(x, x, kept) * hsic(y, y, kept)
    return jnp.where(own > 0, hsic(x, y, kept) / jnp.sqrt(jnp.where(own > 0, own, 1.0)), 0.0)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision="highest")


def _centred(x: jax.Array, kept: jax.Array) -> jax.Array:
    # Less the first token that is kept, whatever is constant is exactly 0.
    x = x.astype(jnp.float32) - jax.lax.stop_gradient(x[jnp.argmax(kept)][None].astype(jnp.float32))
    # A NaN at a token that is left out would otherwise reach the gradient.
    x = jnp.where(kept[:, None] > 0, x, 0.0)
    mean = x.sum(axis=0, keepdims=True) / jnp.maximum(kept.sum(), 1)
    return (x - mean) * kept[:, None]


def _unit(x: jax.Array) -> jax.Array:
    """Of norm 1, as what follows is of eighth order and would leave float32; 0 stays 0.

    CKA does not depend on the scale, so nothing is to be differentiated in it.
    """
    # The largest first: squares of large numbers overflow, and those of small ones vanish.
    for size in (lambda x: jnp.abs(x).max(), jnp.linalg.norm):
        scale = size(jax.lax.stop_gradient(x))
        x = x / jnp.where(scale > 0, scale, 1.0)
    return x


def _hsic(x: jax.Array, y: jax.Array, kept: jax.Array) -> jax.Array:
    del kept
    return (_product(x.T, y) ** 2).sum()


def _unbiased_hsic(x: jax.Array, y: jax.Array, kept: jax.Array) -> jax.Array:
    """HSIC_1 times n (n - 3), from x x^T and y y^T with empty diagonals, neither of them formed."""
    n = kept.sum()
    diagonals = [(z * z).sum(axis=-1) for z in (x, y)]
    rows = [_product(z, z.sum(axis=0)) - d for z, d in zip((x, y), diagonals, strict=True)]
    trace = _hsic(x, y, kept) - (diagonals[0] * diagonals[1]).sum()
    sums = rows[0].sum() * rows[1].sum() / jnp.maximum((n - 1) * (n - 2), 1)
    return trace + sums - 2 * (rows[0] * rows[1]).sum() / jnp.maximum(n - 2, 1)


def pairwise_cka(x: Float[Array, "i n p"], y: Float[Array, "j n q"]) -> Float[Array, "i j"]:
    """Debiased linear CKA of all pairs of two sets of components, from their Gram matrices.

    The cost grows with the square of the tokens and not of the channels: for few tokens.

    Args:
      x: (component, token, channel).
      y: (component, token, channel), of the same tokens; any number of channels.

    Returns:
      (component, component), at most 1; about 0 for unrelated ones, and negative by chance.

    Raises:
      ValueError: for fewer than 4 tokens, or other tokens in `y`.

    Example:
      >>> x = jnp.sin(jnp.arange(40.0)).reshape(1, 10, 4)
      >>> bool(jnp.isclose(pairwise_cka(x, 2 * x[..., ::-1])[0, 0], 1.0))
      True

    Reference: Nguyen et al. 2021 (arXiv 2010.15327), section 2.
    """
    if x.shape[1] < 4 or x.shape[1] != y.shape[1]:
        raise check.fail("x and y", "the same tokens, at least 4", f"{x.shape[1]}, {y.shape[1]}")
    a, b = _unit_gram(x), _unit_gram(y)
    return jnp.einsum("inm,jnm->ij", a, b, precision="highest")


def _unit_gram(x: jax.Array) -> jax.Array:
    """U-centred Gram matrices of norm 1 (0 for a component that is constant)."""
    x = x.astype(jnp.float32) - x.mean(axis=1, keepdims=True)
    n = x.shape[1]
    off = 1.0 - jnp.eye(n)[None]
    gram = jnp.einsum("inp,imp->inm", x, x, precision="highest") * off
    rows = gram.sum(axis=2) / (n - 2)
    mean = gram.sum(axis=(1, 2)) / ((n - 1) * (n - 2))
    gram = (gram - rows[:, :, None] - rows[:, None, :] + mean[:, None, None]) * off
    norm = jnp.sqrt((gram**2).sum(axis=(1, 2), keepdims=True))
    return gram / jnp.where(norm > 0, norm, 1.0)
