"""Losses of dictionaries against their formulas, finite differences, and expectations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxcompress.models import create_autoencoder
from jaxcompress.sae import losses

X = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)


def _made(kind="relu", **options):
    one = create_autoencoder(5, 9, jax.random.key(0), kind=kind, **options)
    noise = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(jax.random.key(1), leaf.shape), one)
    return jax.tree.map(jnp.add, one, noise)


def test_l1_is_the_formula():
    one = _made()
    f = np.asarray(one.encode(X))
    error = ((X - (f @ np.asarray(one.decoder) + np.asarray(one.decoder_bias))) ** 2).sum(axis=1)
    penalty = (f * np.linalg.norm(one.decoder, axis=1)).sum(axis=1)
    loss, metrics = losses.l1(one, X, coefficient=5.0)
    np.testing.assert_allclose(loss, (error + 5 * penalty).mean(), rtol=1e-5)
    assert metrics["l0"] == (f > 0).sum(axis=1).mean(dtype=np.float32)


def test_l1_does_not_change_when_a_feature_is_scaled():
    one = _made()
    by = jnp.arange(1.0, 10.0)
    encoder, decoder = one.encoder * by[None], one.decoder / by[:, None]
    other = dataclasses.replace(
        one, encoder=encoder, encoder_bias=one.encoder_bias * by, decoder=decoder
    )
    same = [losses.l1(d, X, coefficient=5.0)[0] for d in (one, other)]
    np.testing.assert_allclose(*same, rtol=1e-5)


def test_gradients_are_finite_differences():
    none = jnp.zeros(9, bool)
    check_grads(lambda d: losses.l1(d, X, coefficient=2.0)[0], (_made(),), 1, ("rev",), rtol=0.02)
    of = lambda d: losses.topk(d, X, silent=none, aux_k=2)[0]  # noqa: E731
    check_grads(of, (_made("topk", k=3),), 1, ("rev",), rtol=0.02)


def test_silent_features_explain_the_error_and_nothing_flows_into_it():
    one = _made("topk", k=2)
    silent = jnp.arange(9) >= 5
    raw = one.raw(X)
    error = X - one.decode(one.activate(raw))
    f = np.where(np.asarray(silent), np.maximum(raw, 0), 0)
    writes = f * np.linalg.norm(one.decoder, axis=1)
    f = np.where(writes >= np.sort(writes, axis=1)[:, -3:-2], f, 0)  # the best 3
    expected = ((np.asarray(error) - f @ np.asarray(one.decoder)) ** 2).sum(axis=1).mean()
    loss, metrics = losses.topk(one, X, silent=silent, aux_k=3, coefficient=0.5)
    np.testing.assert_allclose(metrics["auxiliary"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, metrics["squared_error"] + 0.5 * expected, rtol=1e-5)
    slope = jax.grad(lambda d: losses.topk(d, X, silent=silent, aux_k=3)[1]["auxiliary"])(one)
    np.testing.assert_array_equal(slope.decoder_bias, np.zeros(5))  # it is in the error alone
    np.testing.assert_array_equal(slope.decoder[:5], np.zeros((5, 5)))
    assert np.abs(slope.decoder[5:]).max() > 0


def test_jumprelu_gradient_is_the_published_estimate():
    one, width = _made("jumprelu", threshold=0.5), 0.4
    raw, theta = np.asarray(one.raw(X)), np.exp(np.asarray(one.log_threshold))[None]
    near, above = np.abs(raw - theta) < width / 2, raw > theta
    f = np.where(above, raw, 0)
    into_f = 2 * (np.asarray(one.decode(f)) - X) @ np.asarray(one.decoder).T / len(X)
    by_theta = (-theta * near / width * into_f - 0.7 * near / width / len(X)).sum(axis=0)
    of = lambda d: losses.jumprelu(d, X, coefficient=0.7, bandwidth=width)[0]  # noqa: E731
    slope = jax.grad(of)(one)
    assert near.any() and above.any()
    np.testing.assert_allclose(slope.log_threshold, by_theta * theta[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        slope.encoder_bias, (into_f * above).sum(axis=0), rtol=1e-4, atol=1e-5
    )


def test_the_slope_of_the_count_is_that_of_its_expectation():
    # P(z > theta) of a normal z falls with theta as its density there.
    one = create_autoencoder(1, 1, jax.random.key(0), kind="jumprelu", threshold=0.8)
    one = dataclasses.replace(one, encoder=jnp.ones((1, 1)), decoder=jnp.zeros((1, 1)))
    z = np.random.default_rng(0).standard_normal((200_000, 1)).astype(np.float32)

    def count(d):
        loss, metrics = losses.jumprelu(d, z, coefficient=1.0, bandwidth=0.1)
        return loss - metrics["squared_error"]

    density = np.exp(-(0.8**2) / 2) / np.sqrt(2 * np.pi)
    assert jax.grad(count)(one).log_threshold[0] == pytest.approx(-density * 0.8, rel=0.05)


def test_refuses_more_helpers_than_features():
    with pytest.raises(ValueError, match="^aux_k"):
        losses.topk(_made("topk", k=2), X, silent=jnp.ones(9, bool), aux_k=10)
