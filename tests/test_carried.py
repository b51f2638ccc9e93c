"""Parts of a student whose truth is known: what a circuit's image carries, and who kept what."""

from __future__ import annotations

import functools

import jax
import pytest

from jaxcompress import io, tasks
from jaxcompress.align import fate, jobs, profile, together
from jaxcompress.carried import carried
from jaxcompress.models import create

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def student():
    return io.load("builtin:student")


@pytest.fixture(scope="module")
def models(student):
    names = {"teacher": "builtin:teacher", "stranger": "builtin:from-scratch"}
    return {name: io.load(source) for name, source in names.items()} | {"student": student}


@pytest.fixture(scope="module")
def prompts(student):
    return tasks.get("ioi", student.tokenizer, 12, jax.random.key(0))


@pytest.fixture(scope="module")
def profiles(models, prompts):
    return {name: profile(model, prompts, progress=False) for name, model in models.items()}


def test_a_student_from_the_teachers_layers_kept_its_heads_and_a_stranger_kept_nothing(
    models, profiles, prompts
):
    """The student started from layers 0 and 2; the stranger never saw the teacher."""
    remove = functools.partial(together, models["teacher"], prompts)
    found = {}
    for name in ("student", "stranger"):
        two = profiles["teacher"], profiles[name]
        found[name] = fate(*two, jobs(*two, models[name], prompts), remove)
    kept = {row["teachers"][0]: row["student"] for row in found["student"].kept}
    assert {"head 2.1": "head 1.1", "head 2.7": "head 1.7", "head 0.3": "head 0.3"}.items() <= (
        kept.items()
    )
    assert not (found["stranger"].kept or found["stranger"].merged or found["stranger"].brittle)
    assert len(found["stranger"].discarded) >= 5


def test_the_image_of_a_circuit_carries_the_task_in_a_student_and_not_in_a_stranger(
    models, profiles, prompts
):
    found = {
        name: carried(
            (profiles["teacher"], profiles[name]), (models["teacher"], models[name]), prompts
        )
        for name in ("student", "stranger")
    }
    ours = found["student"]
    assert ours.value is not None and ours.value > 0.7
    assert ours.raw is not None and ours.null is not None and ours.raw > ours.null + 0.3
    assert len(ours.image) < 18 and {"head 1.1", "head 1.7"} <= set(ours.image)
    assert found["stranger"].value == 0
    assert found["stranger"].image == ()


def test_who_cannot_do_the_task_is_refused(student, prompts):
    untrained = create(student.config, key=jax.random.key(0), tokenizer=student.tokenizer)
    known, unknown = (profile(m, prompts, progress=False) for m in (student, untrained))
    told = carried((known, unknown), (student, untrained), prompts)
    assert (told.value, told.refused) == (None, "the student cannot do this task")
    told = carried((unknown, known), (untrained, student), prompts)
    assert (told.value, told.refused) == (None, "the teacher cannot do this task")
