#!/usr/bin/env python
"""Which loss makes the best student of the same teacher, at equal tokens?

    .venv/bin/python experiments/distill_student.py            the built-in teacher
    .venv/bin/python experiments/distill_student.py --quick    seconds

Students of one shape start from the same random weights and see the same prompts in the same order;
only the loss differs. Cross-entropy, without a teacher, is the control. Held-out loss and accuracy,
divergence from the teacher, and how far the student works as the teacher does. Losses: Hinton et
al. 2015 (arXiv 1503.02531), Gu et al. 2024 (arXiv 2306.08543), Agarwal et al. 2024 (arXiv
2306.13649), Wen et al. 2023 (arXiv 2307.15190).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import config as configs
from jaxcompress import finetune, io, runs, tasks
from jaxcompress.distill import losses
from jaxcompress.judge import Judge, held_out
from jaxcompress.models import Model, create
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
MEASURES = ("loss", "accuracy", "kl", "alignment")


@dataclasses.dataclass(frozen=True)
class Config:
    """Who learns what from whom.

    Attributes:
      teacher: Hugging Face id, directory or `builtin:<name>`.
      layers: of the student, which is otherwise of the teacher's shape.
      losses: names that `jaxcompress distill` knows.
      steps: updates; every student is trained anew for each of them, with its own schedule.
      distill: how; its loss and steps are set to each in turn.
      unrelated: a model that shares only the tasks with the teacher: alignment 0; "" for none.
      count: prompts of each task on which accuracy and alignment are measured.
      seeds: repeats with other weights and prompts.
      run: run folder.
    """

    teacher: str = "builtin:teacher"
    layers: int = 2
    losses: tuple[str, ...] = ("forward_kl", "reverse_kl", "jsd", "cross_entropy")
    steps: tuple[int, ...] = (100, 400)
    distill: finetune.DistillConfig = dataclasses.field(default_factory=finetune.DistillConfig)
    unrelated: str = "builtin:from-scratch"
    count: int = 32
    seeds: int = 2
    run: str = "runs/distill_student"


def run(config: Config, folder: runs.Run) -> list[dict[str, Any]]:
    """One row for each loss, number of steps and seed."""
    teacher, rows = io.load(config.teacher), []
    shape = dataclasses.replace(teacher.config, layers=config.layers)
    unrelated = {"other": io.load(config.unrelated)} if config.unrelated else None
    for seed in range(config.seeds):
        data = dataclasses.replace(config.distill.data, seed=seed)
        key = jax.random.key(1000 + seed)
        prompts = [tasks.get(name, teacher.tokenizer, config.count, key) for name in data.tasks]
        prompts = tasks.alike(prompts, teacher.config.context)
        judge = Judge(teacher, {"accuracy": prompts}, "accuracy", unrelated)
        fresh = create(shape, key=jax.random.key(seed), tokenizer=teacher.tokenizer)
        for steps, loss in itertools.product(config.steps, config.losses):
            how = dataclasses.replace(config.distill, loss=loss, steps=steps, seed=seed, data=data)
            about = {"loss_name": loss, "steps": steps, "seed": seed}
            rows.append(runs.remember(folder, about, student, judge, teacher, fresh, how, prompts))
    return rows


def student(
    judge: Judge, teacher: Model, start: Model, how: finetune.DistillConfig,
    prompts: Sequence[tasks.Prompts],
) -> dict[str, float]:  # fmt: skip
    """Held-out loss, accuracy, alignment and divergence of a student that was trained so."""
    done = finetune.distilled(teacher, start, how)
    loss = {"loss": held_out(done, how.data)["loss"]}
    return loss | judge(done) | {"kl": divergence(teacher, done, prompts)}


def divergence(teacher: Model, student: Model, prompts: Sequence[tasks.Prompts]) -> float:
    """Nats between teacher and student at the answer, mean over tasks."""
    found = []
    for one in prompts:
        said, wanted = (
            model.apply(
                model.params, one.tokens, attention_mask=one.attention_mask,
                answer_position=one.answer_position,
            ).logits
            for model in (student, teacher)
        )  # fmt: skip
        found.append(float(losses.forward_kl(said, wanted)[0]))
    return float(np.mean(found))


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "distill_student" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True, resume=True)
    rows = run(config, folder)
    cells = []
    for steps, name in itertools.product(config.steps, config.losses):
        of = [row for row in rows if (row["loss_name"], row["steps"]) == (name, steps)]
        values = [[row[m] for row in of] for m in MEASURES]
        cells.append(
            (
                f"{steps}",
                name,
                *(f"{np.mean(v):.3g} ({min(v):.3g} to {max(v):.3g})" for v in values),
            )
        )
    columns = ("updates", "loss", "held-out loss (nats)", "accuracy", "KL to teacher", "alignment")
    labels = ("held-out loss (nats)", "accuracy", "KL to teacher (nats)", "alignment")
    caption = f"Mean over {config.seeds} seeds, with the range as a band."
    figures = {
        measure: (
            curves(
                rows, x="steps", y=measure, by="loss_name", control="cross_entropy",
                xlabel="updates", ylabel=label,
            ),
            f"{label} by loss",
            caption,
        )
        for measure, label in zip(MEASURES, labels, strict=True)
    }  # fmt: skip
    told = publish(
        folder.directory,
        f"Students of {config.teacher}, by loss, at equal tokens",
        figures=figures,
        tables={"Means over seeds, with the range": Section(columns, tuple(cells))},
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
