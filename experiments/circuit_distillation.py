#!/usr/bin/env python
"""Does a student that is told to keep the circuit keep it, and is it less brittle for that?

    .venv/bin/python experiments/circuit_distillation.py            five ways, five seeds
    .venv/bin/python experiments/circuit_distillation.py --quick    seconds

Students start from every second layer of the teacher and see the same prompts in the same order. To
plain distillation is added: nothing, hidden states, CKA of matched heads (Wadhwa et al. 2025, arXiv
2509.25002), CKA of heads matched at random, or gradients at the gates of matched heads (ours).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check, finetune, io, runs, tasks
from jaxcompress import config as configs
from jaxcompress.distill import mapping, mechanisms
from jaxcompress.judge import Judge
from jaxcompress.models import Model
from jaxcompress.report.dots import dots, interval
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("plain", "hidden states", "circuit CKA", "random CKA", "gate gradients")
MEASURES = {
    "accuracy": "accuracy, trained tasks",
    "unseen": "accuracy, tasks not trained",
    "longer": "accuracy, longer induction",
    "alignment": "alignment with the teacher",
    "brittleness": "mean drop of an ablation (%)",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Who learns what, and what is added.

    Attributes:
      teacher: Hugging Face id, directory or `builtin:<name>`.
      unrelated: a model that shares only the tasks: alignment 0.
      distill: how; the same for all ways.
      ways: what is added, see above.
      weight: of what is added to the distillation loss.
      circuit: share of the student's heads that is matched, those that matter most.
      unseen: tasks that are not trained.
      length: of the longer induction sequences.
      count: prompts of each task that are measured on.
      seeds: repeats.
      run: run folder.
    """

    teacher: str = "builtin:teacher"
    unrelated: str = "builtin:from-scratch"
    distill: finetune.DistillConfig = dataclasses.field(default_factory=finetune.DistillConfig)
    ways: tuple[str, ...] = WAYS
    weight: float = 1.0
    circuit: float = 0.5
    unseen: tuple[str, ...] = ("number_words",)
    length: int = 16
    count: int = 48
    seeds: int = 5
    run: str = "runs/circuit_distillation"


def run(config: Config, folder: runs.Run) -> list[dict[str, Any]]:
    """One row for each way and seed."""
    teacher, rows = io.load(config.teacher), []
    start, unrelated = finetune.every_other_layer(teacher), {"other": io.load(config.unrelated)}
    for seed in range(config.seeds):
        data = dataclasses.replace(config.distill.data, seed=seed)
        how = dataclasses.replace(config.distill, seed=seed, data=data)
        judge = Judge(teacher, drawn(teacher, config, seed), "accuracy", unrelated)
        more = extras(teacher, start, config, judge, seed)
        for way in config.ways:
            extra = more[check.known("ways", way, more)]
            about = {"way": way, "seed": seed}
            rows.append(runs.remember(folder, about, student, judge, teacher, start, how, extra))
    return rows


def student(judge: Judge, teacher: Model, start: Model, how: Any, extra: Any) -> dict[str, float]:
    """What is found of a student that was trained so."""
    return judge(finetune.distilled(teacher, start, how, extra=extra))


def drawn(teacher: Model, config: Config, seed: int) -> dict[str, list[tasks.Prompts]]:
    """Prompts that nobody trains on: of the trained tasks, of others, and longer ones."""

    def draw(names: Sequence[str], **options: Any) -> list[tasks.Prompts]:
        key = jax.random.key(1000 + seed)
        return [tasks.get(n, teacher.tokenizer, config.count, key, **options) for n in names]

    known, longer = draw(config.distill.data.tasks), draw(["induction"], length=config.length)
    return {"accuracy": known, "unseen": draw(config.unseen), "longer": longer}


def extras(teacher: Model, start: Model, config: Config, judge: Any, seed: int) -> dict[str, Any]:
    """What each way adds to the loss; heads are matched by what their removal costs."""
    ours, theirs = (judge.effects(model) for model in (start, teacher))
    size = np.abs(ours).sum(axis=-1)
    keep = size >= np.quantile(size, 1 - config.circuit)
    pairs = mechanisms.match_by_effect(ours, theirs, keep)
    rng = np.random.default_rng(seed)
    places = np.argwhere(np.ones(theirs.shape[:2]))
    others = rng.permutation(places)[: len(pairs)].tolist()
    random = [(head, (a, b)) for (head, _), (a, b) in zip(pairs, others, strict=True)]
    metric, weight = tasks.logit_difference, config.weight
    layers = mapping.strided(start.config.layers, teacher.config.layers)
    each = weight / len(pairs)
    return {
        "plain": None,
        "hidden states": mechanisms.hidden_states(teacher, start, layers, weight=weight),
        "circuit CKA": mechanisms.circuit_cka(teacher, start, pairs, weight=each),
        "random CKA": mechanisms.circuit_cka(teacher, start, random, weight=each),
        "gate gradients": mechanisms.gate_gradients(teacher, start, pairs, metric, weight=weight),
    }


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "circuit_distillation" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True, resume=True)
    rows = run(config, folder)
    cells = []
    for way in config.ways:
        values = [np.array([row[key] for row in rows if row["way"] == way]) for key in MEASURES]
        cells.append((way, *(f"{v.mean():.3g} ± {interval(v):.2g}" for v in values)))
    found = Section(("added", *MEASURES.values()), tuple(cells))
    png = dots(rows, by="way", measures=MEASURES, control="plain")
    caption = f"{config.seeds} seeds; mean and 95 % interval; dashed: plain distillation."
    told = publish(
        folder.directory,
        "Distillation that is told to keep the circuit",
        figures={"ways": (png, "What is measured, by what is added", caption)},
        tables={"Mean over seeds and half its 95 % interval": found},
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
