"""Parts removed together: the same as gates by hand, and what is said of them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import tasks
from jaxcompress.align import jobs, profile, redundancy
from jaxcompress.align.jobs import important, together
from jaxcompress.models import Gates

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return jc.load("builtin:student")


@pytest.fixture(scope="module")
def prompts(model):
    found = tasks.get("numerals", model.tokenizer, 8, jax.random.key(0))
    return tasks.alike([found], model.config.context)[0]


@pytest.fixture(scope="module")
def measured(model, prompts):
    return profile(model, prompts, progress=False)


def test_a_group_of_one_is_the_part_by_itself(model, prompts, measured):
    """Of the profile, which shares prefixes and sweeps kind by kind."""
    effects, logits = together(model, prompts, [[name] for name in measured.names])
    np.testing.assert_allclose(effects, measured.effects, atol=1e-4)
    np.testing.assert_allclose(logits, measured.logits, atol=1e-4)


def test_a_group_is_its_gates_at_once(model, prompts):
    groups = [("head 0.1", "mlp 1"), ("head 0.0", "head 1.2", "mlp 0"), ("mlp 0",)]
    gates = [
        Gates.off(model.config, heads=[(0, 1)], mlps=[1]),
        Gates.off(model.config, heads=[(0, 0), (1, 2)], mlps=[0]),
        Gates.off(model.config, mlps=[0]),
    ]
    options = {
        "attention_mask": prompts.attention_mask,
        "answer_position": prompts.answer_position,
    }
    whole, *parts = (
        tasks.logit_difference(
            model.apply(model.params, prompts.tokens, gates=one, **options).logits, prompts
        )
        for one in (None, *gates)
    )
    effects, _ = together(model, prompts, groups, replacement="zero")
    for effect, part in zip(effects, parts, strict=True):
        np.testing.assert_allclose(effect, part - whole, atol=1e-4)


def test_interactions_are_both_less_each(model, prompts, measured):
    names, extra = redundancy(measured, model, prompts, threshold=5.0, most=4)
    assert len(names) >= 2
    np.testing.assert_array_equal(extra, extra.T)
    assert (np.diag(extra) == 0).all() and np.abs(extra).max() > 0.01
    both = together(model, prompts, [names[:2]])[0].mean()
    single = dict(zip(measured.names, measured.effects.mean(axis=1), strict=True))
    assert extra[0, 1] == pytest.approx(both - single[names[0]] - single[names[1]], abs=1e-4)


def test_a_model_does_its_own_jobs(model, prompts, measured):
    found = jobs(measured, measured, model, prompts)
    assert [job.teacher for job in found] == [measured.names[i] for i in important(measured)]
    assert found
    for job in found:
        assert job.students == (job.teacher,)
        assert job.similarity == pytest.approx(1.0, abs=1e-4)
        assert job.drop_student == pytest.approx(job.drop_teacher, abs=0.01)
        assert 0.25 <= job.floor < job.similarity
    # What an unrelated model does as well says nothing.
    null = jobs(measured, measured, model, prompts, unrelated={"same": (measured, model)})
    assert all(job.floor == pytest.approx(1.0, abs=1e-4) for job in null)
