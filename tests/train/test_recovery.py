"""Neurons that are let go stay gone; methods start where they should."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress.data.digits import digits
from jaxcompress.models.gates import Gates
from jaxcompress.models.mlp import MLPConfig, create_mlp, init
from jaxcompress.narrow import recovery as objectives
from jaxcompress.train import recovery
from jaxcompress.train.thresholded import alive, thresholded

GROUPS = {"hidden": {"up": (1,), "down": (0,)}}


def test_a_neuron_that_is_let_go_stays_gone():
    params = {"up": jnp.array([[1.0, 0.1, 2.0]]), "down": jnp.array([[1.0], [0.1], [0.0]])}
    optimizer = thresholded(optax.adam(0.1), GROUPS, 0.3)
    state, gradient = optimizer.init(params), {"up": -jnp.ones((1, 3)), "down": jnp.zeros((3, 1))}
    for _ in range(5):
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        assert params["up"][0, 1] == 0 and params["up"][0, 0] > 1
    # Its norm is above the limit without it; what it puts out is left to itself.
    np.testing.assert_allclose(params["down"][:, 0], [1.0, 0.1, 0.0])
    np.testing.assert_array_equal(alive(params, GROUPS["hidden"]), [True, False, True])


def test_below_zero_nothing_is_let_go():
    params = {"up": jnp.array([[1.0, 1e-9]]), "down": jnp.zeros((2, 1))}
    plain, wrapped = optax.sgd(0.1), thresholded(optax.sgd(0.1), GROUPS, -1.0)
    expected = plain.update(params, plain.init(params), params)[0]
    got = wrapped.update(params, wrapped.init(params), params)[0]
    np.testing.assert_allclose(got["up"], expected["up"], rtol=1e-6)


@pytest.fixture(scope="module")
def net():
    return create_mlp(MLPConfig(inputs=4, width=6, depth=3, outputs=3), key=jax.random.key(0))


def test_the_objective_is_its_formula(net):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2, 1, 4)), jnp.float32)  # one image: nothing to draw
    labels, answers = (
        jnp.array([[0], [2]]),
        jnp.asarray(rng.standard_normal((2, 1, 3)), jnp.float32),
    )
    loss = objectives.objective(
        net.apply, images, labels, answers, batch=1, temperature=4.0,
        penalty=recovery.apart, alive=recovery._alive,
    )  # fmt: skip
    hyper = {"seed": 1, "gates": jnp.ones((2, 6)), "alpha": 0.9, "beta": 0.5, "neurons": 11}
    got = loss(net.params, jax.random.key(0), hyper)[0]
    logits = np.asarray(net.apply(net.params, images[1]).logits[0], float)

    def soft(x):
        return np.exp(x) / np.exp(x).sum()

    p, q = soft(np.asarray(answers[1, 0]) / 4), soft(logits / 4)
    kl = 16 * (p * np.log(p / q)).sum()
    expected = -0.1 * np.log(soft(logits)[2]) + 0.9 * kl
    first, hidden, last = (np.asarray(net.params[k]["kernel"]) for k in ("first", "hidden", "last"))
    norms = np.sqrt((first**2).sum(0) + (hidden[0] ** 2).sum(1)).sum()
    norms += np.sqrt((hidden[0] ** 2).sum(0) + (last**2).sum(1)).sum()
    np.testing.assert_allclose(got, expected + 0.5 * norms, rtol=1e-4)
    few = loss(net.params, jax.random.key(0), hyper | {"neurons": 12})[0]
    np.testing.assert_allclose(few, expected, rtol=1e-4)


def test_samples_counts_only_what_is_ready():
    accuracy = np.array([[0.9, 0.9], [0.9, 0.2]])
    ready = np.array([[False, True], [True, True]])
    found = objectives.samples([5, 10], accuracy, batch=2, target=0.8, ready=ready)
    np.testing.assert_array_equal(found, [20, 10])


def test_attribution_is_not_zero_and_is_that_of_the_gates(net):
    images = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)
    labels = jnp.array([0, 1, 2])
    got = recovery._attribution(net.apply, net.params, images, labels)
    assert (np.asarray(got) > 0).mean() > 0.5

    def loss(gate, i):
        gates = jnp.ones((2, 6)).at[1, 2].set(gate)
        logits = net.apply(net.params, images[i][None], gates=Gates(neurons=gates)).logits
        return -jax.nn.log_softmax(logits)[0, labels[i]]

    numeric = sum(abs(float(loss(1.001, i) - loss(0.999, i)) / 0.002) for i in range(3))
    np.testing.assert_allclose(got[1, 2], numeric, rtol=0.02, atol=1e-3)


def test_fresh_networks_are_drawn_together(monkeypatch):
    """There may be hundreds: one call draws all, each as it would be drawn alone."""
    config, calls = MLPConfig(inputs=6, width=4, depth=3, outputs=10), []

    def counted(*arguments):
        calls.append(arguments)
        return init(*arguments)

    monkeypatch.setattr(recovery, "init", counted)
    teachers = jax.vmap(lambda key: init(config, key))(jax.random.split(jax.random.key(3), 2))
    methods = ["scratch", "distil", "group lasso"]
    grid = recovery._grid(methods, [0.1], neurons=(4, 8), rate=[0.1], seed=[0, 1])
    params, gates = recovery._starts(config, grid, teachers, jnp.ones((2, 2, 4)))
    assert len(calls) == 1
    for i in (1, 6):  # seeds 1 and 0, neurons 4 and 8
        key = jax.random.fold_in(jax.random.key(int(grid["seed"][i])), 7)
        half = int(grid["neurons"][i]) // 2
        kernel = np.asarray(init(config, key)["last"]["kernel"]) * np.sqrt(4 / half)
        np.testing.assert_allclose(params["last"]["kernel"][i], kernel, rtol=1e-6)
        assert gates[i].sum() == 2 * half
    np.testing.assert_array_equal(
        params["first"]["kernel"][8:], teachers["first"]["kernel"][jnp.array([0, 1, 0, 1])]
    )


def test_compare_end_to_end():
    rows = recovery.compare(
        [digits(seed=0)], (0, 1), width=6, sizes=(4, 12), rates=(0.01,), target=0.2,
        teacher_steps=2, steps=4, every=2, limit=100.0, progress=False,
    )  # fmt: skip
    found = {(row["method"], row["neurons"]): row for row in rows}
    assert len(rows) == 10
    for method in ("attribution", "random", "distil", "scratch"):
        assert [found[method, size]["in_use"] for size in (4, 12)] == [4, 12]
    # A limit above every norm lets all go at once.
    assert found["group lasso", 4]["in_use"] == 0
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert {row["test"] for row in rows} <= {32.0, 64.0, np.inf}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (5,)}, "sizes: expected even numbers"),
        ({"sizes": ()}, "sizes: expected at least one"),
        ({"classes": (11,)}, r"classes: expected a whole number in \[0, 9\]"),
        ({"classes": ()}, "classes: expected at least one"),
        ({"methods": ("prune",)}, "methods: expected one of"),
        ({"steps": 3}, r"steps: expected a multiple of every \(2\)"),
    ],
)
def test_bad_input_is_refused_before_training(changes, message, monkeypatch):
    monkeypatch.setattr(recovery.population, "train", None)
    given = {"parts": [digits()], "classes": (0,), "width": 6, "sizes": (4,), "rates": (0.1,)}
    given |= {"target": 0.5, "teacher_steps": 2, "steps": 2, "every": 2}
    with pytest.raises(ValueError, match=message):
        recovery.compare(**(given | changes))


def test_only_the_lasso_has_several_weights():
    found = recovery._grid(("scratch", "group lasso"), (0.1, 0.2), rate=(1, 2), seed=(0, 1, 2))
    for method, betas in (("scratch", [0.0]), ("group lasso", [0.1, 0.2])):
        mine = found["method"] == method
        assert mine.sum() == 6 * len(betas) and set(found["beta"][mine]) == set(betas)
