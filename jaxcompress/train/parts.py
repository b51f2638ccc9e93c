"""Optimizers for parameters that are of several kinds, and losses that are told the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxcompress import check
from jaxcompress.prune.schedule import ascend

__all__ = ["by_part", "counted", "counter"]

_KINDS = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "ascent": lambda rate: ascend(optax.sgd(rate)),
}
_STEP = "step"


def by_part(
    parts: Mapping[str, tuple[Literal["adam", "sgd", "ascent"], float]],
) -> optax.GradientTransformation:
    """An optimizer of its own for each of the top-level parts of the parameters.

    Args:
      parts: by name of the part, the kind of optimizer and its rate. The `counter` needs none.

    Raises:
      ValueError: for an unknown kind.

    Example:
      >>> optimizer = by_part({"gates": ("sgd", 0.5), "multipliers": ("ascent", 0.5)})
      >>> params = {"gates": jnp.ones(()), "multipliers": jnp.ones(()), **counter()}
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> {name: float(update) for name, update in updates.items()}
      {'gates': -0.5, 'multipliers': 0.5, 'step': -0.0}
    """
    for kind, _ in parts.values():
        check.known("parts", kind, _KINDS)
    made = {name: _KINDS[kind](rate) for name, (kind, rate) in parts.items()}
    return optax.partition({**made, _STEP: optax.sgd(1.0)}, {name: name for name in (*made, _STEP)})


def counter() -> dict[str, jax.Array]:
    """The part of the parameters in which `counted` counts.

    Example:
      >>> counter()
      {'step': Array(0., dtype=float32)}
    """
    return {_STEP: jnp.zeros(())}


def counted(loss: Callable[..., Any]) -> Callable[..., Any]:
    """A loss for `make_step` from one that is told how many updates there were before.

    The step is a leaf of the parameters with gradient -1, which `by_part` raises by one in every
    update: so it is saved and resumed with them.

    Args:
      loss: `(params, batch, key, step) -> (value, metrics)`.

    Example:
      >>> loss = counted(lambda params, batch, key, step: (params["w"] * step, {}))
      >>> value, _ = loss({"w": jnp.array(3.0), "step": jnp.array(2.0)}, None, None)
      >>> float(value)
      6.0
    """

    def told(params: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        now = jax.lax.stop_gradient(params[_STEP])
        value, metrics = loss(params, batch, key, now)
        return value - (params[_STEP] - now), metrics

    return told
