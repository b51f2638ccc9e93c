#!/usr/bin/env python
"""Trains the built-in teacher and its three students, and writes them to jaxcompress/builtin/.

    .venv/bin/python scripts/train_builtin.py                     as committed
    .venv/bin/python scripts/train_builtin.py --quick out=/tmp/b  seconds, for the tests

`teacher` learns the synthetic language of `jaxcompress.data.language` by cross-entropy. The three
students have every second of its layers' worth of depth and see equally many tokens:

* `student` starts from layers 0, 2, ... of the teacher, embeddings and final norm included, and is
  distilled: forward KL with temperature plus cross-entropy (Sanh et al. 2019, arXiv 1910.01108,
  section 2, without the cosine loss);
* `student-random-init` is distilled in the same way from a random start;
* `from-scratch` has no teacher: cross-entropy only, from the same random start.

In every loss a token that the text before determines (`Corpus.answers`) counts `answer_weight`
times as much as another: most of the others are words drawn at random, which cannot be learned.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import config as configs
from jaxcompress import io, runs, tasks, train, tree
from jaxcompress.data import language, text
from jaxcompress.distill import losses
from jaxcompress.models import Model, ModelConfig, create

ROOT = Path(__file__).resolve().parents[1]
TASKS = tuple(name for name in tasks.NAMES if name in language.SHARES)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained; `configs/builtin/default.yaml` has the values of the committed models.

    Attributes:
      out: folder that gets one folder for each model.
      run: run folder, for the losses on the way.
      checkpoints: folder for checkpoints, from which a run that was stopped goes on if it is called
        again with the same values; empty for none.
      seed: of everything.
      rows: rows of the corpus, of `context` tokens each.
      pool: documents of each family that the rows are made of.
      layers: of the teacher; the students have half.
      heads: of a layer.
      width: of the residual stream.
      neurons: of an MLP.
      context: longest input in tokens.
      batch: rows of a step.
      answer_weight: of determined tokens, relative to the others.
      temperature: of the distillation.
      teacher_steps: updates of the teacher.
      student_steps: updates of each student.
      teacher: its optimiser.
      student: that of the students.
      prompts: held-out prompts of each task to measure accuracy on.
    """

    out: str = "jaxcompress/builtin"
    run: str = "runs/builtin"
    checkpoints: str = ""
    seed: int = 0
    rows: int = 60_000
    pool: int = 20_000
    layers: int = 4
    heads: int = 8
    width: int = 128
    neurons: int = 256
    context: int = 48
    batch: int = 64
    answer_weight: float = 10.0
    temperature: float = 2.0
    teacher_steps: int = 2400
    student_steps: int = 1200
    teacher: train.OptimizerConfig = dataclasses.field(default_factory=train.OptimizerConfig)
    student: train.OptimizerConfig = dataclasses.field(default_factory=train.OptimizerConfig)
    prompts: int = 256


def main() -> None:
    """Trains, writes, reads back, measures, and prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "builtin" / "default.yaml")
    run = runs.start(ROOT / config.run, config, config.seed, overwrite=True)
    out = ROOT / config.out
    keys = dict(zip(("corpus", "model", "train", "prompts"), _split(config.seed, 4), strict=True))
    tokenizer = text.word_level(language.texts(), context=config.context)
    start = time.perf_counter()
    corpus = language.corpus(
        tokenizer, config.rows, keys["corpus"], context=config.context, pool=config.pool
    )
    print(
        f"corpus: {corpus.tokens.size:,} tokens in {time.perf_counter() - start:.0f} s", flush=True
    )

    def fit(name: str, model: Model, loss: Any, steps: int, rate: train.OptimizerConfig) -> Model:
        """Trains a model, writes it in float16 and reads that back."""
        step = prepared(loss, rate, steps)
        state = train.create(model.params, train.optimizer(rate, steps), keys["train"])
        clock, cpu = time.perf_counter(), time.process_time()
        state = train.fit(
            state,
            step,
            corpus,
            steps,
            batch=config.batch,
            run=run,
            checkpoints=Path(config.checkpoints) / name if config.checkpoints else None,
            every=100,
            name=name,
        )
        seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
        tokens = steps * config.batch * config.context
        runs.log(run, name=name, seconds=seconds, cpu_seconds=cpu, tokens=tokens)
        speed = f"{tokens / seconds:,.0f} tokens/s, {tokens / cpu:,.0f} per second of CPU"
        print(f"{name}: {seconds:.0f} s ({cpu:.0f} s of CPU), {speed}", flush=True)
        save(model.replace(params=state.params, tokenizer=tokenizer), out / name)
        return io.load(out / name)

    untrained = initial(model_config(config, len(tokenizer)), keys["model"])
    ce = cross_entropy(untrained, config)
    teacher = fit("teacher", untrained, ce, config.teacher_steps, config.teacher)
    models = {"teacher": teacher}
    copied = every_second_layer(teacher)
    random = initial(copied.config, jax.random.fold_in(keys["model"], 1))
    kd, ce = distillation(copied, teacher, config), cross_entropy(copied, config)
    plan = (
        ("student", copied, kd),
        ("student-random-init", random, kd),
        ("from-scratch", random, ce),
    )
    for name, model, loss in plan:
        models[name] = fit(name, model, loss, config.student_steps, config.student)
    rows = measure(models, config.prompts, keys["prompts"])
    for row in rows:
        runs.log(run, **row)
    print(table(rows))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"\n{size / 1e6:.2f} MB in {out}, {time.perf_counter() - start:.0f} s in all")


@functools.cache
def prepared(loss: Any, rate: train.OptimizerConfig, steps: int) -> train.Step:
    """The update; one object for one loss, so that two students share a compilation."""
    return train.make_step(loss, train.optimizer(rate, steps))


def save(model: Model, directory: Path) -> None:
    """Writes a model in float16."""
    half = functools.partial(np.asarray, dtype=np.float16)
    io.save(model, directory, overwrite=True, store=half)


def model_config(config: Config, vocab: int) -> ModelConfig:
    """The teacher's."""
    return ModelConfig(
        family="gpt2",
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.heads,
        head_dim=config.width // config.heads,
        width=config.width,
        neurons=config.neurons,
        vocab=vocab,
        context=config.context,
    )


