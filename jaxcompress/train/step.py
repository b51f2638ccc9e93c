"""One update: gradient of a loss, through an optimiser, into a new state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxcompress.train.state import State

__all__ = ["Loss", "Step", "make_step"]

Loss = Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]]
"""`loss(params, batch, key) -> (scalar, metrics)`; the metrics are scalars by name."""

Step = Callable[[State, Any], tuple[State, dict[str, Any]]]
"""`step(state, batch) -> (state, metrics)`."""


def make_step(loss: Loss, optimizer: optax.GradientTransformation) -> Step:
    """The pure update that belongs to a loss; safe under `jit` and `scan`.

    Args:
      loss: of parameters, batch and key; the key is another one for every step.
      optimizer: an optax transformation.

    Returns:
      A function of state and batch. It returns the next state, and the metrics of the loss with
      `loss` and `grad_norm` (the global norm before the optimiser) among them.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcompress.train.state import create
      >>> optimizer = optax.sgd(0.25)
      >>> step = make_step(lambda w, x, key: (((w - x) ** 2).sum(), {}), optimizer)
      >>> state, metrics = step(create(jnp.ones(1), optimizer, jax.random.key(0)), jnp.zeros(1))
      >>> float(state.params[0]), float(metrics["loss"])
      (0.5, 1.0)
    """

    def step(state: State, batch: Any) -> tuple[State, dict[str, Any]]:
        key = jax.random.fold_in(state.key, state.step)
        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, batch, key
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = metrics | {"loss": value, "grad_norm": optax.tree.norm(gradient)}
        changes = {"params": params, "opt_state": opt_state, "step": state.step + 1}
        return dataclasses.replace(state, **changes), metrics

    return step
