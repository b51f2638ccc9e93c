"""Group lasso and movement: closed forms, and problems they solve."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tree
from jaxcompress.prune import patterns, regularizers
from tests import families


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_straight_through_by_hand(key):
    """Forward W * M exactly; to W the gradient times M, to S the gradient times W."""
    weight, scores, outer = (jnp.array(draw(seed, 4, 3)) for seed in range(3))

    def loss(weight, scores):
        mask = patterns.per_tensor(scores, 0.5)
        return jnp.sum(outer * (weight * regularizers.straight_through(mask, scores)) ** 2)

    mask = patterns.per_tensor(scores, 0.5)
    by_weight, by_scores = jax.grad(loss, (0, 1))(weight, scores)
    back = 2 * outer * jnp.where(mask, weight, 0)
    np.testing.assert_array_equal(
        weight * regularizers.straight_through(mask, scores), jnp.where(mask, weight, 0)
    )
    np.testing.assert_allclose(by_weight, jnp.where(mask, back, 0), rtol=1e-6)
    np.testing.assert_allclose(by_scores, back * weight, rtol=1e-6)


def test_movement_accumulates_minus_gradient_times_weight():
    """S_T = -rate sum_t g_t W_t, with g_t the gradient of the masked weight, pruned ones too."""
    inputs, targets = jnp.array(draw(0, 20, 4)), jnp.array(draw(1, 20, 3))
    weight, scores, rate = jnp.array(draw(2, 4, 3)), jnp.zeros((4, 3)), 0.1

    def loss(weight):
        return jnp.mean((inputs @ weight - targets) ** 2)

    @jax.jit
    def step(weight, scores):
        def masked(weight, scores):
            mask = patterns.per_tensor(scores, 0.5)
            return loss(weight * regularizers.straight_through(mask, scores))

        by_weight, by_scores = jax.grad(masked, (0, 1))(weight, scores)
        return weight - rate * by_weight, scores - rate * by_scores

    x, y = np.float64(inputs), np.float64(targets)
    expected, ties = np.zeros((4, 3)), np.arange(12)
    for _ in range(5):
        order = sorted(ties, key=lambda i: (float(scores.ravel()[i]), -i))
        mask = np.isin(ties, order[:6], invert=True).reshape(4, 3)
        masked = np.where(mask, np.float64(weight), 0)
        gradient = 2 * x.T @ (x @ masked - y) / 60
        expected -= rate * gradient * np.float64(weight)
        weight, scores = step(weight, scores)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)
    assert (expected != 0).all()


UP_DOWN = {"up": (0, 2), "bias": (0, 1), "down": (0, 1)}


def up_and_down():
    """Three layers of five neurons: four weights in, a bias, two out."""
    return {"up": draw(0, 3, 4, 5), "bias": draw(1, 3, 5), "down": draw(2, 3, 5, 2)}


def threshold(group, strength):
    """Yuan and Lin 2006: the group soft threshold, on one group as a vector."""
    norm = np.linalg.norm(group)
    return group * max(0, 1 - strength * np.sqrt(len(group)) / norm)


def test_group_norm_and_prox_by_hand():
    params, strength = up_and_down(), 0.8
    arrays = jax.tree.map(jnp.array, params)
    norms = regularizers.group_norm(arrays, UP_DOWN)
    shrunk = regularizers.prox({**arrays, "other": jnp.ones(3)}, UP_DOWN, strength)
    zeros = 0
    for layer, neuron in np.ndindex(3, 5):

        def group(tree, at=(layer, neuron)):
            i, j = at
            return np.r_[tree["up"][i, :, j], tree["bias"][i, j], tree["down"][i, j]]

        np.testing.assert_allclose(norms[layer, neuron], np.linalg.norm(group(params)), rtol=1e-5)
        expected = threshold(group(params), strength)
        np.testing.assert_allclose(group(shrunk), expected, rtol=1e-4, atol=1e-6)
        assert (group(shrunk) == 0).all() == (expected == 0).all()
        zeros += (expected == 0).all()
    assert 0 < zeros < 15
    assert shrunk["other"].tolist() == [1, 1, 1]
    expected = np.sqrt(7) * np.float64(norms).sum()
    np.testing.assert_allclose(regularizers.group_lasso(arrays, UP_DOWN), expected, rtol=1e-5)


def test_prox_is_the_minimiser():
    """No step in any direction lowers ||v - w||^2 / 2 + strength * penalty(v)."""
    params, strength = jax.tree.map(jnp.array, up_and_down()), 0.8
    best = regularizers.prox(params, UP_DOWN, strength)

    def objective(v):
        apart = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2) / 2, v, params)
        return sum(jax.tree.leaves(apart)) + strength * regularizers.group_lasso(v, UP_DOWN)

    lowest, objective = objective(best), jax.jit(objective)
    for seed in range(10):
        noise = {name: 0.1 * draw(seed, *leaf.shape) for name, leaf in params.items()}
        assert objective(jax.tree.map(jnp.add, best, noise)) > lowest


def test_the_gradient_at_zero_is_zero():
    params = {"w": jnp.array([[0.0, 0.0], [3.0, 4.0]])}
    grad = jax.grad(lambda p: regularizers.group_lasso(p, {"w": (0,)}))(params)["w"]
    np.testing.assert_allclose(grad, np.sqrt(2) * np.array([[0, 0], [0.6, 0.8]]), rtol=1e-6)
    assert not regularizers.prox({"w": jnp.zeros((2, 2))}, {"w": (0,)}, 0.0)["w"].any()


def test_proximal_descent_falls_and_finds_the_support():
    """Least squares of which only inputs 1 and 4 of 6 matter."""
    x, truth = draw(0, 60, 6), draw(1, 6, 3)
    truth[[0, 2, 3, 5]] = 0
    y = x @ truth + 0.05 * draw(2, 60, 3)
    rate, strength = 60 / np.linalg.norm(x, 2) ** 2, 0.1
    x, y = jnp.array(x), jnp.array(y)

    def fit(params):
        return jnp.sum((x @ params["w"] - y) ** 2) / 120

    def step(params, _):
        moved = jax.tree.map(lambda w, g: w - rate * g, params, jax.grad(fit)(params))
        params = regularizers.prox(moved, {"w": (0,)}, rate * strength)
        return params, fit(params) + strength * regularizers.group_lasso(params, {"w": (0,)})

    params, values = jax.lax.scan(step, {"w": jnp.array(draw(3, 6, 3))}, length=60)
    assert (np.diff(values) <= 1e-6).all()
    assert params["w"].any(axis=1).tolist() == [False, True, False, False, True, False]


HEADS = {
    "blocks/attn/query/kernel": (0, 2),
    "blocks/attn/query/bias": (0, 1),
    "blocks/attn/key/kernel": (0, 2),
    "blocks/attn/key/bias": (0, 1),
    "blocks/attn/value/kernel": (0, 2),
    "blocks/attn/value/bias": (0, 1),
    "blocks/attn/output/kernel": (0, 1),
}


def test_heads_as_groups():
    """On a model of ours: the four heads of the smallest norm go, with all that is theirs."""
    params = jax.tree.map(jnp.array, families.randomized(families.config("gpt2")))
    norms = regularizers.group_norm(params, HEADS)
    assert norms.shape == (3, 4)
    size = 4 * 4 * 8 + 3 * 4
    fourth = float(jnp.sort(norms.ravel())[3])
    shrunk = tree.paths(regularizers.prox(params, HEADS, 1.001 * fourth / size**0.5))
    for path, (layer, head) in HEADS.items():
        leaf = np.moveaxis(np.asarray(shrunk[path]), (layer, head), (0, 1))
        assert (leaf.reshape(3, 4, -1).any(axis=-1) == (norms > fourth)).all()


def test_wrong_groups():
    params = jax.tree.map(jnp.array, up_and_down())
    with pytest.raises(ValueError, match="groups: expected paths .* did you mean 'down'"):
        regularizers.group_norm(params, {"dwon": (0,)})
    with pytest.raises(ValueError, match=r"groups\['down'\]: expected axes of sizes \(5,\)"):
        regularizers.prox(params, {"up": (2,), "down": (2,)}, 0.1)
    with pytest.raises(ValueError, match="groups: expected at least one path"):
        regularizers.group_lasso(params, {})
