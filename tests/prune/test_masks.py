"""Masks on any pytree, and optimizers that keep zeros at zero."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress.matrices import layout_of, matrices
from jaxcompress.prune import masks, patterns, weights
from tests import families


def draw(seed, *shape):
    return jnp.array(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class Layer(NamedTuple):
    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Net:
    first: Layer
    rest: list


def test_apply_on_somebody_elses_model():
    """Dataclasses, tuples and lists; a mask tree of the same paths, flat or nested."""
    net = Net(Layer(draw(0, 2, 3), draw(1, 3)), [{"w": draw(2, 3)}, {"w": draw(3, 3)}])
    kept = jnp.array([True, False, True])
    flat = masks.apply(net, {"first/bias": kept, "rest/1/w": ~kept})
    nested = masks.apply(net, {"first": {"bias": kept}, "rest": {1: {"w": ~kept}}})
    assert isinstance(flat, Net) and isinstance(flat.first, Layer)
    assert (flat.first.bias == jnp.array([net.first.bias[0], 0, net.first.bias[2]])).all()
    assert flat.rest[1]["w"].tolist() == [0, net.rest[1]["w"][1], 0]
    assert flat.first.kernel is net.first.kernel and flat.rest[0]["w"] is net.rest[0]["w"]
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), flat, nested))


def test_apply_on_a_model_of_ours():
    model = families.model("llama")
    path = "blocks/attn/output/kernel"
    kernel = jnp.array(model.params["blocks"]["attn"]["output"]["kernel"])
    matrix = matrices(kernel, layout_of(path))
    kept = patterns.n_of_m(weights.magnitude(matrix), keep=1, of=4).reshape(kernel.shape)
    params = masks.apply(model.params, {path: kept})
    assert masks.density({path: kept}) == 0.25
    tokens = families.tokens()
    changed = model.apply(params, tokens).logits - model.apply(model.params, tokens).logits
    assert jnp.isfinite(changed).all() and changed.any()


def test_apply_removes_whatever_is_there():
    """NaN and infinity too, with no gradient; and the type stays."""
    w = jnp.array([jnp.nan, jnp.inf, 2.0], jnp.bfloat16)
    kept = {"w": jnp.array([False, False, True])}
    out = masks.apply({"w": w}, kept)["w"]
    assert out.dtype == jnp.bfloat16 and out.tolist() == [0, 0, 2]
    grad = jax.grad(lambda w: (masks.apply({"w": w}, kept)["w"] ** 2).sum())(w)
    assert grad.tolist() == [0, 0, 4]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"kernal": np.ones(3, bool)}, "masks: expected paths .* did you mean 'kernel'"),
        ({"kernel": np.ones((3, 1), bool)}, r"masks\['kernel'\]: expected shape \(3,\)"),
        ({"kernel": np.ones(3)}, r"masks\['kernel'\]: expected bools, got float64"),
    ],
)
def test_wrong_masks(bad, message):
    params = {"kernel": jnp.ones(3)}
    with pytest.raises(ValueError, match=message):
        masks.apply(params, bad)
    optimizer = masks.keep_zeros(optax.sgd(1.0), bad)
    with pytest.raises(ValueError, match=message):
        optimizer.update(params, optimizer.init(params), params)


def test_density_is_by_weight_not_by_leaf():
    assert masks.density({"a": jnp.ones(9, bool), "b": {"c": jnp.zeros(1, bool)}}) == 0.9
    assert masks.density({}) == 1


def test_combine():
    a, b, c = (jnp.array(bits, bool) for bits in ([1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]))
    combined = masks.combine({"x": {"y": a}}, {"x/y": b, "z": a}, {"x/y": c})
    assert combined.keys() == {"x/y", "z"}
    assert combined["x/y"].tolist() == [True, False, False, False]
    assert combined["z"] is a
    assert masks.combine() == {}
    with pytest.raises(ValueError, match=r"masks\['z'\]: expected shape \(4,\)"):
        masks.combine({"z": a}, {"z": a[:3]})


OPTIMIZERS = {
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.3),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1)),
}


def problem():
    """Least squares with a gradient everywhere: the dense model is what is differentiated."""
    inputs, targets = draw(0, 16, 6), draw(1, 16, 3)

    def loss(params):
        return jnp.mean((inputs @ params["kernel"] + params["bias"][None] - targets) ** 2)

    kept = patterns.per_row(draw(2, 6, 3), 0.5)
    params = {"kernel": draw(3, 6, 3), "bias": draw(4, 3)}
    return loss, masks.apply(params, {"kernel": kept}), {"kernel": kept}


def stepper(optimizer, loss):
    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


def trained(optimizer, loss, params, steps=6):
    state, step = optimizer.init(params), stepper(optimizer, loss)
    for _ in range(steps):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_stay_zero_and_the_rest_trains_as_if_masked_in_the_forward(name):
    loss, params, kept = problem()
    got = trained(masks.keep_zeros(OPTIMIZERS[name](), kept), loss, params)
    expected = trained(OPTIMIZERS[name](), lambda p: loss(masks.apply(p, kept)), params)
    assert not got["kernel"][~kept["kernel"]].any()
    assert (got["kernel"] != params["kernel"])[kept["kernel"]].all()
    for path in params:
        np.testing.assert_allclose(got[path], expected[path], rtol=1e-5, atol=1e-6)


def test_without_the_wrapper_zeros_come_back():
    loss, params, kept = problem()
    assert trained(optax.sgd(0.1), loss, params, steps=1)["kernel"][~kept["kernel"]].all()


def test_masks_are_state_and_may_be_replaced_without_compiling_anew():
    loss, params, kept = problem()
    optimizer = masks.keep_zeros(optax.adamw(0.1), kept)
    state, step = optimizer.init(params), stepper(optimizer, loss)
    params, state = step(params, state)
    fewer = masks.combine(kept, {"kernel": jnp.arange(18).reshape(6, 3) % 2 == 0})
    params, state = masks.apply(params, fewer), state._replace(masks=fewer)
    for _ in range(3):
        params, state = step(params, state)
    assert not params["kernel"][~fewer["kernel"]].any()
    assert params["kernel"][fewer["kernel"]].all()
    assert step._cache_size() == 1


def test_extra_arguments_reach_the_optimizer():
    def update(updates, state, params=None, *, factor):
        return jax.tree.map(lambda u: factor * u, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    params = {"w": jnp.ones(2)}
    optimizer = masks.keep_zeros(inner, {"w": jnp.array([True, False])})
    updates, _ = optimizer.update(params, optimizer.init(params), params, factor=3.0)
    assert updates["w"].tolist() == [3, 0]
