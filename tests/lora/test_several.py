"""Several adapters: mapped over they are the loop, added up they are the sum of their edits."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcompress import lora
from tests import families
from tests.lora import examples

RANKS = {"*/attn/query/kernel": 2, "*/down/kernel": 1}


def test_vmap_over_adapters_is_the_loop():
    model, tokens = families.model("gpt2"), families.tokens()
    adapters = [examples.adapter(model.params, RANKS, seed=seed) for seed in range(3)]

    def logits(adapter):
        return model.apply(model.params, tokens, lora=adapter).logits

    got = jax.vmap(logits)(lora.stack(adapters))
    loop = np.stack([logits(adapter) for adapter in adapters])
    np.testing.assert_allclose(got, loop, atol=1e-5)
    assert np.abs(loop[0] - loop[1]).max() > 0.1


def test_combine_adds_up_edits():
    params = families.model("gpt2").params
    one = examples.adapter(params, RANKS, seed=0)
    two = examples.adapter(params, {"*/attn/*": 3}, alpha=2.0, variant="rslora", seed=1)
    three = examples.adapter(params, RANKS, variant="pissa", seed=2)
    weights = np.array([0.5, -2.0, 1.0], np.float32)
    combined = lora.combine([one, two, three], weights)
    ranks = {spec.path: spec.rank for spec in combined.specs}
    assert ranks["blocks/attn/query/kernel"] == 2 + 3 + 4 and ranks["blocks/attn/key/kernel"] == 3
    assert {spec.variant for spec in combined.specs} == {"lora"}
    got = examples.effects(combined, params)
    parts = [examples.effects(adapter, params) for adapter in (one, two, three)]
    for path, effect in got.items():
        expected = sum(
            w * part[path] for w, part in zip(weights, parts, strict=True) if path in part
        )
        np.testing.assert_allclose(effect, expected, atol=1e-5)


def test_weights_may_be_traced():
    params = families.model("gpt2").params
    adapter = examples.adapter(params, {"*/down/kernel": 1})

    def size(weight):
        merged = lora.combine([adapter], weight[None]).merged(params)
        return (merged["blocks"]["mlp"]["down"]["kernel"]).sum()

    effect = examples.effects(adapter, params)["blocks/mlp/down/kernel"].sum()
    np.testing.assert_allclose(jax.grad(size)(np.float32(0.3)), effect, rtol=1e-3)


def test_wrong_companies():
    params = families.model("gpt2").params
    adapter = examples.adapter(params, RANKS)
    with pytest.raises(ValueError, match=r"adapters\[1\]: expected the specs of the first"):
        lora.stack([adapter, examples.scaled(adapter, 2.0)])
    for function in (lora.stack, lora.combine):
        with pytest.raises(ValueError, match="adapters: expected at least one"):
            function([])
    with pytest.raises(ValueError, match="weights: expected shape"):
        lora.combine([adapter], [1.0, 2.0])
    with pytest.raises(ValueError, match="dora at blocks/"):
        lora.combine([examples.adapter(params, RANKS, variant="dora")])
