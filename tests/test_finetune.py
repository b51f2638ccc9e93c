"""Distillation and adapters from end to end, on a tiny model and few prompts."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from jaxcompress import io
from jaxcompress.cli import main
from jaxcompress.data import language, text
from jaxcompress.examples import Data
from jaxcompress.finetune import DistillConfig, LoraConfig, adapt, distil
from jaxcompress.models import ModelConfig, create
from jaxcompress.train import OptimizerConfig
from tests.families import randomized

pytestmark = pytest.mark.slow

DATA = Data(tasks=("months", "numerals"), count=24, batch=24)
FAST = OptimizerConfig(rate=0.03, warmup=2, weight_decay=0.0)


def tiny(**changes):
    tokenizer = text.word_level(language.texts())
    sizes = {"layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 4, "width": 8, "neurons": 6}
    config = ModelConfig(family="gpt2", vocab=len(tokenizer), context=48, **{**sizes, **changes})
    return create(config, randomized(config, seed=changes.get("neurons", 0)), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    io.save(tiny(), path / "teacher")
    io.save(tiny(neurons=3), path / "student")
    return path


@pytest.mark.parametrize("loss", ["forward_kl", "jsd"])
def test_a_student_comes_nearer(folder, tmp_path, loss):
    config = DistillConfig(loss=loss, steps=40, batch=8, alpha=0.0, optimizer=FAST, data=DATA)
    record = distil(str(folder / "teacher"), str(folder / "student"), tmp_path / "out", config)
    assert record["loss"]["after"] < 0.7 * record["loss"]["before"]
    student = io.load(tmp_path / "out")
    assert student.config.neurons == 3 and student.tokenizer is not None
    written = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert written["recipe"]["loss"] == loss and written["loss"] == record["loss"]


def test_an_adapter_learns_and_loads(folder, tmp_path):
    source = str(folder / "teacher")
    config = LoraConfig(
        rank=2, steps=40, batch=8, optimizer=FAST, data=DATA, merged=str(tmp_path / "merged"),
        targets=("*/attn/value/kernel", "*/mlp/up/kernel"), ratio=4.0,
    )  # fmt: skip
    record = adapt(source, tmp_path / "adapter", config)
    assert record["loss"]["after"] < record["loss"]["before"]
    assert record["trained"] == 2 * (8 + 8) + 2 * (8 + 6)
    model = io.load(source)
    adapter = io.load_adapter(model, tmp_path / "adapter")
    merged = io.load(tmp_path / "merged")
    tokens = jax.random.randint(jax.random.key(0), (2, 5), 0, model.config.vocab)
    np.testing.assert_allclose(
        model.apply(model.params, tokens, lora=adapter).logits,
        merged.apply(merged.params, tokens).logits,
        atol=1e-5,
    )


def test_the_commands(folder, tmp_path, capsys):
    teacher, student = str(folder / "teacher"), str(folder / "student")
    few = ["steps=2", "batch=4", "data.tasks=[months]", "data.count=8", "optimizer.warmup=1"]
    assert main(["distill", teacher, student, str(tmp_path / "out"), *few]) == 0
    assert main(["lora", teacher, str(tmp_path / "adapter"), "rank=2", *few]) == 0
    printed = capsys.readouterr().out
    assert "held-out loss, teacher" in printed and "Trained 64 parameters" in printed
    assert main(["lora", teacher, str(tmp_path / "adapter"), *few]) == 2
    assert main(["distill", teacher, student, str(tmp_path / "x"), "loss=kl", *few]) == 2
    assert main(["distill", teacher, student, str(tmp_path / "x"), "alpha=2", *few]) == 2
    assert main(["lora", teacher, str(tmp_path / "x"), "targets=['*/x']", *few]) == 2
    assert not (tmp_path / "x").exists()


def test_vocabularies_must_agree(folder, tmp_path):
    other = tiny()
    smaller = ModelConfig(**{**vars(other.config), "vocab": 5})
    io.save(create(smaller, randomized(smaller)), tmp_path / "other")
    with pytest.raises(ValueError, match="student: expected a vocabulary of"):
        distil(str(folder / "teacher"), str(tmp_path / "other"), tmp_path / "x", DistillConfig())
