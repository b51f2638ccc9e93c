"""Sparse autoencoders: the formula, exactly k features, and the same features of scaled input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcompress import tree
from jaxcompress.models import create_autoencoder
from jaxcompress.models.autoencoder import KINDS
from jaxcompress.models.largest import largest

OPTIONS = {"relu": {}, "topk": {"k": 3}, "jumprelu": {"threshold": 0.4}}


def _made(kind, seed=0, width=5, features=9):
    key = jax.random.key(seed)
    one = create_autoencoder(width, features, key, kind=kind, **OPTIONS[kind])
    shape = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(key, leaf.shape), one)
    return jax.tree.map(jnp.add, one, shape)


@given(st.lists(st.sampled_from([0.0, 1e-37, 0.5, 1.0, 1.5, 3e38]), min_size=1, max_size=8),
       st.integers(1, 8))  # fmt: skip
def test_the_largest_are_those_that_sorting_finds(values, k):
    k = min(k, len(values))
    last = sorted(np.float32(values), reverse=True)[k - 1]
    assert largest(jnp.array(values, jnp.float32), k).tolist() == [
        v >= last for v in np.float32(values)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_formula(kind):
    one = _made(kind)
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    encoder, bias, decoder, shift = map(
        np.asarray, (one.encoder, one.encoder_bias, one.decoder, one.decoder_bias)
    )
    raw = x @ encoder + bias
    f = np.maximum(raw, 0)
    if kind == "jumprelu":
        f = np.where(raw > np.exp(one.log_threshold), raw, 0)
    if kind == "topk":
        writes = f * np.linalg.norm(decoder, axis=1)
        f = np.where(writes >= np.sort(writes, axis=1)[:, -3:-2], f, 0)
    np.testing.assert_allclose(one.encode(x), f, atol=1e-6)
    np.testing.assert_allclose(one.decode(f), f @ decoder + shift, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_of_scaled_activations_is_one_of_the_activations(kind):
    one = _made(kind)
    x = jax.random.normal(jax.random.key(1), (2, 3, 5))
    np.testing.assert_allclose(one.rescaled(4.0).encode(x), one.encode(4 * x), rtol=1e-5, atol=1e-6)
    scaled = one.rescaled(4.0).decode(one.encode(4 * x))
    np.testing.assert_allclose(scaled, one.decode(one.encode(4 * x)) / 4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_members_under_vmap_are_those_alone(kind):
    several = [_made(kind, seed) for seed in range(3)]
    x = jax.random.normal(jax.random.key(1), (4, 5))
    together = jax.vmap(lambda one: one.decode(one.encode(x)))(tree.stack(several))
    alone = [one.decode(one.encode(x)) for one in several]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


def test_it_starts_at_the_mean_and_does_not_see_it():
    mean = jnp.arange(5.0)
    one = create_autoencoder(5, 7, jax.random.key(0), mean=mean)
    np.testing.assert_allclose(one.raw(mean[None]), np.zeros((1, 7)), atol=1e-6)
    np.testing.assert_allclose(one.decode(one.encode(mean[None])), mean[None], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "gated"}, "kind"),
        ({"kind": "topk"}, "k"),
        ({"kind": "topk", "k": 10}, "k"),
        ({"kind": "relu", "k": 2}, "k"),
        ({"kind": "jumprelu", "threshold": 0.0}, "threshold"),
        ({"mean": np.zeros(4)}, "mean"),
    ],
)
def test_refusals(options, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        create_autoencoder(5, 9, jax.random.key(0), **options)
