"""Planted directions: foreign ones are intruders, known ones are not, tokens are read off."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import lora
from jaxcompress.lora import spectra
from tests import families
from tests.lora import examples


def planted(path, shape, a, b):
    """An adapter that adds a @ b to a matrix."""
    made = examples.adapter({path: np.zeros(shape, np.float32)}, {path: 1}, alpha=1.0)
    leaves = {path: {"a": jnp.asarray(a)[:, None], "b": jnp.asarray(b)[None]}}
    return dataclasses.replace(made, leaves=leaves)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_foreign_direction_intrudes_and_a_known_one_does_not(side):
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((12, 12)))[0].astype(np.float32) for _ in range(2))
    base = (u[:, :6] * np.arange(6, 0, -1)) @ v[:, :6].T  # six of the twelve
    params = {"kernel": base}
    known = planted("kernel", (12, 12), 9 * u[:, 2], v[:, 2])
    found = lora.intruders(params, known, side=side, top=6)["kernel"]
    assert found.intruders == 0 and found.update[0] > 0.999 and found.tuned.shape == (6,)


def test_intruders_of_a_wide_matrix():
    rng = np.random.default_rng(1)
    v = np.linalg.qr(rng.standard_normal((40, 40)))[0].astype(np.float32)
    base = np.diag(np.arange(6, 0, -1)).astype(np.float32) @ v[:6]  # its outputs span 6 of 40
    foreign = planted("kernel", (6, 40), 50 * np.eye(6, dtype=np.float32)[5], v[20])
    found = lora.intruders({"kernel": base}, foreign, top=3)["kernel"]
    assert found.intruders == 1 and found.tuned[0] < 0.1 and found.update[0] < 1e-5
    assert found.tuned[1] > 0.99
    small = planted("kernel", (6, 40), 1e-3 * np.eye(6, dtype=np.float32)[5], v[20])
    assert lora.intruders({"kernel": base}, small, top=3)["kernel"].intruders == 0
    with pytest.raises(ValueError, match="side"):
        lora.intruders({"kernel": base}, small, side="left")


def test_tokens_of_planted_directions():
    model = families.model("llama")  # untied: embedding and unembedding differ
    config, params = model.config, model.params
    table = np.asarray(spectra.unembedding(config, params))
    np.testing.assert_allclose(
        table, params["head"]["final_norm"]["scale"][:, None] * params["head"]["kernel"], rtol=1e-6
    )
    adapter = examples.adapter(params, {"*/mlp/down/kernel": 1, "*/attn/key/kernel": 1})
    found = spectra.tokens(config, params, adapter, count=3)
    turned = lora.turned(adapter).leaves
    writes = np.asarray(turned["blocks/mlp/down/kernel"]["b"][1, 0]) @ table
    np.testing.assert_array_equal(
        found["blocks/mlp/down/kernel"][1, 0, 0], np.argsort(-writes, kind="stable")[:3]
    )
    reads = np.asarray(params["embed"]["tokens"]) @ turned["blocks/attn/key/kernel"]["a"][2, :, 0]
    np.testing.assert_array_equal(
        found["blocks/attn/key/kernel"][2, 0, 1], np.argsort(reads, kind="stable")[:3]
    )


def test_the_mean_of_a_layernorm_is_taken_off_and_encoders_are_refused():
    gpt2 = families.model("gpt2")
    table = spectra.unembedding(gpt2.config, gpt2.params)
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-5)
    assert table.shape == (8, 11)
    bert = families.model("bert")
    with pytest.raises(ValueError, match="linear"):
        spectra.unembedding(bert.config, bert.params)
