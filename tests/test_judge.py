"""The judge of students: a teacher is its own best student."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcompress import io, tasks
from jaxcompress.judge import Judge

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def student():
    return io.load("builtin:student")


def test_a_model_is_its_own_student(student):
    prompts = tasks.get("months", student.tokenizer, 6, jax.random.key(0))
    judge = Judge(student, {"known": [prompts], "again": [prompts, prompts]}, "known")
    found = judge(student)
    assert found["known"] == found["again"] == 1
    np.testing.assert_allclose(found["alignment"], 1, atol=1e-6)
    assert 0 < found["brittleness"] < 100
    assert judge.without(student).shape == (2, 8, 1)
    # Of itself every head is matched with itself, those that matter most where few are asked for.
    every = [((layer, head),) * 2 for layer in range(2) for head in range(8)]
    assert judge.matched(student) == every
    few = judge.matched(student, 0.25)
    assert len(few) == 4 and set(few) < set(every)


def test_bad_input(student):
    with pytest.raises(ValueError, match=r"aligned: expected .*'knwon'.*did you mean 'known'"):
        Judge(student, {"known": []}, "knwon")
