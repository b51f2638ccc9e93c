"""Similarities against loops, golden values and the invariances they promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.align import similarity


def waves(rows: int, columns: int, shift: float) -> jax.Array:
    """The matrix of the golden values: sin(0.7 (i * columns + j) + shift)."""
    return jnp.sin(0.7 * jnp.arange(rows * columns).reshape(rows, columns) + shift)


def test_linear_cka_golden():
    value = similarity.linear_cka(waves(6, 4, 0.0), waves(6, 3, 1.3))
    assert float(value) == pytest.approx(0.25627765, abs=2e-6)


def test_linear_cka_is_invariant_to_rotation_scale_and_shift():
    x, y = waves(9, 4, 0.3), waves(9, 3, 1.1)
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (4, 4)))[0]
    moved = 3.0 * x @ rotation + 2.0
    same = similarity.linear_cka(x, y)
    assert float(similarity.linear_cka(moved, y)) == pytest.approx(float(same), abs=1e-5)
    assert float(similarity.linear_cka(moved, x)) == pytest.approx(1.0, abs=1e-5)
    assert float(similarity.linear_cka(jnp.ones((9, 2)), y)) == 0.0


def test_mean_pattern_counts_real_queries_only():
    pattern = jax.nn.softmax(jax.random.normal(jax.random.key(0), (2, 3, 2, 4, 4)))
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
    mean, weight = similarity.mean_pattern(pattern, mask)
    np.testing.assert_array_equal(weight, [3, 3, 2, 1])
    np.testing.assert_allclose(mean[1, 1, 2], pattern[1, :2, 1, 2].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(mean[0, 1, 3], pattern[0, 0, 1, 3], rtol=1e-6)


def test_pattern_cosine_is_the_mean_over_rows_as_published():
    a = jax.nn.softmax(jax.random.normal(jax.random.key(0), (3, 5, 5)))
    b = jax.nn.softmax(jax.random.normal(jax.random.key(1), (2, 5, 5)))
    weight = jnp.array([4.0, 4.0, 2.0, 1.0, 0.0])  # the last query is in no prompt
    got = similarity.pattern_cosine(a, b, weight)
    for i in range(3):
        for j in range(2):
            x, y = np.asarray(a[i, :4]), np.asarray(b[j, :4])
            norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
            assert float(got[i, j]) == pytest.approx(((x * y).sum(1) / norms).mean(), abs=1e-6)


def test_subspace_cosine_against_svd():
    x = jax.random.normal(jax.random.key(0), (2, 30, 6))
    y = jax.random.normal(jax.random.key(1), (3, 30, 6))

    def leading(outputs: np.ndarray) -> np.ndarray:
        vectors = np.linalg.svd(outputs.T @ outputs / len(outputs))[0][:, :3]
        largest = vectors[np.abs(vectors).argmax(0), np.arange(3)]
        return vectors * np.sign(largest)

    got = similarity.subspace_cosine(x, y)
    for i in range(2):
        for j in range(3):
            cosines = leading(np.asarray(x[i])).T @ leading(np.asarray(y[j]))
            assert float(got[i, j]) == pytest.approx(abs(cosines.mean()), abs=1e-5)


def test_subspace_of_an_mlp_with_itself_is_a_third():
    # Three orthogonal directions: the nine cosines are the identity, of mean 3 / 9.
    x = jax.random.normal(jax.random.key(0), (1, 30, 6))
    assert float(similarity.subspace_cosine(x, x)[0, 0]) == pytest.approx(1 / 3, abs=1e-5)


def test_rescale_has_the_heads_location_before_the_division():
    heads = jnp.array([[0.2, 0.6], [0.4, 0.8]])
    mlps = jnp.array([[0.1, 0.2], [0.15, 0.4]])
    got = np.asarray(similarity.rescale(mlps, heads))
    scaled = (mlps - mlps.mean()) / mlps.std() * heads.std() + heads.mean()
    np.testing.assert_allclose(got, scaled / scaled.max(), rtol=1e-6)
    assert float(got.max()) == 1.0
    # One MLP has no spread to rescale: it is left at the heads' mean, the largest.
    assert float(similarity.rescale(jnp.array([[0.3]]), heads)[0, 0]) == 1.0
