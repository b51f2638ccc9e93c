"""Linear CKA: the golden value, matrices over tokens written out, invariances, bias."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.distill import cka
from tests.distill import reference
from tests.distill.reference import waves


def test_linear_cka_golden():
    x, y = waves(6, 4, 0.0), waves(6, 3, 1.3)
    np.testing.assert_allclose(cka.linear_cka(x, y), 0.25627765, atol=2e-6)


def debiased(x, y):
    """CKA of the unbiased HSIC_1, from matrices (token, token) with empty diagonals."""

    def hsic(a, b):
        n = len(a)
        k, m = (z @ z.T for z in (a, b))
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        one = np.ones(n)
        found = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (found - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


@pytest.mark.parametrize("is_debiased", [False, True])
def test_linear_cka_leaves_out_and_is_invariant(is_debiased, key):
    """To rotation, scale and shift; to tokens of weight 0, whatever they hold."""
    x, y = jax.random.normal(key, (2, 9, 4))
    similar = jax.jit(functools.partial(cka.linear_cka, debiased=is_debiased))
    value = similar(x, y)
    if is_debiased:
        np.testing.assert_allclose(value, debiased(x, y), atol=1e-5)
    rotation = jnp.linalg.qr(jax.random.normal(key, (4, 4)))[0]
    np.testing.assert_allclose(similar(3.0 * x @ rotation + 2.0, y), value, atol=1e-5)
    np.testing.assert_allclose(similar(3.0 * x @ rotation + 2.0, x), 1.0, atol=1e-5)
    mask = jnp.ones(9).at[jnp.array([2, 8])].set(0.0)
    less = similar(*(jnp.delete(z, jnp.array([2, 8]), axis=0) for z in (x, y)))
    dirty = [jnp.where(mask[:, None] > 0, z, jnp.nan) for z in (x, y)]
    np.testing.assert_allclose(similar(*dirty, mask), less, atol=1e-5)
    assert similar(jnp.ones((9, 2)), y) == 0.0


@pytest.mark.parametrize("is_debiased", [False, True])
def test_linear_cka_has_no_scale(is_debiased, key):
    """Its terms are of eighth order: of numbers around 1e4 or 1e-6 they would leave float32."""
    x, y = jax.random.normal(key, (2, 9, 4))
    similar = functools.partial(cka.linear_cka, debiased=is_debiased)
    value, slope = jax.value_and_grad(similar)(x, y)
    for scale in (1e-12, 1e-6, 1e4, 1e12):
        again, other = jax.value_and_grad(similar)(scale * x, scale * y)
        np.testing.assert_allclose(again, value, rtol=1e-5)
        np.testing.assert_allclose(scale * other, slope, atol=1e-5 * abs(slope).max())
    for level in (0.1, 1e5):
        constant = jnp.full((9, 2), level)
        assert similar(constant, y) == 0.0 and not jax.grad(similar)(constant, y).any()


def test_debiasing_takes_the_bias_away(key):
    """Unrelated activations, fewer tokens than channels: plain CKA is high, debiased near 0."""
    pairs = jax.random.normal(key, (40, 2, 8, 32))
    plain, unbiased = (
        jax.jit(jax.vmap(lambda p, d=d: cka.linear_cka(p[0], p[1], debiased=d)))(pairs)
        for d in (False, True)
    )
    assert plain.mean() > 0.7
    assert abs(unbiased.mean()) < 0.05


def test_linear_cka_has_a_finite_slope(key):
    x, y = jax.random.normal(key, (2, 6, 3))
    slope = jax.jit(jax.grad(lambda x: 1 - cka.linear_cka(x, y)))

    def loss(x):
        x, z = x - x.mean(0), np.asarray(y, np.float64) - np.asarray(y, np.float64).mean(0)
        own = np.linalg.norm(x.T @ x) * np.linalg.norm(z.T @ z)
        return 1 - ((z.T @ x) ** 2).sum() / own

    np.testing.assert_allclose(slope(x), reference.slope(loss, x), atol=1e-5)
    assert jnp.isfinite(slope(jnp.ones((6, 3)))).all()


def test_debiased_cka_needs_four_tokens():
    with pytest.raises(ValueError, match="x: expected at least 4 tokens"):
        cka.linear_cka(jnp.ones((3, 2)), jnp.ones((3, 2)), debiased=True)
