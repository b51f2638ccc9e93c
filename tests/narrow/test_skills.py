"""Scores of neurons against loops and finite differences; nested sets and their overlap."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxcompress.data import parity as data
from jaxcompress.models import Gates, MLPConfig
from jaxcompress.models.mlp import apply, init
from jaxcompress.narrow import skills
from jaxcompress.narrow.parity import cross_entropy, evaluate, narrower, objective, score

FAMILY = data.compositional(6, 2, 2, [[0], [1], [0, 1]])
CONFIG = MLPConfig(FAMILY.inputs, 5, 3)
FORWARD = jax.jit(functools.partial(apply, CONFIG))
DRAW = jax.jit(functools.partial(data.sample, FAMILY))
PARAMS = jax.jit(init, static_argnums=0)(CONFIG, jax.random.key(0))
ONES = jnp.ones((2, 5))


@jax.jit
def loss(gates):
    batch = data.sample(FAMILY, jax.random.key(1), jnp.zeros(50, jnp.int32))
    logits = FORWARD(PARAMS, data.inputs(FAMILY, batch), gates=Gates(neurons=gates)).logits
    return cross_entropy(logits, batch.label).mean()


def removed(params, layer, neuron):
    """The neuron's incoming weights, bias and outgoing weights set to zero, as the paper has it."""
    p = jax.tree.map(np.array, params)
    out = p["last"] if layer == 1 else {"kernel": p["hidden"]["kernel"][0]}
    into = p["first"] if layer == 0 else jax.tree.map(lambda leaf: leaf[0], p["hidden"])
    into["kernel"][:, neuron] = into["bias"][neuron] = 0
    out["kernel"][neuron] = 0
    return jax.tree.map(jnp.asarray, p)


def test_ablation_is_setting_weights_to_zero():
    found = jax.jit(lambda gates: skills.ablation(loss, gates, together=3))(ONES)
    batch = DRAW(jax.random.key(1), jnp.zeros(50, jnp.int32))
    x, whole = data.inputs(FAMILY, batch), loss(ONES)
    for layer, neuron in np.ndindex(2, 5):
        logits = FORWARD(removed(PARAMS, layer, neuron), x).logits
        effect = abs(cross_entropy(logits, batch.label).mean() - whole)
        np.testing.assert_allclose(found[layer, neuron], effect, atol=1e-6)
    assert found.max() > 1e-3


def test_attribution_is_the_slope_of_the_gate():
    score = jax.jit(functools.partial(skills.attribution, loss))
    found, step = score(ONES), 1e-2
    for place in ((0, 1), (1, 3)):
        up, down = (loss(ONES.at[place].add(sign * step)) for sign in (1, -1))
        np.testing.assert_allclose(found[place], abs(up - down) / (2 * step), rtol=0.02, atol=1e-5)
    assert score(ONES.at[0, 1].set(0))[0, 1] == 0


def test_group_norms():
    w1, b1 = PARAMS["first"]["kernel"], PARAMS["first"]["bias"]
    w2, b2 = PARAMS["hidden"]["kernel"][0], PARAMS["hidden"]["bias"][0]
    w3 = PARAMS["last"]["kernel"]
    found = skills.group_norms(PARAMS)
    first = np.sqrt((w1**2).sum(0) + b1**2 + (w2**2).sum(1))
    second = np.sqrt((w2**2).sum(0) + b2**2 + (w3**2).sum(1))
    np.testing.assert_allclose(found, [first, second], rtol=1e-6)
    none = jax.tree.map(jnp.zeros_like, PARAMS)
    slope = jax.grad(lambda p: skills.group_norms(p).sum())(none)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slope))


def test_weight_norms_behind_gates_are_those_of_the_smaller_network():
    rows, gates = np.array([[0, 3], [1, 4]]), np.zeros((2, 5), np.float32)
    np.put_along_axis(gates, rows, 1.0, axis=1)
    found = score(FORWARD, FAMILY, PARAMS, jnp.asarray(gates), jax.random.key(1), task=0,
                  criterion="weight_norm", size=4)  # fmt: skip
    first, inner, last = (np.asarray(kernel) for kernel in skills.kernels(PARAMS))
    inner = inner[np.ix_(*rows)]
    for layer, (into, out) in enumerate(((first[:, rows[0]], inner), (inner, last[rows[1]]))):
        bias = [PARAMS["first"]["bias"], PARAMS["hidden"]["bias"][0]][layer][rows[layer]]
        expected = np.sqrt((into**2).sum(axis=0) + (out**2).sum(axis=1) + bias**2)
        np.testing.assert_allclose(found[layer, rows[layer]], expected, rtol=1e-5)


def test_nested_gates():
    scores = jnp.array([[0.0, 5.0, 1.0], [1.0, 7.0, 0.0]])
    gates = np.asarray(skills.nested(scores, jnp.array([0, 1, 3, 6])))
    assert gates.sum(axis=(1, 2)).tolist() == [0, 1, 3, 6]
    assert (np.diff(gates, axis=0) >= 0).all()
    np.testing.assert_array_equal(gates[2], [[0, 1, 1], [0, 1, 0]])  # of equals the earlier


