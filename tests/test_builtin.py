"""The built-in models do what they are for, as committed; and the script that makes them runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import io, tasks
from jaxcompress.data import language
from jaxcompress.data.text import word_level
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

FOLDER = ROOT / "jaxcompress" / "builtin"
STUDENTS = ("student", "student-random-init", "from-scratch")
NAMES = ("teacher", *STUDENTS)
TARGETS = {
    "numerals": 0.98,
    "number_words": 0.98,
    "months": 0.98,
    "ioi": 0.98,
    "induction": 0.98,
    "greater_than": 0.95,
}


@pytest.fixture(scope="module")
def models():
    return {name: io.load(f"builtin:{name}") for name in NAMES}


def logits(model, prompts):
    return model.apply(
        model.params,
        prompts.tokens,
        attention_mask=prompts.attention_mask,
        answer_position=prompts.answer_position,
    ).logits


@pytest.mark.parametrize("task", TARGETS)
def test_the_teacher_masters_held_out_prompts(models, task):
    teacher = models["teacher"]
    prompts = language.evaluation(task, teacher.tokenizer, 128, jax.random.key(77))
    assert float(tasks.accuracy(logits(teacher, prompts), prompts).mean()) >= TARGETS[task]


@pytest.mark.parametrize("task", TARGETS)
def test_the_teacher_needs_what_was_corrupted(models, task):
    """With the deciding facts changed the same answers are no longer given."""
    teacher = models["teacher"]
    prompts = tasks.get(task, teacher.tokenizer, 128, jax.random.key(78))
    clean = tasks.probability_difference(logits(teacher, prompts), prompts).mean()
    corrupted = logits(teacher, prompts.__class__(**{**vars(prompts), "tokens": prompts.corrupted}))
    assert clean > 0.5
    assert clean - tasks.probability_difference(corrupted, prompts).mean() > 0.5


def test_they_are_small():
    sizes = {name: sum(path.stat().st_size for path in (FOLDER / name).iterdir()) for name in NAMES}
    assert all(size < 2.5e6 for size in sizes.values()), sizes
    assert sum(sizes.values()) < 8e6


def test_there_are_four():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", STUDENTS)
def test_students_have_half_the_layers(models, name):
    teacher, student = models["teacher"].config, models[name].config
    assert 2 * student.layers == teacher.layers == 4
    assert teacher.heads == 8 and 128 <= teacher.width <= 256
    for field in ("heads", "head_dim", "width", "neurons", "vocab", "context", "family"):
        assert getattr(student, field) == getattr(teacher, field)


def test_weights_are_stored_in_float16(models):
    for name in NAMES:
        assert json.loads((FOLDER / name / "config.json").read_text())["dtype"] == "float16"
        for leaf in jax.tree.leaves(models[name].params):
            assert leaf.dtype == jnp.float32
            np.testing.assert_array_equal(leaf, np.asarray(leaf, np.float16).astype(np.float32))


def test_the_tokenizer_is_that_of_the_language(models):
    tokenizer = word_level(language.texts(), context=models["teacher"].config.context)
    for model in models.values():
        assert model.tokenizer.get_vocab() == tokenizer.get_vocab()
        assert len(model.tokenizer) == model.config.vocab
        assert model.tokenizer.model_max_length == model.config.context
        text = "Van lost in 1. The war lasted from the year 1732"
        ids = model.tokenizer(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"]
        again = model.tokenizer.decode(ids, skip_special_tokens=True)
        assert model.tokenizer(again)["input_ids"] == ids


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(models, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        FOLDER / name, dtype=torch.float32
    ).eval()
    model = models[name]
    prompts = tasks.get("ioi", model.tokenizer, 8, jax.random.key(1), padding_side="right")
    tokens = np.array(prompts.tokens)  # a copy: torch wants to be able to write
    with torch.no_grad():
        expected = reference(torch.from_numpy(tokens).long()).logits.numpy()
    got = model.apply(model.params, prompts.tokens).logits
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.timeout(1500)
def test_the_script_runs(tmp_path):
    """The quick overlay, end to end: four models that load, and the table."""
    out, run = tmp_path / "builtin", tmp_path / "run"
    script = ROOT / "scripts" / "train_builtin.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", f"out={out}", f"run={run}"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in out.iterdir()) == sorted(NAMES)
    for name in NAMES:
        model = io.load(out / name)
        assert model.config.layers == (4 if name == "teacher" else 2)
        assert name in done.stdout
    assert all(task in done.stdout for task in TARGETS)
    assert (run / "metrics.jsonl").exists()
