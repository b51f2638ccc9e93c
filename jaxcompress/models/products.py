"""Sums of products in full precision."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

__all__ = ["einsum", "wide_einsum"]


def einsum(spec: str, *operands: jax.Array) -> jax.Array:
    """`jnp.einsum` in full precision: on GPU and TPU the default rounds float32 inputs.

    Example:
      >>> einsum("tm,m->t", jnp.eye(2), jnp.arange(2.0)).tolist()
      [0.0, 1.0]
    """
    return jnp.einsum(spec, *operands, precision=jax.lax.Precision.HIGHEST)


def wide_einsum(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """`einsum` of two operands in float32, whatever they are rounded to.

    For scores and logits, which bfloat16 would round to steps of a sixteenth at 8. Tangents and
    cotangents are rounded to the operands' type, so that the products of a backward pass are no
    wider than those of the forward.

    Example:
      >>> ones = jnp.ones((1, 257), jnp.bfloat16)
      >>> einsum("im,jm->ij", ones, ones).item(), wide_einsum("im,jm->ij", ones, ones).item()
      (256.0, 257.0)
    """
    return einsum(spec, x, y) if x.dtype == y.dtype == jnp.float32 else _wide(spec, x, y)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _wide(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum(spec, x, y, precision=highest, preferred_element_type=jnp.float32)


def _tangent(spec, primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    parts = [] if isinstance(dx, SymbolicZero) else [einsum(spec, dx, y)]
    parts += [] if isinstance(dy, SymbolicZero) else [einsum(spec, x, dy)]
    return _wide(spec, x, y), functools.reduce(jnp.add, parts).astype(jnp.float32)


_wide.defjvp(_tangent, symbolic_zeros=True)