def test_fewest():
    assert skills.fewest([4, 8, 16], [0.5, 0.98, 1.0]) == 8
    assert np.isnan(skills.fewest([4, 8], [0.5, 0.6]))
    assert skills.fewest([4, 8], [0.5, 0.6], threshold=0.5) == 4
    with pytest.raises(ValueError, match=r"accuracy: expected shape \(2,\)"):
        skills.fewest([4, 8], [1.0])
    with pytest.raises(ValueError, match="threshold: expected a number in"):
        skills.fewest([4], [1.0], threshold=98.0)


def test_overlap_and_chance():
    """Random sets overlap as much as chance says; empty and equal ones are 1."""
    rng = np.random.default_rng(0)
    sets = np.zeros((400, 60), bool)
    for row in sets:
        row[rng.choice(60, 20, replace=False)] = True
    found = np.asarray(skills.overlap(jnp.asarray(sets)))
    off = ~np.eye(400, dtype=bool)
    expected = np.asarray(skills.overlap_by_chance(jnp.asarray(sets)))
    np.testing.assert_allclose(found[off].mean(), expected[off].mean(), atol=0.005)
    assert (found[~off] == 1).all() and (expected[~off] == 1).all()
    a, b = sets[0], sets[1]
    assert found[0, 1] == pytest.approx((a & b).sum() / (a | b).sum())
    assert skills.overlap(jnp.zeros((2, 2, 3), bool)).tolist() == [[1, 1], [1, 1]]


@pytest.mark.torch
def test_cross_entropy(key):
    logits = 5 * jax.random.normal(key, (40, 2))
    label = jax.random.bernoulli(key, 0.5, (40,)).astype(jnp.int32)
    there = torch.tensor(np.asarray(logits)), torch.tensor(np.asarray(label)).long()
    expected = torch.nn.functional.cross_entropy(*there, reduction="none")
    np.testing.assert_allclose(cross_entropy(logits, label), expected.numpy(), atol=1e-6)


def test_objective_weighs_tasks_and_penalises(key):
    share = jnp.array([0.5, 0.0, 0.5])
    total, seen = jax.jit(objective(FORWARD, FAMILY, 60))(PARAMS, key, {"weights": share})
    np.testing.assert_allclose(seen["shown"], share)
    np.testing.assert_allclose(total, (share * seen["task_loss"]).sum(), rtol=1e-6)
    penalised = objective(FORWARD, FAMILY, 60, penalty=lambda p: skills.group_norms(p).sum())
    more, _ = jax.jit(penalised)(PARAMS, key, {"weights": share, "penalty": 0.5})
    expected = total + 0.5 * skills.group_norms(PARAMS).sum()
    np.testing.assert_allclose(more, expected, rtol=1e-6)
    drawn = jax.jit(objective(FORWARD, FAMILY, 600, stratified=False))
    drawn = drawn(PARAMS, key, {"weights": share})[1]
    assert drawn["shown"][1] == 0 and drawn["shown"][0] != 0.5
    np.testing.assert_allclose(drawn["shown"], share, atol=0.06)


def test_evaluate(key):
    """A network that knows one bit's parity answers the task of that bit."""
    family = data.compositional(3, 2, 1, [[0], [1]])
    config = MLPConfig(family.inputs, 1, 2)
    params = jax.tree.map(jnp.zeros_like, jax.jit(init, static_argnums=0)(config, key))
    params["first"]["kernel"] = params["first"]["kernel"].at[2, 0].set(1.0)
    params["last"] = {"kernel": jnp.array([[-9.0, 9.0]]), "bias": jnp.array([4.0, -4.0])}
    measure = jax.jit(evaluate(functools.partial(apply, config), family, 200))
    found = measure(params, key, {})
    assert found["accuracy"][0] == 1 and abs(found["accuracy"][1] - 0.5) < 0.15
    assert found["test_loss"][0] < 1e-3 < found["test_loss"][1]
    shut = measure(params, key, {"gates": jnp.zeros((1, 1))})
    assert abs(shut["accuracy"][0] - 0.5) < 0.15


def test_narrower_is_a_network_of_that_width():
    """Bounds of the uniform initialisation, the gates, and a forward without the other neurons."""
    wide = MLPConfig(FAMILY.inputs, 64, 3)
    params, gates = jax.jit(lambda key: narrower(init(wide, key), 16))(jax.random.key(0))
    assert gates.shape == (2, 64) and gates.sum() == 32
    for name, fan_in in (("first", FAMILY.inputs), ("hidden", 16), ("last", 16)):
        largest = np.abs(params[name]["kernel"]).max()
        assert 0.95 * fan_in**-0.5 < largest <= fan_in**-0.5 * (1 + 1e-6)
    small = {
        "first": jax.tree.map(lambda w: w[..., :16], params["first"]),
        "hidden": {
            "kernel": params["hidden"]["kernel"][:, :16, :16],
            "bias": params["hidden"]["bias"][:, :16],
        },
        "last": {"kernel": params["last"]["kernel"][:16], "bias": params["last"]["bias"]},
    }
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (7, FAMILY.inputs)), jnp.float32)
    masked = apply(wide, params, x, gates=Gates(neurons=gates)).logits
    expected = apply(MLPConfig(FAMILY.inputs, 16, 3), small, x).logits
    np.testing.assert_allclose(masked, expected, atol=1e-6)
