"""Projections are those onto explicit directions of all pairs, in float64 and without shortcuts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.narrow import fourier, waves

P = 7
X, Y = np.arange(P * P) // P, np.arange(P * P) % P


def logits(seed=0, extra=1):
    return np.random.default_rng(seed).standard_normal((P * P, P + extra)).astype(np.float32)


def directions(k):
    """cos(w (x + y)) and sin(w (x + y)) as unit vectors over all pairs, from their products."""
    w = 2 * np.pi * k / P
    one = np.cos(w * X) * np.cos(w * Y) - np.sin(w * X) * np.sin(w * Y)
    two = np.sin(w * X) * np.cos(w * Y) + np.cos(w * X) * np.sin(w * Y)
    return np.stack([v / np.linalg.norm(v) for v in (one, two)])


def projected(values, keys):
    found = np.zeros_like(values)
    for k in keys:
        units = directions(k)
        found += units.T @ (units @ values)
    return found


def test_basis():
    found = waves.basis(P)
    np.testing.assert_allclose(found @ found.T, np.eye(P), atol=1e-6)
    np.testing.assert_allclose(found[0], P**-0.5, atol=1e-6)
    angle = 2 * np.pi * 2 * np.arange(P) / P
    for row, wave in ((3, np.cos(angle)), (4, np.sin(angle))):
        np.testing.assert_allclose(found[row], wave / np.linalg.norm(wave), atol=1e-6)


def test_restricted_and_excluded_are_projections():
    values, keys = logits(), np.array([1.0, 0.0, 1.0])
    classes = values[:, :P].astype(np.float64)
    inside = projected(classes, [1, 3])
    np.testing.assert_allclose(fourier.excluded(values, P, keys), classes - inside, atol=1e-5)
    restricted = inside + (classes - inside).mean(0)
    np.testing.assert_allclose(fourier.restricted(values, P, keys), restricted, atol=1e-5)


def test_all_and_no_frequencies():
    values = logits()[:, :P]
    np.testing.assert_allclose(fourier.excluded(values, P, np.zeros(3)), values, atol=1e-6)
    sums = values[:, 0] * 0 + np.cos(2 * np.pi * 3 * (X + Y) / P)
    only = np.tile(sums[:, None], (1, P)).astype(np.float32)
    np.testing.assert_allclose(fourier.excluded(only, P, np.ones(3)), 0, atol=1e-5)
    np.testing.assert_allclose(fourier.restricted(only, P, np.ones(3)), only, atol=1e-5)


def test_shares_are_those_of_the_centred_variance():
    values = logits()
    centred = values[:, :P] - values[:, :P].mean(0)
    expected = [(projected(centred, [k]) ** 2).sum() / (centred**2).sum() for k in (1, 2, 3)]
    np.testing.assert_allclose(fourier.sum_shares(values, P), expected, rtol=1e-4)


def test_cosine_coefficients_are_inner_products():
    values = logits()[:, :P]
    triples = X[:, None] + Y[:, None] - np.arange(P)[None]
    expected = []
    for k in (1, 2, 3):
        unit = np.cos(2 * np.pi * k * triples / P)
        expected.append((values * unit / np.linalg.norm(unit)).sum())
    np.testing.assert_allclose(fourier.cosine_coefficients(values, P), expected, atol=1e-5)


def test_neuron_shares_by_explicit_products():
    neurons = np.random.default_rng(1).standard_normal((P * P, 4)).astype(np.float32)
    centred = neurons - neurons.mean(0)
    unit = np.asarray(waves.basis(P), np.float64)
    for k in (1, 2, 3):
        rows = [0, 2 * k - 1, 2 * k]
        units = [np.outer(unit[a], unit[b]).ravel() for a in rows for b in rows][1:]
        expected = ((np.stack(units) @ centred) ** 2).sum(0) / (centred**2).sum(0)
        np.testing.assert_allclose(waves.neuron_shares(neurons, P)[:, k - 1], expected, rtol=1e-4)
    dead = np.zeros((P * P, 1), np.float32)
    np.testing.assert_array_equal(waves.neuron_shares(dead, P), np.zeros((1, 3)))


def test_norms_and_gini():
    angle = 2 * np.pi * np.arange(P) / P
    matrix = np.stack([3 * np.cos(2 * angle), 4 * np.sin(2 * angle)], 1).astype(np.float32)
    np.testing.assert_allclose(waves.frequency_norms(matrix), [0, 5 * (P / 2) ** 0.5, 0], atol=1e-5)
    values = np.random.default_rng(0).exponential(size=(3, 9))
    between = np.abs(values[:, :, None] - values[:, None]).sum((1, 2))
    expected = between / (2 * 9 * values.sum(1))
    np.testing.assert_allclose(waves.gini(jnp.asarray(values)), expected, rtol=1e-5)


def test_a_stack_is_a_loop():
    stack = jnp.stack([jnp.asarray(logits(seed)) for seed in range(3)])
    keys = jnp.array([0.0, 1.0, 1.0])

    def all_of(values):
        neurons = values[:, :4]
        return (
            fourier.restricted(values, P, keys),
            fourier.excluded(values, P, keys),
            fourier.sum_shares(values, P),
            fourier.cosine_coefficients(values, P),
            waves.neuron_shares(neurons, P),
        )

    together = jax.jit(jax.vmap(all_of))(stack)
    for i in range(3):
        for one, many in zip(all_of(stack[i]), together, strict=True):
            np.testing.assert_allclose(many[i], one, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: waves.basis(8), "p: expected an odd modulus, got 8"),
        (lambda: fourier.sum_shares(logits()[:9], P), "logits: expected \\(49, at least 7\\)"),
        (lambda: fourier.restricted(logits(), P, np.ones(2)), "keys"),
        (lambda: waves.neuron_shares(np.ones((9, 2)), P), "neurons"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
