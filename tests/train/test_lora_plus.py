"""LoRA+ is two learning rates, whatever the optimizer before it does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress.train.lora_plus import lora_plus


def run(optimizer, params, gradients):
    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return params


def test_it_is_two_optimizers():
    keys = jax.random.split(jax.random.key(0), 3)
    tree = {"x/kernel": {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 3)), "m": jnp.ones(3)}}
    gradients = [
        jax.tree.map(lambda leaf, key=key: jax.random.normal(key, leaf.shape), tree) for key in keys
    ]
    rate = optax.linear_schedule(0.1, 0.0, 5)
    got = run(lora_plus(optax.adamw(rate, weight_decay=0.1), ratio=8), tree, gradients)
    slow = run(optax.adamw(rate, weight_decay=0.1), tree, gradients)
    fast = run(optax.adamw(lambda i: 8 * rate(i), weight_decay=0.1), tree, gradients)
    for name, expected in (("a", slow), ("m", slow), ("b", fast)):
        np.testing.assert_allclose(
            got["x/kernel"][name], expected["x/kernel"][name], rtol=1e-5, atol=1e-6
        )
    assert not np.allclose(slow["x/kernel"]["b"], fast["x/kernel"]["b"], atol=0.1)


def test_wrong_ratio():
    with pytest.raises(ValueError, match="ratio: expected a number above 0, got 0"):
        lora_plus(optax.sgd(0.1), ratio=0)
