"""Many sets of gates in one program are the loop over them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tasks
from jaxcompress.ablate.removal import answered, remaining
from jaxcompress.models import Edits, Gates
from tests import families


@pytest.mark.parametrize("replacement", ["zero", "mean"])
def test_remaining_is_the_loop(replacement):
    model, prompts = families.model("llama"), families.prompts("right")
    given = jax.tree.map(jnp.asarray, prompts)
    rng = np.random.default_rng(0)
    gates = rng.integers(0, 2, (3, 3, 6)).astype(np.float32)
    got = remaining(model, prompts, Gates(neurons=gates), replacement=replacement, metric="kl")
    mask = given.attention_mask
    taps = model.apply(model.params, given.corrupted, attention_mask=mask, taps=("neurons",)).taps[
        "neurons"
    ]
    weights = np.asarray(mask, float)[None, :, :, None]
    mean = (taps * weights).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    edits = Edits(neurons=mean) if replacement == "mean" else None

    def logits(**options):
        return model.apply(
            model.params, given.tokens, attention_mask=mask,
            answer_position=given.answer_position, **options,
        ).logits  # fmt: skip

    for gate, value in zip(gates, got, strict=True):
        changed = logits(gates=Gates(neurons=gate), edits=edits)
        np.testing.assert_allclose(value, tasks.kl(changed, given, logits()).mean(), atol=1e-5)
    assert np.ptp(got) > 1e-3


def test_answered():
    model, prompts = families.model("gpt2"), families.prompts()
    out = model.apply(model.params, prompts.tokens, answer_position=prompts.answer_position)
    best = np.asarray(out.logits.argmax(axis=-1))[:, None]
    right = np.where(np.array([[True], [False], [True]]), best, (best + 1) % 11)
    some = answered(model, jax.tree.map(jnp.asarray, dataclasses.replace(prompts, correct=right)))
    np.testing.assert_array_equal(some.tokens, prompts.tokens[[0, 2]])
    none = dataclasses.replace(prompts, correct=(best + 1) % 11)
    assert len(answered(model, none)) == 0
