"""Step functions of thresholds whose gradient is that of their expectation, estimated.

A rectangle as wide as a bandwidth around the threshold stands for the density of what is compared
with it: Rajamanoharan et al. 2024 (arXiv 2407.14435), equations 9 to 12.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["jump", "step"]


@jax.custom_jvp
def step(raw: jax.Array, theta: jax.Array, bandwidth: Any) -> jax.Array:
    """1 where a feature is above its threshold.

    Example:
      >>> x, theta = jnp.array(0.5), jnp.array(0.49)
      >>> float(jax.grad(step, argnums=1)(x, theta, 0.125))  # within half of the bandwidth
      -8.0
    """
    del bandwidth
    return (raw > theta).astype(raw.dtype)


@step.defjvp
def _step_slope(primals: Any, tangents: Any) -> Any:
    raw, theta, bandwidth = primals
    near = _near(raw, theta, bandwidth)
    return step(*primals), -near / bandwidth * tangents[1]


@jax.custom_jvp
def jump(raw: jax.Array, theta: jax.Array, bandwidth: Any) -> jax.Array:
    """`raw` where it is above its threshold, otherwise 0; thresholds are positive.

    Example:
      >>> jump(jnp.array([0.25, 0.75]), jnp.array([0.5, 0.5]), 0.1).tolist()
      [0.0, 0.75]
    """
    del bandwidth
    return jnp.where(raw > theta, raw, 0.0)


@jump.defjvp
def _jump_slope(primals: Any, tangents: Any) -> Any:
    raw, theta, bandwidth = primals
    above = (raw > theta).astype(raw.dtype)
    near = _near(raw, theta, bandwidth)
    return jump(*primals), above * tangents[0] - theta * near / bandwidth * tangents[1]


def _near(raw: jax.Array, theta: jax.Array, bandwidth: Any) -> jax.Array:
    return (jnp.abs(raw - theta) < bandwidth / 2).astype(raw.dtype)
