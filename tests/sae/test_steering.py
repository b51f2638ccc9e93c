"""Steering: features at their own values change nothing, others only what they write."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tasks
from jaxcompress.io import load
from jaxcompress.models import create_autoencoder
from jaxcompress.sae import steering


@pytest.fixture(scope="module")
def steered():
    model = load("builtin:student")
    prompts = tasks.get("months", model.tokenizer, 4, jax.random.key(0))
    one = create_autoencoder(model.config.width, 32, jax.random.key(1), kind="topk", k=8)
    return model, prompts, one


def test_clamp_sets_features_and_keeps_the_error(steered):
    _, _, one = steered
    x = np.random.default_rng(0).standard_normal((3, one.decoder.shape[1])).astype(np.float32)
    f = np.asarray(one.encode(x))
    new = f.copy()
    new[:, [2, 7]] = [5.0, 0.0]
    error = x - np.asarray(one.decode(f))
    found = steering.clamp(one, x, [2, 7], [5.0, 0.0])
    np.testing.assert_allclose(found, np.asarray(one.decode(new)) + error, atol=1e-4)


def test_a_dictionary_without_features_at_hand_changes_nothing(steered):
    model, prompts, one = steered
    never = dataclasses.replace(one, encoder_bias=jnp.full(32, -1e9))
    clean = model.apply(model.params, prompts.tokens, attention_mask=prompts.attention_mask)
    same = steering.steer(
        model, never, 1, prompts.tokens, [3], [0.0], attention_mask=prompts.attention_mask
    )
    np.testing.assert_allclose(same.logits, clean.logits, atol=1e-5)
    other = steering.steer(
        model, never, 1, prompts.tokens, [3], [20.0], attention_mask=prompts.attention_mask
    )
    assert np.abs(other.logits - clean.logits).max() > 1


def test_a_sweep_over_strengths_is_a_loop(steered):
    model, prompts, one = steered

    def logits(value):
        out = steering.steer(
            model, one, 1, prompts.tokens, jnp.array([3]), value[None],
            attention_mask=prompts.attention_mask, answer_position=prompts.answer_position,
        )  # fmt: skip
        return out.logits

    values = jnp.array([0.0, 2.0, 8.0])
    swept = jax.vmap(logits)(values)
    np.testing.assert_allclose(swept, jnp.stack([logits(v) for v in values]), atol=1e-4)


def test_refusals(steered):
    model, prompts, one = steered
    with pytest.raises(ValueError, match="^features"):
        steering.clamp(one, np.zeros((1, one.decoder.shape[1])), [1, 2], [1.0])
    with pytest.raises(ValueError, match="^features"):
        steering.clamp(one, np.zeros((1, one.decoder.shape[1])), [32], [1.0])
    with pytest.raises(ValueError, match="^features"):
        steering.clamp(one, np.zeros((1, one.decoder.shape[1])), [1, 1], [1.0, 2.0])
    with pytest.raises(ValueError, match="^layer"):
        steering.steer(model, one, 3, prompts.tokens, [1], [1.0])
