"""Weights that are made by hand copy, count on, look back and compose as they were made to."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress.circuits.role_weights import compositions, heads_of, weight_roles
from jaxcompress.models import ModelConfig, create
from tests import families

V = 8  # tokens, and as many channels for what is read and for what is written


def planted(ov, *, positions="none"):
    """One layer, one head; tokens are one-hot in the first V channels, logits read these."""
    config = ModelConfig(
        family="research", layers=1, heads=1, kv_heads=1, head_dim=V, width=2 * V, neurons=1,
        vocab=V, context=6, norm="none", final_norm=False, positions=positions, tied=False,
        qkv_bias=False, output_bias=False, mlp_bias=False,
    )  # fmt: skip
    params = families.randomized(config)
    params = {**params, "embed": {**params["embed"], "tokens": np.eye(V, 2 * V, dtype=np.float32)}}
    params["head"] = {"kernel": np.eye(2 * V, V, dtype=np.float32)}
    attn = params["blocks"]["attn"]
    attn["value"]["kernel"] = np.eye(2 * V, V, dtype=np.float32)[None, :, None]
    attn["output"]["kernel"] = np.pad(ov, ((0, 0), (0, V))).astype(np.float32)[None, None]
    return create(config, params)


def test_a_copying_and_a_suppressing_head():
    eye = np.eye(V) - 1 / V  # what all logits share says nothing
    found = weight_roles(planted(eye))
    np.testing.assert_allclose(found["copying_eigenvalues"], 1, atol=1e-5)
    assert found["copying"] == 1
    found = weight_roles(planted(-eye))
    np.testing.assert_allclose(found["copying_eigenvalues"], -1, atol=1e-5)
    assert found["copying"] == 0


def test_a_successor_head():
    follows = np.roll(np.eye(V), 1, axis=1)
    found = weight_roles(planted(follows), members=[list(range(V)), [2, 3, 4]])
    assert found["successor"] == 1 and abs(found["copying_eigenvalues"]) < 0.2
    assert weight_roles(planted(np.eye(V)), members=[[0, 1, 2]])["successor"] == 0


def test_a_head_that_looks_one_back():
    model = planted(np.eye(V), positions="learned")
    places = np.zeros((6, 2 * V), np.float32)
    places[np.arange(6), V + np.arange(6)] = 1
    attn = model.params["blocks"]["attn"]
    query, key = np.zeros((2, 2 * V, V), np.float32)
    query[V + np.arange(1, 6), np.arange(5)] = 60  # place t asks for t - 1
    key[V + np.arange(5), np.arange(5)] = 1
    attn["query"]["kernel"], attn["key"]["kernel"] = query[None, :, None], key[None, :, None]
    params = {**model.params, "embed": {**model.params["embed"], "positions": places}}
    found = weight_roles(model.replace(params=params))
    assert found["previous"] > 0.99


def test_the_position_before_is_attended_to_as_in_the_model():
    """Biases of queries too: with one embedding for all tokens, the score is the pattern's."""
    model = families.model("gpt2", layers=1)
    embed = model.params["embed"]
    alike = {**embed, "tokens": np.repeat(embed["tokens"][:1], families.VOCAB, axis=0)}
    model = model.replace(params={**model.params, "embed": alike})
    tokens = np.zeros((1, families.CONTEXT), int)
    pattern = model.apply(model.params, tokens, taps=("pattern",)).taps["pattern"][0, 0]
    before = np.diagonal(pattern, -1, axis1=1, axis2=2).mean(axis=1)
    np.testing.assert_allclose(weight_roles(model)["previous"][0], before, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_composition_is_the_norm_of_the_product(name, kind):
    model = families.model(name)
    found, layers = compositions(model, kind), heads_of(model.config, model.params)
    early, late = layers[0], layers[2]
    writer = np.diag(early["scale"]) @ early["value"][1] @ early["output"][1]
    left, right = {
        "Q": (late["query"][3], late["key"][3].T * late["scale"]),
        "K": (late["key"][3], late["query"][3].T * late["scale"]),
        "V": (late["value"][3], late["output"][3]),
    }[kind]
    reader = np.diag(late["scale"]) @ left @ right
    expected = np.linalg.norm(writer @ reader)
    expected /= np.linalg.norm(writer) * np.linalg.norm(reader)
    np.testing.assert_allclose(found[0, 1, 2, 3], expected, rtol=1e-6)
    assert (found[2] == 0).all() and (found[0, :, 0] == 0).all() and found.max() <= 1


def test_compositions_of_layers_of_different_sizes():
    found = compositions(families.model("uneven"), "V")
    one, two = heads_of(families.config("uneven"), families.model("uneven").params)[:2]
    left, right = one["scale"][:, None] * one["value"][3] @ one["output"][3], two["scale"][:, None]
    right = right * two["value"][1] @ two["output"][1]
    expected = np.linalg.norm(left @ right) / np.linalg.norm(left) / np.linalg.norm(right)
    np.testing.assert_allclose(found[0, 3, 1, 1], expected, rtol=1e-6)
    assert (found[:, :, 1, 2:] == 0).all() and (found[:, :, 2] == 0).all()


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="kind"):
        compositions(families.model("gpt2"), "k")
