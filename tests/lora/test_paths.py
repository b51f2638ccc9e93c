"""Patching between base and edited model: all of an effect runs through what it must pass."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress import lora, tree
from tests import families
from tests.lora import examples


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_all_runs_through_the_only_edited_attention(name):
    model, prompts = families.model(name), families.prompts("right")
    adapter = examples.adapter(model.params, {"*/attn/value/kernel": 2})
    # Only layer 1: its effect passes through its own attention, whatever reads that later.
    edit = lora.turned(adapter)
    keep = {path: np.arange(3)[:, None].repeat(2, 1) == 1 for path in edit.leaves}
    part = lora.transplant(edit, keep)
    found = lora.carriers(model, prompts, part, over="attns")
    assert np.abs(found.effect).max() > 1e-3
    np.testing.assert_allclose(found.through[0], 0, atol=1e-5)
    np.testing.assert_allclose(found.through[1], -found.effect, atol=1e-5)
    np.testing.assert_allclose(found.alone[1], found.effect, atol=1e-5)
    np.testing.assert_allclose(found.alone[0], 0, atol=1e-5)
    heads = lora.carriers(model, prompts, part, over="heads", chunk=5)
    assert heads.through.shape == (3, 4, 3)
    np.testing.assert_allclose(heads.through[0], 0, atol=1e-5)
    assert np.abs(heads.through[1]).max() > 1e-4


def test_mlps_after_the_edit_carry_some(key):
    model, prompts = families.model("gpt2"), families.prompts()
    adapter = examples.adapter(model.params, {"*/down/kernel": 1})
    found = lora.carriers(model, prompts, adapter, over="mlps", metric="probability")
    assert found.through.shape == (3, 3) and np.abs(found.through).min() > 1e-7
    with pytest.raises(ValueError, match="over"):
        lora.carriers(model, prompts, adapter, over="mlp")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_head_changes_are_those_of_the_products(name):
    model, prompts = families.model(name), families.prompts("right")
    adapter = examples.adapter(model.params, {"*/attn/key/kernel": 1, "*/attn/output/kernel": 1})
    found = lora.head_changes(model, prompts, adapter)
    before, after = (
        tree.paths(p["blocks"]["attn"]) for p in (model.params, lora.merge(model.params, adapter))
    )
    layer, head = 1, 3
    kv = head // (model.config.heads // model.config.kv_heads)

    def products(w):
        query, key = w["query/kernel"][layer, :, head], w["key/kernel"][layer, :, kv]
        return query @ key.T, w["value/kernel"][layer, :, kv] @ w["output/kernel"][layer, head]

    for got, old, new in zip(found[:2], products(before), products(after), strict=True):
        expected = np.linalg.norm(new - old) / np.linalg.norm(old)
        np.testing.assert_allclose(got[layer, head], expected, rtol=1e-4)
    assert found.pattern.shape == (3, 4)
    assert found.pattern.min() > 0 and found.pattern.max() < 1


def test_an_edit_of_values_leaves_where_its_own_layer_looks():
    model = families.model("gpt2")
    adapter = examples.adapter(model.params, {"*/attn/value/kernel": 1})
    found = lora.head_changes(model, families.prompts(), adapter)
    np.testing.assert_array_equal(found.qk, 0)
    np.testing.assert_allclose(found.pattern[0], 0, atol=1e-6)
    assert found.pattern[1].min() > 1e-4 and found.ov.min() > 1e-3
    with pytest.raises(ValueError, match="one size"):
        lora.head_changes(families.model("uneven"), families.prompts(), adapter)
