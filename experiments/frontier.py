#!/usr/bin/env python
"""Is the smaller model easier or harder to explain? Cost against circuits, over many models.

    .venv/bin/python experiments/frontier.py            the built-in teacher and its descendants
    .venv/bin/python experiments/frontier.py --quick    seconds

For every model: accuracy, cost (energy where the device can be read), the size of its circuits at
one faithfulness, the heads that serve several tasks, and alignment.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import config as configs
from jaxcompress import finetune, io, lora, measure, prune, runs, tasks
from jaxcompress.compress import PruneConfig, prune_gates
from jaxcompress.judge import Judge
from jaxcompress.mechanism import explained
from jaxcompress.models import Model
from jaxcompress.report.numbers import count, number, percent, quantity
from jaxcompress.report.page import publish
from jaxcompress.report.scatter import scatter
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = {
    "accuracy": ("accuracy", number),
    "parameters": ("parameters", lambda value: quantity(value, "")),
    "flops": ("FLOPs per token", lambda value: quantity(value, "")),
    "milliseconds": ("ms", number),
    "millijoules": ("mJ per token", number),
    "tasks": ("tasks", count),
    "edges": ("edges of a circuit", number),
    "edge_share": ("share of all edges", lambda share: percent(100 * share)),
    "heads": ("heads in circuits", count),
    "shared": ("shared heads", count),
    "alignment": ("alignment", number),
    "brittleness": ("brittleness", percent),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which models, and how they are looked at.

    Attributes:
      teacher: Hugging Face id, directory or `builtin:<name>`.
      students: others of its vocabulary; the last shares only the tasks with it: alignment 0.
      tasks: whose circuits are found.
      shares: of heads and neurons that are pruned from the teacher.
      prune: how; its sparsity is set to each share.
      recover: how a pruned model is trained again by its teacher.
      adapt: how instead by an adapter on the right answers.
      faithfulness: that a circuit must reach.
      count: prompts of each task.
      seed: of the prompts.
      run: run folder.
    """

    teacher: str = "builtin:teacher"
    students: tuple[str, ...] = ("builtin:student", "builtin:from-scratch")
    tasks: tuple[str, ...] = ("numerals", "months", "ioi", "greater_than", "induction")
    shares: tuple[float, ...] = (0.25, 0.5)
    prune: PruneConfig = dataclasses.field(default_factory=PruneConfig)
    recover: finetune.DistillConfig = dataclasses.field(default_factory=finetune.DistillConfig)
    adapt: finetune.LoraConfig = dataclasses.field(default_factory=finetune.LoraConfig)
    faithfulness: float = 0.8
    count: int = 32
    seed: int = 0
    run: str = "runs/frontier"


def models(config: Config) -> Iterator[tuple[str, str, Callable[[], Model]]]:
    """Name, way it is made, and what makes it."""
    yield config.teacher, "teacher", functools.partial(io.load, config.teacher)
    for name in config.students:
        way = "from scratch" if "from-scratch" in name else "distilled"
        yield name, way, functools.partial(io.load, name)
    for share, way in itertools.product(config.shares, ("pruned", "recovered", "by LoRA")):
        yield f"{way} {share:.0%}", way, functools.partial(pruned, config, share, way)


def pruned(config: Config, share: float, way: str) -> Model:
    """The teacher without a share of its heads and neurons, trained again or not."""
    teacher, how = io.load(config.teacher), dataclasses.replace(config.prune, sparsity=share)
    small = prune.shrink(teacher, prune_gates(teacher, how, progress=False))
    if way == "by LoRA":
        adapter = finetune.adapted(small, config.adapt)
        return small.replace(params=lora.merge(small.params, adapter))
    return finetune.distilled(teacher, small, config.recover) if way == "recovered" else small


def run(config: Config, folder: runs.Run) -> list[dict[str, Any]]:
    """One row for each model."""
    teacher, key = io.load(config.teacher), jax.random.key(1000 + config.seed)
    prompts = [tasks.get(name, teacher.tokenizer, config.count, key) for name in config.tasks]
    unrelated = {"other": io.load(config.students[-1])} if config.students else None
    judge = Judge(teacher, {"accuracy": prompts}, "accuracy", unrelated)
    alike = tasks.alike(prompts, teacher.config.context)
    judged = functools.partial(everything, judge, alike, config.faithfulness)
    named = [({"model": name, "way": way}, make) for name, way, make in models(config)]
    return [runs.remember(folder, name, judged, make) for name, make in named]


def everything(judge: Judge, prompts: Any, target: float, make: Any) -> dict[str, float]:
    """Size, cost, circuits, accuracy and alignment of a model."""
    model = make()
    spent = measure.cost(model, batch=16, length=min(32, model.config.context))
    flops, joules = prune.flops_per_token(model.config, length=32), spent.joules_per_token
    size = {"parameters": prune.parameters(model.config), "flops": flops}
    size |= {"milliseconds": 1e3 * spent.latency_seconds, "millijoules": 1e3 * (joules or np.nan)}
    return size | explained(model, prompts, target) | judge(model)


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "frontier" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, config.seed, overwrite=True, resume=True)
    rows = run(config, folder)
    cells = [(row["model"], *(form(row[k]) for k, (_, form) in COLUMNS.items())) for row in rows]
    found = Section(("model", *(name for name, _ in COLUMNS.values())), tuple(cells))
    shown = {key: COLUMNS[key][0] for key in ("accuracy", "edges", "shared", "alignment")}
    png = scatter(rows, x="parameters", by="way", label="model", measures=shown)
    title = f"Cost and explanation of {config.teacher} and its descendants"
    what = (
        f"Circuits by EAP-IG at {config.faithfulness:.0%} faithfulness, mean over the tasks that a "
        "model can do. Shared heads are in the circuits of two tasks or more."
    )
    figures, asked = {"frontier": (png, "Measures by parameters", what)}, configs.to_dict(config)
    print(publish(folder.directory, title, figures=figures, tables={"Models": found}, config=asked))


if __name__ == "__main__":
    main()
