"""Scores of single weights: golden values, exact errors, the papers' definitions written again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.prune import patterns, weights

# One program per shape instead of one per operation.
LAMP = jax.jit(weights.lamp)


def wave(rows, columns, shift):
    """The matrix M(a, b, s) of reference/compression.md B.9."""
    return np.sin(0.7 * np.arange(rows * columns).reshape(rows, columns) + shift)


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_wanda_golden():
    # B.9 has outputs first; ours has inputs first.
    kernel, inputs = jnp.array(wave(3, 4, 0.1).T, jnp.float32), wave(4, 8, 0.5)
    score = weights.wanda(kernel, jnp.array(np.linalg.norm(inputs, axis=1), jnp.float32))
    np.testing.assert_allclose(
        score[:, 0], [0.2107033, 1.41900265, 1.868863, 1.59424728], rtol=1e-5
    )


def test_wanda_squared_is_the_error_of_zeroing_one_weight():
    kernel, inputs = draw(0, 2, 4, 3), draw(1, 2, 7, 4)
    score = weights.wanda(jnp.array(kernel), jnp.linalg.norm(inputs, axis=1))
    before = np.float64(inputs) @ kernel
    for index in np.ndindex(*kernel.shape):
        without = kernel.copy()
        without[index] = 0
        error = np.sum((np.float64(inputs) @ without - before) ** 2)
        np.testing.assert_allclose(score[index] ** 2, error, rtol=1e-4)


def test_fisher_is_the_rise_of_a_separable_quadratic():
    """For a loss with a diagonal Hessian, at its minimum, the score is exact."""
    weight, curvature = draw(0, 3, 4), draw(1, 3, 4) ** 2
    score = weights.fisher(jnp.array(weight), jnp.array(curvature))
    for index in np.ndindex(*weight.shape):
        moved = weight.copy()
        moved[index] = 0
        rise = 0.5 * np.sum(curvature * (moved - weight) ** 2)
        np.testing.assert_allclose(score[index], rise, rtol=1e-5)


def test_snip_is_normalised_over_the_whole_tree():
    params = {"a": draw(0, 2, 3), "b": [draw(1, 4)]}
    gradients = {"a": draw(2, 2, 3), "b": [draw(3, 4)]}
    scores = weights.snip(*jax.tree.map(jnp.array, (params, gradients)))
    effect = [np.abs(params["a"] * gradients["a"]), np.abs(params["b"][0] * gradients["b"][0])]
    total = effect[0].sum() + effect[1].sum()
    np.testing.assert_allclose(scores["a"], effect[0] / total, rtol=1e-5)
    np.testing.assert_allclose(scores["b"][0], effect[1] / total, rtol=1e-5)


def test_snip_of_no_gradient_is_zero():
    assert not weights.snip(jnp.ones(3), jnp.zeros(3)).any()


def test_random_is_a_control(key):
    scores = weights.random(key, jnp.zeros((50, 40)))
    assert scores.min() >= 0 and scores.max() < 1
    assert abs(scores.mean() - 0.5) < 0.03
    assert (weights.random(key, jnp.ones((50, 40))) == scores).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_scores_are_float32(dtype):
    """Halves are squared and compared in float32: no ties, no overflow that were not there."""
    weight = jnp.array([[300.0, 1.0], [2.0, -4.0]], dtype)
    scores = [
        weights.magnitude(weight),
        weights.wanda(weight, jnp.full(2, 300.0, dtype)),
        weights.fisher(weight, weight),
        weights.snip(weight, weight),
    ]
    assert all(score.dtype == jnp.float32 and jnp.isfinite(score).all() for score in scores)
    np.testing.assert_allclose(scores[1][0, 0], 9e4)


def lamp_by_definition(matrix):
    """Equation 1 of Lee et al. 2021, term by term, in float64."""
    flat = np.float64(matrix).ravel()
    out = np.empty(flat.size)
    for u, value in enumerate(flat):
        stays = [s for v, s in enumerate(flat) if s > value or (s == value and v <= u)]
        out[u] = value / sum(stays)
    return out.reshape(matrix.shape)


def test_lamp_by_definition():
    squares = draw(0, 2, 5, 3) ** 2
    squares[0, 1, 1] = squares[0, 3, 0]
    squares[1, :2] = squares[1, 2:4]
    expected = np.stack([lamp_by_definition(matrix) for matrix in squares])
    np.testing.assert_allclose(LAMP(jnp.array(squares)), expected, rtol=1e-5)
    np.testing.assert_allclose(LAMP(jnp.array(1e3 * squares)), expected, rtol=1e-5)


def test_lamp_leaves_no_matrix_empty():
    """By magnitude the small matrix would vanish first; by LAMP every one keeps its largest."""
    squares = jnp.array(draw(0, 2, 5, 3) ** 2 * np.array([1e-6, 1.0]).reshape(2, 1, 1))
    by_size = patterns.global_({"small": squares[0], "large": squares[1]}, 0.5)
    assert not by_size["small"].any() and by_size["large"].all()
    small, large = LAMP(squares)
    kept = patterns.global_({"small": small, "large": large}, 28 / 30)
    assert kept["small"].sum() == kept["large"].sum() == 1


def test_lamp_of_zeros_is_zero():
    assert not LAMP(jnp.zeros((2, 5, 3))).any()


def test_criteria_transform():
    kernel, norms = jnp.array(draw(0, 2, 5, 3)), jnp.array(draw(1, 2, 5) ** 2)

    def both(kernel, norms):
        return weights.lamp(weights.wanda(kernel, norms) ** 2)

    together = jax.jit(both)(kernel, norms)
    np.testing.assert_allclose(jax.jit(jax.vmap(both))(kernel, norms), together, rtol=1e-6)
    np.testing.assert_allclose(both(kernel[1], norms[1]), together[1], rtol=1e-6)
