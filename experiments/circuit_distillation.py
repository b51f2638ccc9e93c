#!/usr/bin/env python
"""Does a student that is told to keep the circuit keep it, and is it less brittle for that?

    .venv/bin/python experiments/circuit_distillation.py            five ways, five seeds
    .venv/bin/python experiments/circuit_distillation.py --quick    seconds

Students start from every second layer of the teacher and see the same prompts in the same order. To
plain distillation is added: nothing, hidden states, CKA of matched heads (Wadhwa et al. 2025, arXiv
2509.25002), of heads matched at random, of all heads, or gradients at the gates of matched heads
(ours). Heads are matched on the plainly distilled student, by what removals do to the logits.
"""

from __future__ import annotations

import dataclasses
import functools
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
WAYS = ("plain", "hidden states", "circuit CKA", "random CKA", "all CKA", "gate gradients")
MEASURES = {
    "accuracy": "accuracy, trained tasks",
    "unseen": "accuracy, tasks not trained",
    "longer": "accuracy, longer induction",
    "alignment": "alignment with the teacher",
    "brittleness": "mean drop of an ablation (%)",
}
HITS = {"hits": "Heads matched with their origin", "hits_effect": "By size of effect, as published"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Who learns what, and what is added.

    Attributes:
      teacher: Hugging Face id, directory or `builtin:<name>`.
      unrelated: a model that shares only the tasks: alignment 0.
      distill: how; the same for all ways.
      ways: what is added, see above.
      weight: of what is added to the distillation loss; of CKA, shared by its pairs.
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
        plain = functools.cache(functools.partial(finetune.distilled, teacher, start, how))
        for way in config.ways:
            made = judge, check.known("ways", way, WAYS), plain, (teacher, start, how), config
            rows.append(runs.remember(folder, {"way": way, "seed": seed}, student, *made))
    return rows


def student(judge: Judge, way: str, plain: Any, how: Any, config: Config) -> dict[str, float]:
    """What is found of a student trained so; of the plain one also how well heads are matched."""
    if way == "plain":
        return judge(plain()) | judge.hits(plain(), how[0], config.circuit)
    return judge(finetune.distilled(*how, extra=added(way, judge, plain, how, config)))


def drawn(teacher: Model, config: Config, seed: int) -> dict[str, list[tasks.Prompts]]:
    """Prompts that nobody trains on: of the trained tasks, of others, and longer ones."""

    def draw(names: Sequence[str], **options: Any) -> list[tasks.Prompts]:
        key = jax.random.key(1000 + seed)
        return [tasks.get(n, teacher.tokenizer, config.count, key, **options) for n in names]

    sets = {"accuracy": draw(config.distill.data.tasks), "unseen": draw(config.unseen)}
    return sets | {"longer": draw(["induction"], length=config.length)}


def added(way: str, judge: Judge, plain: Any, how: Any, config: Config) -> Any:
    """What a way adds to the loss."""
    teacher, start, settings = how
    weight, metric = config.weight, tasks.logit_difference
    if way == "hidden states":
        layers = mapping.uniform(start.config.layers, teacher.config.layers)
        return mechanisms.hidden_states(teacher, start, layers, weight=weight)
    pairs = judge.matched(plain(), 1.0 if way == "all CKA" else config.circuit)
    if way == "gate gradients":
        return mechanisms.gate_gradients(teacher, start, pairs, metric, weight=weight)
    if way == "random CKA":
        places = list(np.ndindex(teacher.config.layers, teacher.config.heads))
        others = np.random.default_rng(settings.seed).permutation(places).tolist()
        pairs = [(ours, (a, b)) for (ours, _), (a, b) in zip(pairs, others, strict=False)]
    return mechanisms.circuit_cka(teacher, start, pairs, weight=weight / len(pairs))


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "circuit_distillation" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True, resume=True)
    rows = run(config, folder)
    cells: Any = ()
    for way in config.ways:
        values = [np.array([row[key] for row in rows if row["way"] == way]) for key in MEASURES]
        cells += ((way, *(f"{v.mean():.3g} ± {interval(v):.2g}" for v in values)),)
    plain = [row for row in rows if row["way"] == "plain"]
    said = [f"{how}: {np.mean([row[key] for row in plain]):.0%}." for key, how in HITS.items()]
    png = dots(rows, by="way", measures=MEASURES, control="plain")
    caption = f"{config.seeds} seeds; mean and 95 % interval; dashed: plain distillation."
    told = publish(
        folder.directory, "Distillation that is told to keep the circuit", summary=said,
        figures={"ways": (png, "What is measured, by what is added", caption)},
        tables={"Mean, half its 95 % interval": Section(("added", *MEASURES.values()), cells)},
        config=configs.to_dict(config),
    )  # fmt: skip
    print(*said, told, sep="\n")


if __name__ == "__main__":
    main()
