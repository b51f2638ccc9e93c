"""Losses that ask for the same mechanism: 0 for the same model, and what they measure by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.cka import linear_cka
from jaxcompress.distill import mechanisms
from jaxcompress.models import Gates
from jaxcompress.tasks import logit_difference
from tests import families

pytestmark = pytest.mark.slow

EVERY = [((layer, head), (layer, head)) for layer in range(3) for head in range(4)]


@pytest.fixture(scope="module")
def model():
    return families.model("gpt2")


@pytest.fixture(scope="module")
def other():
    config = families.config("gpt2")
    return families.model("gpt2").replace(params=families.randomized(config, seed=7))


@pytest.fixture(scope="module")
def prompts():
    return jax.tree.map(jnp.asarray, families.prompts("right"))


def losses(teacher, student, weight=1.0):
    return {
        "hidden": mechanisms.hidden_states(teacher, student, [(0, 0), (2, 2)], weight=weight),
        "cka": mechanisms.circuit_cka(teacher, student, EVERY, weight=weight),
        "gates": mechanisms.gate_gradients(
            teacher, student, EVERY, logit_difference, weight=weight
        ),
    }


@pytest.mark.parametrize("name", ["hidden", "cka", "gates"])
def test_nothing_is_asked_of_the_teacher_itself(model, other, prompts, name):
    same = losses(model, model)[name](model.params, prompts)
    np.testing.assert_allclose(same, 0, atol=2e-5)
    loss = losses(model, other, weight=0.5)[name]
    value, gradient = jax.value_and_grad(loss)(other.params, prompts)
    assert value > 0.01
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(
        2 * value, losses(model, other)[name](other.params, prompts), rtol=1e-5
    )


def test_the_cka_is_that_of_heads_at_the_answer(model, other, prompts):
    pairs = [((0, 1), (2, 3)), ((1, 0), (2, 3))]
    expected = 0.0
    told = {"attention_mask": prompts.attention_mask, "taps": ("heads",)}
    outs = [m.apply(m.params, prompts.tokens, **told) for m in (other, model)]
    taps = [np.asarray(out.taps["heads"]) for out in outs]
    rows = np.arange(len(prompts.tokens))
    for (a, b), (c, d) in pairs:
        x, y = (
            taps[0][a, rows, prompts.answer_position, b],
            taps[1][c, rows, prompts.answer_position, d],
        )
        expected += 1 - float(linear_cka(jnp.asarray(x), jnp.asarray(y)))
    value = mechanisms.circuit_cka(model, other, pairs)(other.params, prompts)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_gate_gradients_are_slopes_and_merged_heads_are_added_up(model, other, prompts):
    """The same by finite differences at the gates, two teacher heads on one student head."""
    pairs = [((0, 1), (2, 3)), ((0, 1), (1, 2)), ((1, 0), (0, 0))]

    def slope(m, head, step=0.05):
        ends = []
        for move in (step, -step):
            gates = Gates(heads=jnp.ones((3, 4)).at[head].add(move))
            out = m.apply(
                m.params, prompts.tokens, attention_mask=prompts.attention_mask, gates=gates,
                answer_position=prompts.answer_position,
            )  # fmt: skip
            ends.append(logit_difference(out.logits, prompts))
        return np.asarray(ends[0] - ends[1]) / (2 * step)

    x = np.concatenate([slope(other, (0, 1)), slope(other, (1, 0))])
    y = np.concatenate([slope(model, (2, 3)) + slope(model, (1, 2)), slope(model, (0, 0))])
    expected = 1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    loss = mechanisms.gate_gradients(model, other, pairs, logit_difference)
    np.testing.assert_allclose(loss(other.params, prompts), expected, atol=3e-3)


def test_heads_are_matched_by_what_their_removal_costs():
    student = np.array([[[0.9, 0.1], [0.0, 0.0]]])
    teacher = np.array([[[0.1, 0.9], [1.0, 0.0]], [[np.nan, np.nan], [0.0, 0.1]]])
    matched = mechanisms.match_by_effect(student, teacher)
    assert matched == [((0, 0), (0, 1)), ((0, 1), (1, 1))]
    assert mechanisms.match_by_effect(student, teacher, [[False, True]]) == matched[1:]
    with pytest.raises(ValueError, match="teacher: expected some head with finite effects"):
        mechanisms.match_by_effect(student, np.full((2, 2, 2), np.nan))
    with pytest.raises(ValueError, match=r"teacher: expected shape \(2, 2, 2\)"):
        mechanisms.match_by_effect(student, teacher[..., :1])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "pairs: expected at least one pair of heads"),
        ([((0, 0), (3, 0))], "pairs: expected heads of the teacher below"),
    ],
)
def test_bad_pairs(model, pairs, message):
    with pytest.raises(ValueError, match=message):
        mechanisms.circuit_cka(model, model, pairs)
