"""What features say: the tokens at which they are strongest, and those that they promote."""

import jax
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress.sae import reading


def test_strongest_tokens_and_sums_whatever_the_batch():
    one = jc.models.create_autoencoder(5, 9, jax.random.key(0))
    x = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    x[7] = x[3]  # equals: the first comes first
    f = np.asarray(one.encode(x))
    for batch in (4, 100):
        found = reading.strongest(one, x, [2, 6], 30, batch=batch)
        for row, feature in zip(found, (2, 6), strict=True):
            active = [
                i for i in sorted(range(30), key=lambda i: -f[i, feature]) if f[i, feature] > 0
            ]
            assert row.tolist() == active + [-1] * (30 - len(active))
        total = (f * np.asarray(one.norms)).sum(axis=0)
        np.testing.assert_allclose(reading.written(one, x, batch=batch), total, rtol=1e-5)
    assert (reading.strongest(one, x[:2], [2], 5)[:, 2:] == -1).all()


def test_promoted_tokens_are_those_of_the_direction_alone():
    model = jc.load("builtin:student")
    one = jc.models.create_autoencoder(model.config.width, 4, jax.random.key(0))
    table = np.asarray(model.params["embed"]["tokens"])
    norm = jax.tree.map(np.asarray, model.params["head"]["final_norm"])
    for row, direction in zip(
        reading.promoted(model, one, [0, 3], 4), np.asarray(one.decoder)[[0, 3]], strict=True
    ):
        centred = direction - direction.mean()
        scaled = centred / np.sqrt((centred**2).mean() + 1e-5) * norm["scale"]
        assert row.tolist() == np.argsort(-(scaled @ table.T))[:4].tolist()


def test_refusals():
    one = jc.models.create_autoencoder(5, 9, jax.random.key(0))
    with pytest.raises(ValueError, match="^features"):
        reading.strongest(one, np.ones((2, 5)), [9], 1)
    with pytest.raises(ValueError, match="^count"):
        reading.strongest(one, np.ones((2, 5)), [1], 0)
    model = jc.load("builtin:student")
    with pytest.raises(ValueError, match="^count"):
        reading.promoted(model, one, [1], model.config.vocab + 1)
