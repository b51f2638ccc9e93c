"""Quality of dictionaries where it is known: one that loses nothing, and one that says nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import prune, tasks
from jaxcompress.io import load
from jaxcompress.models import create_autoencoder
from jaxcompress.sae import activations, quality, recovery


def lossless(width):
    """Features +-x_i, from which x is put together again."""
    one, eye = create_autoencoder(width, 2 * width, jax.random.key(0)), jnp.eye(width)
    both = jnp.concatenate([eye, -eye])
    return dataclasses.replace(one, encoder=both.T, decoder=both)


@pytest.fixture(scope="module")
def months():
    model = load("builtin:student")
    return model, tasks.get("months", model.tokenizer, 6, jax.random.key(0))


def test_of_a_dictionary_that_loses_nothing():
    x = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    found = quality.quality(lossless(6), x)
    assert found.explained == pytest.approx(1, abs=1e-6)
    assert found.l0 == 6 and found.dead == 0 and found.tokens == 40
    np.testing.assert_allclose(found.density, np.concatenate([(x > 0).mean(0), (x < 0).mean(0)]))
    np.testing.assert_allclose(found.strongest, np.concatenate([x.max(axis=0), -x.min(axis=0)]))


def test_explained_and_dead_by_hand_whatever_the_batch():
    one = lossless(6)
    one = dataclasses.replace(one, encoder_bias=one.encoder_bias.at[jnp.array([0, 6])].set(-99.0))
    x = 3 + np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    expected = 1 - (x[:, 0] ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
    for batch in (7, 40):
        found = quality.quality(one, x, batch=batch)
        assert found.explained == pytest.approx(expected, rel=1e-5)
        assert found.density[0] == found.density[6] == 0
        assert found.l0 == pytest.approx((np.abs(x[:, 1:]) > 0).sum(axis=1).mean())


def test_a_lossless_dictionary_recovers_all_and_padding_changes_nothing(months):
    model, prompts = months
    one = lossless(model.config.width)
    found = recovery.recovered(model, one, 1, [prompts], prune.answer)
    assert found.share == pytest.approx(1, abs=1e-5)
    assert found.removed > found.clean
    wider = dataclasses.replace(
        prompts,
        tokens=np.pad(prompts.tokens, ((0, 0), (0, 3))),
        corrupted=np.pad(prompts.corrupted, ((0, 0), (0, 3))),
        attention_mask=np.pad(prompts.attention_mask, ((0, 0), (0, 3))),
    )
    random = create_autoencoder(model.config.width, 64, jax.random.key(0), kind="topk", k=8)
    same = [recovery.recovered(model, random, 1, [p], prune.answer) for p in (prompts, wider)]
    assert dataclasses.astuple(same[0]) == pytest.approx(dataclasses.astuple(same[1]), rel=1e-5)


def test_of_a_stream_that_does_nothing_no_share_is_kept():
    assert np.isnan(recovery.Recovery(clean=1.0, spliced=1.0, removed=1.0).share)


def test_the_stream_of_real_tokens_only(months):
    model, prompts = months
    x = activations.stream(model, [prompts, prompts], 1)
    taps = model.apply(
        model.params, prompts.tokens, attention_mask=prompts.attention_mask, taps=("resid",)
    ).taps["resid"][1]
    expected = np.asarray(taps)[np.asarray(prompts.attention_mask) > 0]
    np.testing.assert_allclose(x, np.concatenate([expected, expected]), atol=1e-6)
    assert (activations.scale(x) * x).var(axis=0).shape == (model.config.width,)
    assert np.square(activations.scale(x) * x).mean() == pytest.approx(1, rel=1e-5)


def test_refusals(months):
    model, prompts = months
    one = lossless(model.config.width)
    with pytest.raises(ValueError, match="^x: "):
        quality.quality(one, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="^x: "):
        quality.quality(lossless(3), np.ones((4, 3)))
    with pytest.raises(ValueError, match="^x: "):
        activations.scale(np.array([[np.nan]]))
    with pytest.raises(ValueError, match="^layer"):
        recovery.recovered(model, one, 3, [prompts], prune.answer)
    with pytest.raises(ValueError, match=r"^dictionary\.decoder_bias"):
        recovery.recovered(model, lossless(3), 1, [prompts], prune.answer)
    with pytest.raises(ValueError, match="^batches"):
        recovery.recovered(model, one, 1, [], prune.answer)
    with pytest.raises(ValueError, match="^batches"):
        activations.stream(model, [], 1)
