"""The side that is padded changes no number, of those by position neither."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxcompress import ablate
from jaxcompress.align import profile
from jaxcompress.align.causal import marks
from jaxcompress.circuits import attribute
from tests import families

AHEAD = np.array([0, 2, 1, 3])  # padding of each row


@pytest.fixture(scope="module")
def both():
    """Rows of four lengths, padded on the left, and by hand on the right."""
    plain = families.prompts("none")[np.array([0, 1, 2, 0])]
    mask = (np.arange(families.LENGTH)[None] >= AHEAD[:, None]).astype(int)
    left = dataclasses.replace(plain, attention_mask=mask)
    moved = {
        name: np.stack([np.roll(row, -n) for row, n in zip(rows, AHEAD, strict=True)])
        for name, rows in vars(left).items()
        if name in ("tokens", "corrupted", "attention_mask")
    }
    position = left.answer_position - AHEAD
    return left, dataclasses.replace(left, answer_position=position, **moved)


MODEL = families.model("gpt2", layers=2)


def test_mean_ablation(both):
    one, other = (ablate.sweep(MODEL, prompts, replacement="mean") for prompts in both)
    assert np.abs(other.per_example).max() > 0.1
    np.testing.assert_allclose(one.per_example, other.per_example, atol=1e-5)


@pytest.mark.parametrize("per_position", [False, True])
def test_attribution(both, per_position):
    one, other = (
        attribute(MODEL, prompts, method="eap", replacement="mean", per_position=per_position)
        for prompts in both
    )
    assert np.abs(other.values).max() > 0.01
    np.testing.assert_allclose(one.values, other.values, atol=1e-5)


def test_profiles_and_their_marks(both):
    one, other = (profile(MODEL, prompts, progress=False) for prompts in both)
    for name in ("patterns", "rows", "outputs", "attention", "roles", "logits"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
    third = dataclasses.replace(other, attention=other.attention[::-1])
    names = ("attention", "attention_with_sink", "causal")
    ours, theirs = (marks(x, third, only=names) for x in (one, other))
    for name in names:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)
