#!/usr/bin/env python
"""Is a pruned and recovered model better than one of its size trained from scratch?

    .venv/bin/python experiments/prune_and_recover.py            the built-in teacher
    .venv/bin/python experiments/prune_and_recover.py --quick    seconds

At each share of heads and neurons removed: the pruned model, the pruned model after distillation,
and a model of the same shape trained from random weights on as many tokens. Loss and accuracy on
prompts that nobody was trained on, measured latency, and how far each works as the teacher does.
Muralidharan et al. 2024, Minitron (arXiv 2407.14679), sections 3 and 4.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import config as configs
from jaxcompress import examples, finetune, io, measure, prune, runs, tasks
from jaxcompress.compress import PruneConfig, prune_gates
from jaxcompress.judge import Judge, held_out
from jaxcompress.models import Model, create
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("pruned", "pruned and recovered", "from scratch")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is pruned, and how it recovers.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`.
      shares: of heads and neurons that are removed.
      prune: how; its sparsity is set to each share in turn.
      recover: how the pruned model is distilled; the model from scratch has the same steps.
      scratch_rate: highest learning rate from scratch.
      unrelated: a model that shares only the tasks with it: alignment 0; "" for none.
      count: prompts of each task on which accuracy and alignment are measured.
      seeds: repeats with other prompts, batches and random weights.
      run: run folder.
    """

    model: str = "builtin:teacher"
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    prune: PruneConfig = dataclasses.field(default_factory=PruneConfig)
    recover: finetune.DistillConfig = dataclasses.field(default_factory=finetune.DistillConfig)
    scratch_rate: float = 3e-3
    unrelated: str = "builtin:from-scratch"
    count: int = 32
    seeds: int = 2
    run: str = "runs/prune_and_recover"


def run(config: Config, folder: runs.Run) -> list[dict[str, Any]]:
    """One row for each share, way and seed; share 0 is the whole model."""
    whole, rows = io.load(config.model), []
    for seed in range(config.seeds):
        data = dataclasses.replace(config.recover.data, seed=seed)
        prompts = [
            tasks.get(name, whole.tokenizer, config.count, jax.random.key(1000 + seed))
            for name in data.tasks
        ]
        unrelated = {"other": io.load(config.unrelated)} if config.unrelated else None
        judge = functools.partial(
            judged, Judge(whole, {"accuracy": prompts}, "accuracy", unrelated), data
        )
        about = {"share": 0.0, "way": "whole", "seed": seed}
        first = runs.remember(folder, about, judge, whole)
        rows += [first | {"way": way} for way in WAYS[:2]]  # nothing of it is from scratch
        for share in config.shares:
            small = pruned(whole, share, seed, config)
            for way in WAYS:
                about = {"share": share, "way": way, "seed": seed}
                made = way, whole, small, config, data
                rows.append(runs.remember(folder, about, compressed, judge, *made))
    return rows


def pruned(whole: Model, share: float, seed: int, config: Config) -> Model:
    """The model without a share of its heads and neurons."""
    looked = dataclasses.replace(config.prune.data, seed=seed)
    how = dataclasses.replace(config.prune, sparsity=share, data=looked)
    return prune.shrink(whole, prune_gates(whole, how, progress=False))


def compressed(
    judge: Any, way: str, whole: Model, small: Model, config: Config, data: examples.Data
) -> dict[str, float]:
    """What is found of the pruned model, of the recovered one, or of one of its shape."""
    if way == WAYS[0]:
        return judge(small)
    how = dataclasses.replace(config.recover, data=data, seed=data.seed)
    if way == WAYS[2]:
        rate = dataclasses.replace(how.optimizer, rate=config.scratch_rate)
        how = dataclasses.replace(how, loss="cross_entropy", optimizer=rate)
        small = create(small.config, key=jax.random.key(data.seed), tokenizer=whole.tokenizer)
    return judge(finetune.distilled(whole, small, how))


def judged(judge: Judge, data: examples.Data, model: Model) -> dict[str, float]:
    """Loss, accuracy, alignment, size and latency of a model."""
    spent = measure.cost(model, batch=16, length=min(32, model.config.context))
    found = judge(model) | {"loss": held_out(model, data)["loss"]}
    ms = 1e3 * spent.latency_seconds
    return found | {"parameters": prune.parameters(model.config), "milliseconds": ms}


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "prune_and_recover" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True, resume=True)
    rows = run(config, folder)
    measures = ("parameters", "loss", "accuracy", "milliseconds", "alignment")
    cells = []
    for share, way in dict.fromkeys((row["share"], row["way"]) for row in rows):
        of = [row for row in rows if (row["share"], row["way"]) == (share, way)]
        means = [np.mean([row[name] for row in of]) for name in measures]
        cells.append((f"{share:.0%}", way, f"{means[0]:,.0f}", *(f"{m:.3g}" for m in means[1:])))
    columns = ("removed", "way", "parameters", "loss (nats)", "accuracy", "ms", "alignment")
    labels = {"loss": "held-out loss (nats)", "alignment": "alignment with the whole model"}
    caption = f"Mean over {config.seeds} seeds, with the range as a band."
    figures = {
        y: (
            curves(
                rows, x="share", y=y, by="way", control="from scratch",
                xlabel="share of heads and neurons removed", ylabel=label,
            ),
            f"{label} against the share removed",
            caption,
        )
        for y, label in labels.items()
    }  # fmt: skip
    title = f"{config.model}, pruned, recovered, and trained from scratch"
    tables, asked = {"Means": Section(columns, tuple(cells))}, configs.to_dict(config)
    print(publish(folder.directory, title, figures=figures, tables=tables, config=asked))


if __name__ == "__main__":
    main()
