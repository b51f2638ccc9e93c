"""L0 gates: numbers in [0, 1] that are often exactly 0 or 1 and still have a gradient.

Gates are drawn by `sample_gate` while training and are those of `noiseless_gate` afterwards;
`lagrangian` holds their expected number at a target.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["Multipliers", "expected_open", "lagrangian", "noiseless_gate", "sample_gate"]

# beta, gamma and zeta of the paper: temperature, and the interval the gate is stretched to before
# it is clipped to [0, 1].
TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1


def sample_gate(key: jax.Array, log_alpha: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Random hard-concrete gates, differentiable in `log_alpha`: for training.

    Args:
      key: typed.
      log_alpha: location of each gate; large is open.

    Returns:
      Gates in [0, 1], 0 and 1 included.

    Example:
      >>> sample_gate(jax.random.key(0), jnp.array([-9.0, 9.0])).tolist()
      [0.0, 1.0]

    Reference: Louizos et al. 2018 (arXiv 1712.01312), equations 10 and 11.
    """
    noise = jax.random.logistic(key, log_alpha.shape, log_alpha.dtype)
    return _stretched((noise + log_alpha) / TEMPERATURE)


def expected_open(log_alpha: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Probability that a gate is not 0; the sum is the expected number of open gates.

    Example:
      >>> round(float(expected_open(jnp.array(0.0))), 4)
      0.8318

    Reference: Louizos et al. 2018 (arXiv 1712.01312), equation 12.
    """
    return jax.nn.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


def noiseless_gate(log_alpha: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """The gate without noise: for evaluation.

    Example:
      >>> noiseless_gate(jnp.array([-9.0, 0.0, 9.0])).tolist()
      [0.0, 0.5, 1.0]

    Reference: Louizos et al. 2018 (arXiv 1712.01312), equation 13.
    """
    return _stretched(log_alpha)


def _stretched(logit: Any) -> Any:
    return jnp.clip(jax.nn.sigmoid(logit) * (HIGH - LOW) + LOW, 0.0, 1.0)


class Multipliers(NamedTuple):
    """Multipliers of `lagrangian`, trained by ascent (`schedule.ascend`); zeros to begin with.

    Attributes:
      linear: of the gaps.
      quadratic: of the squared gaps.
    """

    linear: Any
    quadratic: Any


def lagrangian(
    size: Float[Array, "*targets"], target: Any, multipliers: Multipliers
) -> Float[Array, ""]:
    """What holds expected sizes at their targets: descend on the gates, ascend on the multipliers.

    sum_j linear_j (size_j - target_j) + quadratic_j (size_j - target_j)^2.

    Args:
      size: expected sizes, best as fractions; `expected_open(log_alpha).mean()` is one.
      target: likewise, or one number for all; may move with the step, by `optax.linear_schedule`
        from the full size for instance.
      multipliers: likewise.

    Example:
      >>> float(lagrangian(jnp.array(0.75), 0.5, Multipliers(jnp.array(2.0), jnp.array(4.0))))
      0.75

    Reference: Xia et al. 2024 (arXiv 2310.06694), section 2.1.
    """
    gap = size - target
    return jnp.sum(multipliers.linear * gap + multipliers.quadratic * gap**2)
