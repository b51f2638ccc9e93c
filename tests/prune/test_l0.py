"""L0 gates: golden values, the distribution, and a target size that is reached."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress.prune import l0, schedule
from jaxcompress.prune.l0 import Multipliers

# reference/compression.md B.9
LOG_ALPHA = jnp.array([-2.0, 0.0, 0.7, 3.0])


def test_expected_open_golden():
    golden = [0.40097526, 0.83182218, 0.90876076, 0.99003436]
    np.testing.assert_allclose(l0.expected_open(LOG_ALPHA), golden, rtol=1e-6)


def test_noiseless_gate_golden():
    golden = [0.04304351, 0.5, 0.70182533, 1.0]
    np.testing.assert_allclose(l0.noiseless_gate(LOG_ALPHA), golden, rtol=1e-5)


def test_samples_have_the_distribution_they_should(key):
    """As often open as `expected_open` says; else with the quantiles of the definition."""
    count = 20_000
    many = jnp.broadcast_to(LOG_ALPHA[None], (count, 4))
    gates = np.asarray(l0.sample_gate(key, many))
    assert gates.min() == 0 and gates.max() == 1
    open_share = l0.expected_open(LOG_ALPHA)
    np.testing.assert_allclose((gates > 0).mean(axis=0), open_share, atol=0.01)
    u = np.array([0.3, 0.5, 0.8])[:, None]
    logit = (np.log(u) - np.log(1 - u) + np.float64(LOG_ALPHA)) * 3 / 2
    quantiles = np.clip(1.2 / (1 + np.exp(-logit)) - 0.1, 0, 1)
    np.testing.assert_allclose(np.quantile(gates, u[:, 0], axis=0), quantiles, atol=0.03)


def test_samples_are_differentiable(key):
    """Where a gate is neither 0 nor 1 the gradient is that of the noise held fixed."""
    log_alpha = jnp.linspace(-3.0, 3.0, 200)
    gates, grad = (
        l0.sample_gate(key, log_alpha),
        jax.grad(lambda a: l0.sample_gate(key, a).sum())(log_alpha),
    )
    inside = (gates > 0) & (gates < 1)
    s = (gates + 0.1) / 1.2
    np.testing.assert_allclose(grad, jnp.where(inside, 1.2 * s * (1 - s) * 1.5, 0), atol=1e-5)
    assert inside.any() and (gates == 0).any() and (gates == 1).any()


def test_gates_at_extremes(key):
    far = jnp.array([-1e4, 1e4])
    for function in (l0.noiseless_gate, lambda a: l0.sample_gate(key, a)):
        value, grad = function(far), jax.grad(lambda a, f=function: f(a).sum())(far)
        assert value.tolist() == [0, 1] and not grad.any()
    assert l0.expected_open(far).tolist() == [0, 1]


def test_lagrangian_and_its_gradient():
    """The gradient of a multiplier is its gap, squared for the quadratic one: ascent is right."""
    size, target = jnp.array([0.9, 0.4]), jnp.array([0.5, 0.5])
    both = Multipliers(jnp.array([1.0, -2.0]), jnp.array([3.0, 4.0]))
    value, (by_size, by_both) = jax.value_and_grad(l0.lagrangian, (0, 2))(size, target, both)
    np.testing.assert_allclose(value, 0.4 + 0.2 + 3 * 0.16 + 4 * 0.01, rtol=1e-5)
    np.testing.assert_allclose(by_size, [1 + 2 * 3 * 0.4, -2 - 2 * 4 * 0.1], rtol=1e-5)
    np.testing.assert_allclose(by_both.linear, [0.4, -0.1], rtol=1e-5)
    np.testing.assert_allclose(by_both.quadratic, [0.16, 0.01], rtol=1e-5)


@pytest.mark.parametrize("target", [0.25, 0.5])
def test_gates_reach_a_target_size_and_keep_what_matters(key, target):
    """min sum_i c_i (1 - z_i)^2 at a given number of open gates: those with the largest c."""
    cost = jnp.array([0.05, 2.0, 0.1, 1.0, 0.02, 1.5, 0.08, 3.0])
    labels = {"gates": "descend", "multipliers": "ascend"}
    adam = optax.adam(0.05)
    transforms = {"descend": adam, "ascend": schedule.ascend(adam)}
    optimizer = optax.partition(transforms, labels)
    zero = jnp.array(0.0)
    params = {"gates": jnp.full(8, 2.0), "multipliers": Multipliers(zero, zero)}

    def loss(params, key, aim):
        gates = l0.sample_gate(key, params["gates"])
        size = l0.expected_open(params["gates"]).mean()
        penalty = l0.lagrangian(size, aim, params["multipliers"])
        return jnp.sum(cost * (1 - gates) ** 2) + penalty

    def step(carry, at):
        params, state = carry
        key, aim = at
        updates, state = optimizer.update(jax.grad(loss)(params, key, aim), state, params)
        return (optax.apply_updates(params, updates), state), None

    aims = jax.vmap(optax.linear_schedule(1.0, target, 300))(jnp.arange(1500))
    (params, _), _ = jax.lax.scan(
        step, (params, optimizer.init(params)), (jax.random.split(key, 1500), aims)
    )
    opened = l0.expected_open(params["gates"])
    np.testing.assert_allclose(opened.mean(), target, atol=0.03)
    most = int(target * 8)
    assert set(np.argsort(-opened)[:most].tolist()) == set(np.argsort(-cost)[:most].tolist())
    assert params["multipliers"].quadratic > 0
