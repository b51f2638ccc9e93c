"""Neighbours and correlations of features against NumPy, and a dictionary against itself mixed."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcompress.models import create_autoencoder
from jaxcompress.sae import geometry


def _made(width=5, features=9, seed=0):
    return create_autoencoder(width, features, jax.random.key(seed))


def test_neighbours_are_the_largest_cosines():
    one = _made()
    decoder = np.asarray(one.decoder) * np.arange(1, 10)[:, None]  # lengths do not matter
    one = dataclasses.replace(one, decoder=decoder)
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    cosine = unit @ unit[4]
    order = [i for i in np.argsort(-cosine) if i != 4][:3]
    found, near = geometry.neighbours(one, 4, 3)
    assert found.tolist() == order
    np.testing.assert_allclose(near, cosine[order], atol=1e-6)


def test_a_split_feature_finds_its_parts():
    one = _made(features=3)
    parts = [np.asarray(one.decoder)[[1]] + 0.1 * np.eye(5)[[i]] for i in range(2)]
    larger = _made(features=6, seed=3)
    decoder = np.concatenate([np.asarray(larger.decoder)[:4], *parts])
    larger = dataclasses.replace(larger, decoder=decoder)
    assert sorted(geometry.neighbours(one, 1, 2, of=larger)[0].tolist()) == [4, 5]


def test_correlations_are_pearsons_and_know_no_order_and_no_batches():
    one, other = _made(), _made(width=3, features=4, seed=1)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((50, width)).astype(np.float32) for width in (5, 3))
    f, g = np.asarray(one.encode(x)), np.asarray(other.encode(y))
    expected = np.corrcoef(f.T, g.T)[:9, 9:]
    for batch in (7, 50):
        found = geometry.correlations(one, other, x, y, batch=batch)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    mixed = np.random.default_rng(1).permutation(9)
    shuffled = dataclasses.replace(
        one, encoder=one.encoder[:, mixed], encoder_bias=one.encoder_bias[mixed],
        decoder=one.decoder[mixed],
    )  # fmt: skip
    assert geometry.shared(geometry.correlations(one, shuffled, x, x)) == pytest.approx(1, abs=1e-5)
    assert geometry.shared(geometry.cosines(one, shuffled)) == pytest.approx(1, abs=1e-5)


def test_a_constant_feature_is_like_none():
    one = _made()
    one = dataclasses.replace(one, encoder_bias=one.encoder_bias.at[2].set(-99.0))
    x = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)
    found = geometry.correlations(one, one, x, x)
    assert (found[2] == 0).all() and (found[:, 2] == 0).all()
    alive = np.arange(9) != 2
    assert geometry.shared(found, alive=alive) == pytest.approx(1, abs=1e-5)


def test_features_that_are_always_active_lose_no_digits():
    one, other = _made(), _made(seed=1)
    one = dataclasses.replace(one, encoder_bias=one.encoder_bias + 500)
    still = dataclasses.replace(one, encoder=0 * one.encoder, encoder_bias=np.linspace(0.1, 0.7, 9))
    x = np.random.default_rng(0).standard_normal((5000, 5)).astype(np.float32)
    f, g = (np.asarray(d.encode(x), np.float64) for d in (one, other))
    expected = np.corrcoef(f.T, g.T)[:9, 9:]
    np.testing.assert_allclose(geometry.correlations(one, other, x, x), expected, atol=1e-4)
    np.testing.assert_array_equal(geometry.correlations(still, other, x, x), np.zeros((9, 9)))


def test_refusals():
    one, x = _made(), np.ones((4, 5), np.float32)
    with pytest.raises(ValueError, match="^feature"):
        geometry.neighbours(one, 9)
    with pytest.raises(ValueError, match="^count"):
        geometry.neighbours(one, 0, 9)
    with pytest.raises(ValueError, match=r"^other\.decoder"):
        geometry.cosines(one, _made(width=3))
    with pytest.raises(ValueError, match="^y: "):
        geometry.correlations(one, one, x, x[:3])
    with pytest.raises(ValueError, match="^alive"):
        geometry.shared(np.ones((2, 2)), alive=np.zeros(2))