def initial(config: ModelConfig, key: jax.Array) -> Model:
    """A random model whose position embeddings start as sinusoids, and are learned from there.

    Induction heads look one position back, which is one linear map of sinusoids.
    """
    model = create(config, key=key)
    half = config.width // 2
    angles = np.arange(config.context)[:, None] * config.context ** (-np.arange(half) / half)[None]
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    # Root mean square 0.02, as that of the token embeddings they are added to.
    embed = model.params["embed"] | {"positions": jnp.asarray(0.02 * 2**0.5 * table, jnp.float32)}
    return model.replace(params=model.params | {"embed": embed})


def every_second_layer(model: Model) -> Model:
    """DistilGPT2's start: layers 0, 2, ... with the embeddings and the final norm."""
    params = dict(model.params) | {"blocks": jax.tree.map(lambda x: x[::2], model.params["blocks"])}
    layers = len(range(0, model.config.layers, 2))
    return create(dataclasses.replace(model.config, layers=layers), params)


def weights(batch: language.Corpus, answer_weight: float) -> jax.Array:
    """(row, position - 1) weight of every predicted token: 1 on answers, less on others."""
    return jnp.where(batch.answers[:, 1:], 1.0, 1.0 / answer_weight)


def cross_entropy(model: Model, config: Config) -> Callable[..., Any]:
    """The loss of a model without a teacher."""

    def loss(params: Any, batch: language.Corpus, key: Any) -> tuple[jax.Array, dict[str, Any]]:
        return _on_text(_logits(model, params, batch), batch, config.answer_weight)

    return loss


def distillation(model: Model, teacher: Model, config: Config) -> Callable[..., Any]:
    """Forward KL with temperature plus cross-entropy, both weighted alike."""

    def loss(params: Any, batch: language.Corpus, key: Any) -> tuple[jax.Array, dict[str, Any]]:
        student_logits = _logits(model, params, batch)
        teacher_logits = _logits(teacher, teacher.params, batch)
        ce, metrics = _on_text(student_logits, batch, config.answer_weight)
        mask = weights(batch, config.answer_weight)
        kl, _ = losses.forward_kl(
            student_logits, teacher_logits, mask, temperature=config.temperature
        )
        return kl + ce, metrics | {"kl": kl, "cross_entropy": ce}

    return loss


def _logits(model: Model, params: Any, batch: language.Corpus) -> jax.Array:
    # All positions go in and the last logits are dropped: 48 is a kinder size than 47.
    return model.apply(params, batch.tokens).logits[:, :-1]


def _on_text(
    logits: jax.Array, batch: language.Corpus, answer_weight: float
) -> tuple[jax.Array, dict[str, Any]]:
    labels = batch.tokens[:, 1:]
    value, _ = losses.cross_entropy(logits, labels, weights(batch, answer_weight))
    answers, _ = losses.cross_entropy(logits, labels, batch.answers[:, 1:])
    return value, {"answers": answers}


def measure(models: dict[str, Model], prompts: int, key: jax.Array) -> list[dict[str, Any]]:
    """Held-out accuracy of every model on every task; facts are not held out."""
    keys = jax.random.split(key, len(TASKS))
    rows: list[dict[str, Any]] = [
        {"name": name, "parameters": tree.count(model.params)} for name, model in models.items()
    ]
    for task, task_key in zip(TASKS, keys, strict=True):
        tokenizer = models["teacher"].tokenizer
        batch = language.evaluation(task, tokenizer, prompts, task_key)
        for row, model in zip(rows, models.values(), strict=True):
            out = model.apply(
                model.params,
                batch.tokens,
                attention_mask=batch.attention_mask,
                answer_position=batch.answer_position,
            )
            row[task] = round(float(tasks.accuracy(out.logits, batch).mean()), 4)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def _split(seed: int, count: int) -> list[jax.Array]:
    return list(jax.random.split(jax.random.key(seed), count))


if __name__ == "__main__":
    main()
