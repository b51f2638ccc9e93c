#!/usr/bin/env python
"""Are distilled models brittle? With the controls that the claim was made without.

    .venv/bin/python experiments/brittleness.py            four ways, some minutes
    .venv/bin/python experiments/brittleness.py --quick    seconds

Haskins and Adams 2026 (arXiv 2505.10822v2) compare students with teachers of twice their size. Here
all students are of one size: with the teacher's probabilities or the answers alone, from every
second layer of the teacher or from random weights, at several lengths of training, so that they
can be compared at equal accuracy.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check, finetune, io, runs, tasks
from jaxcompress import config as configs
from jaxcompress.judge import Judge
from jaxcompress.models import Model, create
from jaxcompress.report.dots import dots, interval
from jaxcompress.report.page import publish
from jaxcompress.report.scatter import scatter
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
STARTS = ("teacher's layers", "random weights")
SIGNALS = {"distilled": "forward_kl", "answers only": "cross_entropy"}
MEASURES = {
    "accuracy": "accuracy, as trained",
    "shifted": "accuracy, shifted prompts",
    "brittleness": "mean drop of an ablation (%)",
    "worst": "drop of the worst 5 % (%)",
    "alignment": "alignment with the teacher",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Who is trained, how long, and when two students are as good.

    Attributes:
      teacher: Hugging Face id, directory or `builtin:<name>`.
      unrelated: a model that shares only the tasks: alignment 0.
      distill: how; loss and steps are set.
      steps: updates; every student is trained anew for each of them, with its own schedule.
      enough: accuracy; students are compared at the shortest training that reaches it.
      count: prompts of each task and shift that are measured on.
      seeds: repeats with other weights and prompts.
      run: run folder.
    """

    teacher: str = "builtin:teacher"
    unrelated: str = "builtin:from-scratch"
    distill: finetune.DistillConfig = dataclasses.field(default_factory=finetune.DistillConfig)
    steps: tuple[int, ...] = (60, 200, 600)
    enough: float = 0.9
    count: int = 32
    seeds: int = 3
    run: str = "runs/brittleness"


def run(config: Config, folder: runs.Run) -> list[dict[str, Any]]:
    """One row for each way, length of training and seed; those of the teacher first."""
    teacher, rows = io.load(config.teacher), []
    layers, unrelated = finetune.every_other_layer(teacher), {"other": io.load(config.unrelated)}
    for seed in range(config.seeds):
        data = dataclasses.replace(config.distill.data, seed=seed)
        judge = Judge(teacher, drawn(teacher, data.tasks, config, seed), "accuracy", unrelated)
        about = {"way": "teacher", "steps": 0, "seed": seed}
        rows.append(runs.remember(folder, about, judge, teacher))
        fresh = create(layers.config, key=jax.random.key(seed), tokenizer=teacher.tokenizer)
        starts = dict(zip(STARTS, (layers, fresh), strict=True))
        for start, signal, steps in itertools.product(STARTS, SIGNALS, config.steps):
            how = dataclasses.replace(
                config.distill, loss=SIGNALS[signal], steps=steps, seed=seed, data=data
            )
            about = {"way": f"{signal}, {start}", "steps": steps, "seed": seed}
            rows.append(runs.remember(folder, about, student, judge, teacher, starts[start], how))
    return rows


def student(judge: Judge, teacher: Model, *how: Any) -> dict[str, float]:
    """What is found of a student that was trained so."""
    return judge(finetune.distilled(teacher, *how))


def drawn(
    teacher: Model, names: Sequence[str], config: Config, seed: int
) -> dict[str, list[tasks.Prompts]]:
    """Prompts of another key than those trained on, as asked in training and in other ways."""
    settings = (teacher.tokenizer, config.count, jax.random.key(1000 + seed))
    context = teacher.config.context
    shifted = [
        prompts
        for name in names
        for prompts in tasks.shifted(name, *settings, context=context)[0].values()
    ]
    if not shifted:
        raise check.fail("distill.data.tasks", "tasks that can be asked in other ways", names)
    plain = [tasks.get(name, *settings, context=context) for name in names]
    return {"accuracy": plain, "shifted": shifted}


def equals(rows: Sequence[dict[str, Any]], enough: float) -> list[dict[str, Any]]:
    """Of every way and seed the shortest training that is accurate enough; the teacher stays."""
    first: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["steps"]):
        if row["accuracy"] >= enough:
            first.setdefault((row["way"], row["seed"]), row)
    return sorted(first.values(), key=lambda row: (row["way"] != "teacher", row["way"]))


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "brittleness" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True, resume=True)
    rows = run(config, folder)
    alike, cells = equals(rows, config.enough), []
    for way in dict.fromkeys(row["way"] for row in rows):
        of = [row for row in alike if row["way"] == way]
        values = [np.array([row[key] for row in of]) for key in ("steps", *MEASURES)]
        means = [f"{v.mean():.3g} ± {interval(v):.3g}" if len(v) else "n/a" for v in values]
        cells.append((way, str(len(of)), *means))
    columns = ("trained", "seeds", "updates", *MEASURES.values())
    at = f"The shortest training with an accuracy of {config.enough:g}"
    measures = {key: MEASURES[key] for key in ("shifted", "brittleness", "worst", "alignment")}
    every = scatter(rows, x="accuracy", measures=measures, by="way", xlabel=MEASURES["accuracy"])
    told = publish(
        folder.directory,
        "Are distilled models brittle?",
        figures={
            "equal": (dots(alike, by="way", measures=MEASURES), at, f"{at}, 95 % interval."),
            "all": (every, "Every student", "One mark for each way, length and seed."),
        },
        tables={f"{at}: mean and half its 95 % interval": Section(columns, tuple(cells))},
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
