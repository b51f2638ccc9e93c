"""Accumulated gradients are those of the whole batch; master weights stay in float32."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress import train
from jaxcompress.models import transformer
from tests.train import tiny


def quiet(rows=8):
    """A batch whose rows have unequal numbers of tokens, without noise."""
    return jax.tree.map(jnp.asarray, tiny.data(noise=0.0, rows=rows))


@functools.cache
def updated(accumulate):
    """Parameters after one step of plain gradient descent, and the metrics."""
    optimizer = optax.sgd(1.0)
    step = train.make_step(tiny.loss, optimizer, accumulate=accumulate)
    state = train.create(tiny.start().params, optimizer, jax.random.key(0))
    state, metrics = jax.jit(step)(state, quiet())
    return state.params, metrics


@pytest.mark.parametrize("accumulate", [2, 8])
def test_accumulated_is_the_whole_batch(accumulate):
    (params, metrics), (whole, expected) = updated(accumulate), updated(1)
    assert set(metrics) == set(expected) == {"count", "loss", "grad_norm"}
    assert metrics["count"] == expected["count"] == quiet()["mask"][:, 1:].sum()
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)
    for part, leaf in zip(jax.tree.leaves(params), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(part, leaf, atol=1e-6)


def mean(params, batch, key):
    """The mean of the numbers that count; its gradient is -1."""
    count = batch["counts"].sum()
    total = (batch["x"] * batch["counts"]).sum()
    return total / jnp.maximum(count, 1) - params, {"count": count, "key": jax.random.uniform(key)}


def test_weights_are_counts(key):
    """One part has no token at all, another nearly all: the mean of means would be wrong."""
    x, counts = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0.0, 3.0, 0.0, 1.0])
    optimizer = optax.sgd(0.1)
    step = train.make_step(mean, optimizer, accumulate=2)
    state, metrics = step(train.create(jnp.zeros(()), optimizer, key), {"x": x, "counts": counts})
    assert float(metrics["loss"]) == (3 * 2 + 1 * 4) / 4
    assert float(metrics["count"]) == 4
    np.testing.assert_allclose(state.params, 0.1, rtol=1e-6)
    nothing = {"x": x, "counts": jnp.zeros(4)}
    state, metrics = step(train.create(jnp.zeros(()), optimizer, key), nothing)
    assert float(metrics["loss"]) == float(state.params) == 0.0


def test_parts_draw_different_noise(key):
    optimizer = optax.sgd(0.1)
    step = train.make_step(mean, optimizer, accumulate=2)
    batch = {"x": jnp.ones(2), "counts": jnp.array([1.0, 0.0])}
    first, second = (
        step(train.create(jnp.zeros(()), optimizer, key), batch | {"counts": counts})[1]["key"]
        for counts in (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    )
    assert first != second


def test_what_cannot_be_accumulated(key):
    optimizer = optax.sgd(0.1)
    state = train.create(jnp.zeros(()), optimizer, key)
    batch = {"x": jnp.ones(4), "counts": jnp.ones(4)}
    with pytest.raises(ValueError, match=r"batch: expected a multiple of accumulate \(3\), got 4"):
        train.make_step(mean, optimizer, accumulate=3)(state, batch)
    bare = lambda params, batch, key: (params, {})  # noqa: E731
    with pytest.raises(ValueError, match="metrics of the loss: expected a 'count'"):
        train.make_step(bare, optimizer, accumulate=2)(state, batch)
    with pytest.raises(ValueError, match="accumulate: expected a whole number >= 1, got 0"):
        train.make_step(mean, optimizer, accumulate=0)


def test_master_weights_are_float32(key):
    """Updates far below the spacing of bfloat16 (1/128 at 1) add up."""
    seen = []

    def loss(params, batch, key):
        seen.append((params["w"].dtype, params["count"].dtype))
        return params["w"].sum(), {}

    optimizer = optax.masked(optax.sgd(1e-4), {"w": True, "count": False})
    weights = {"w": jnp.ones(2), "count": jnp.ones(1)}
    step = jax.jit(train.make_step(train.mixed_precision(loss), optimizer))
    state = train.create(weights, optimizer, key)
    for _ in range(10):
        state, metrics = step(state, None)
    assert seen[0] == (jnp.bfloat16, jnp.bfloat16)
    assert state.params["w"].dtype == metrics["loss"].dtype == jnp.float32
    np.testing.assert_allclose(state.params["w"], 1 - 10e-4, rtol=1e-6)


@functools.cache
def gradient(**changes):
    """Value and gradient of a loss of the tiny model with a changed configuration, compiled."""
    config = dataclasses.replace(tiny.CONFIG, **changes)

    def loss(params):
        logits = transformer.apply(config, params, jnp.asarray(quiet()["tokens"])).logits
        return (jax.nn.log_softmax(logits)[..., 0] ** 2).mean()

    params = jax.jit(transformer.init, static_argnums=0)(config, jax.random.key(1))
    compiled = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
    return *compiled(params), compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("scan", [True, False])
def test_blocks_that_are_computed_again_give_the_same(scan):
    value, whole, _ = gradient()
    again, remat, _ = gradient(remat=True, scan=scan)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(remat), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_blocks_that_are_computed_again_are_not_kept():
    """Sixteen layers: their activations are most of the memory, and only the stream is left."""
    _, _, kept = gradient(layers=16)
    _, _, forgotten = gradient(layers=16, remat=True)
    assert forgotten < kept / 2


def test_our_models_compute_in_bfloat16_from_float32():
    """`ModelConfig.dtype` is mixed precision: the gradient is float32, and near the exact one."""
    (_, exact, _), (_, half, _) = gradient(), gradient(dtype="bfloat16")
    difference = jax.tree.map(jnp.subtract, exact, half)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half)} == {"float32"}
    relative = optax.tree.norm(difference) / optax.tree.norm(exact)
    assert 1e-4 < relative < 5e-2


def test_precisions_are_floats():
    with pytest.raises(ValueError, match="dtype: expected a floating type, got int8"):
        train.mixed_precision(mean, "int8")
