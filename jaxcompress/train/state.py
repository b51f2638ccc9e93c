"""Everything a run of training needs to go on: parameters, optimiser state, step and key."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcompress import check

__all__ = ["State", "create"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """A pytree; what a checkpoint holds.

    Attributes:
      params: any pytree of arrays.
      opt_state: of the optax transformation.
      step: () int32, updates done so far.
      key: typed PRNG key of the run. It never changes: every step folds its number into it, so that
        what is random depends on the step alone and a resumed run draws the same.
    """

    params: Any
    opt_state: Any
    step: Any
    key: Any


def create(params: Any, optimizer: optax.GradientTransformation, key: Any) -> State:
    """The state before the first step.

    Args:
      params: any pytree of arrays; copied on no account, `fit` does.
      optimizer: an optax transformation.
      key: one typed PRNG key.

    Raises:
      ValueError: for a legacy or batched key.

    Example:
      >>> state = create({"w": jnp.ones(3)}, optax.sgd(0.1), jax.random.key(0))
      >>> int(state.step)
      0
    """
    typed = jnp.issubdtype(getattr(key, "dtype", float), jax.dtypes.prng_key)
    if not typed or key.shape != ():
        got = getattr(key, "dtype", type(key).__name__)
        raise check.fail("key", "one typed PRNG key", got, "Make one with jax.random.key(seed)")
    return State(params, optimizer.init(params), jnp.zeros((), jnp.int32), key)
