"""One update: gradient of a loss, through an optimiser, into a new state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcompress import check
from jaxcompress.train.state import State

__all__ = ["Loss", "Step", "make_step", "mixed_precision"]

Loss = Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]]
"""`loss(params, batch, key) -> (scalar, metrics)`; the metrics are scalars by name."""

Step = Callable[[State, Any], tuple[State, dict[str, Any]]]
"""`step(state, batch) -> (state, metrics)`."""


def make_step(loss: Loss, optimizer: optax.GradientTransformation, *, accumulate: int = 1) -> Step:
    """The pure update that belongs to a loss; safe under `jit` and `scan`.

    Args:
      loss: of parameters, batch and key; the key is another one for every step.
      optimizer: an optax transformation.
      accumulate: parts that a batch is cut into, whose gradients are computed one after the other
        to save memory. The loss must then be a mean over as many things as its metric `count`
        says (what the losses of `jaxcompress.distill` return): the parts are weighted by it, so
        that the update is that of the whole batch however unevenly a mask spreads over the parts.

    Returns:
      A function of state and batch. It returns the next state, and the metrics of the loss with
      `loss` and `grad_norm` (the global norm before the optimiser) among them.

    Raises:
      ValueError: if `accumulate` does not divide the batch, or the loss has no metric `count`.

    Example:
      >>> from jaxcompress.train.state import create
      >>> optimizer = optax.sgd(0.25)
      >>> step = make_step(lambda w, x, key: (((w - x) ** 2).sum(), {}), optimizer)
      >>> state, metrics = step(create(jnp.ones(1), optimizer, jax.random.key(0)), jnp.zeros(1))
      >>> float(state.params[0]), float(metrics["loss"])
      (0.5, 1.0)
    """
    check.integer("accumulate", accumulate, 1)
    one = jax.value_and_grad(loss, has_aux=True)

    def whole(params: Any, batch: Any, key: Any) -> tuple[dict[str, Any], Any]:
        (value, metrics), gradient = one(params, batch, key)
        return metrics | {"loss": value}, gradient

    gradient_of = whole if accumulate == 1 else _accumulated(whole, accumulate)

    def step(state: State, batch: Any) -> tuple[State, dict[str, Any]]:
        key = jax.random.fold_in(state.key, state.step)
        metrics, gradient = gradient_of(state.params, batch, key)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = metrics | {"grad_norm": optax.tree.norm(gradient)}
        changes = {"params": params, "opt_state": opt_state, "step": state.step + 1}
        return dataclasses.replace(state, **changes), metrics

    return step


def mixed_precision(loss: Loss, dtype: str = "bfloat16") -> Loss:
    """A loss that is given its parameters in half precision; the optimiser keeps them in float32.

    The gradient comes back through the rounding in float32, so that small updates are not lost.
    Our transformers need this less than other networks: `ModelConfig.dtype` alone computes in
    bfloat16 from float32 parameters, with norms, softmax and logits in float32.

    Args:
      loss: as for `make_step`; what it computes from floats of the batch stays in their type.
      dtype: a floating type.

    Example:
      >>> loss = mixed_precision(lambda w, x, key: (w.sum(), {"bytes": w.dtype.itemsize}))
      >>> jax.grad(loss, has_aux=True)(jnp.ones(2), None, None)
      (Array([1., 1.], dtype=float32), {'bytes': 2})
    """
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise check.fail("dtype", "a floating type", dtype)

    def lower(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    def lowered(params: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        value, metrics = loss(jax.tree.map(lower, params), batch, key)
        return value.astype(jnp.float32), metrics

    return lowered


_Gradient = Callable[[Any, Any, Any], tuple[dict[str, Any], Any]]


def _accumulated(whole: _Gradient, parts: int) -> _Gradient:
    """The mean of metrics and gradients of parts of a batch, each weighted by its `count`."""

    def cut(leaf: Any) -> Any:
        if leaf.shape[0] % parts:
            raise check.fail("batch", f"a multiple of accumulate ({parts})", leaf.shape[0])
        # Every parts-th row, not runs of rows: where rows are spread over devices, each device
        # then has its share of every part.
        return jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)

    def gradient_of(params: Any, batch: Any, key: Any) -> tuple[dict[str, Any], Any]:
        def body(total: Any, part: Any) -> tuple[Any, dict[str, Any]]:
            number, rows = part
            metrics, gradient = whole(params, rows, jax.random.fold_in(key, number))
            if "count" not in metrics:
                hint = "Without it parts of a batch cannot be weighted"
                raise check.fail("metrics of the loss", "a 'count'", sorted(metrics), hint)
            weighted = jax.tree.map(lambda leaf: metrics["count"] * leaf, gradient)
            return jax.tree.map(jnp.add, total, weighted), metrics

        zeros = jax.tree.map(jnp.zeros_like, params)
        numbered = (jnp.arange(parts), jax.tree.map(cut, batch))
        total, metrics = jax.lax.scan(body, zeros, numbered)
        counts = metrics.pop("count")
        count = counts.sum()
        scale = 1 / jnp.where(count > 0, count, 1)
        means = {name: scale * (counts * value).sum() for name, value in metrics.items()}
        return means | {"count": count}, jax.tree.map(lambda leaf: scale * leaf, total)

    return gradient_of
