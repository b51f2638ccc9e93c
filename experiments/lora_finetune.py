#!/usr/bin/env python
"""How little of a model must be trained to teach it a new skill, and with which adapter?

    .venv/bin/python experiments/lora_finetune.py            the built-in model without induction
    .venv/bin/python experiments/lora_finetune.py --quick    seconds

The model from scratch fails at induction. Adapters of several kinds and ranks learn it from the
same prompts in the same number of updates; training every parameter is the control. What each
trains, what its optimizer holds in memory, and what the model forgets of its other tasks. Hu et al.
2021 (arXiv 2106.09685), section 4 and table 6.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import config as configs
from jaxcompress import examples, finetune, io, lora, runs, train, tree
from jaxcompress.judge import held_out
from jaxcompress.models import Model
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
EVERYTHING = "all parameters"


@dataclasses.dataclass(frozen=True)
class Config:
    """Who learns what, and how.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`.
      variants: lora, rslora, dora, pissa, or lora+ with B sixteen times as fast as A.
      ranks: of every matrix.
      lora: how; its variant and rank are set to each in turn, alpha to twice the rank.
      full_rate: highest learning rate where every parameter is trained.
      others: tasks that the model should not forget.
      seeds: repeats with other prompts and starts.
      run: run folder.
    """

    model: str = "builtin:from-scratch"
    variants: tuple[str, ...] = ("lora", "rslora", "dora", "pissa", "lora+")
    ranks: tuple[int, ...] = (1, 4)
    lora: finetune.LoraConfig = dataclasses.field(default_factory=finetune.LoraConfig)
    full_rate: float = 1e-3
    others: tuple[str, ...] = ("months", "ioi")
    seeds: int = 2
    run: str = "runs/lora_finetune"


def run(config: Config, folder: runs.Run) -> list[dict[str, Any]]:
    """One row for each way of training, rank and seed; rank 0 is the model as it was."""
    model, rows = io.load(config.model), []
    for seed in range(config.seeds):
        data = dataclasses.replace(config.lora.data, seed=seed)
        ways = [*config.variants, EVERYTHING]
        about = {"way": "before", "rank": 0, "seed": seed, "trained": 0, "state": 0}
        start = runs.remember(folder, about, judged, model, data, config.others)
        rows += [start | {"way": way} for way in ways]
        for rank, variant in itertools.product(config.ranks, config.variants):
            how = dataclasses.replace(
                config.lora, variant=variant.removesuffix("+"), rank=rank, alpha=2.0 * rank,
                ratio=16.0 if variant == "lora+" else 1.0, seed=seed, data=data,
            )  # fmt: skip
            about = {"way": variant, "rank": rank, "seed": seed}
            rows.append(runs.remember(folder, about, adapted, model, how, config))
        about = {"way": EVERYTHING, "rank": config.ranks[0], "seed": seed}
        whole = runs.remember(folder, about, everything, model, config, data, seed)
        rows += [whole | {"rank": rank} for rank in config.ranks]
    return rows


def adapted(model: Model, how: finetune.LoraConfig, config: Config) -> dict[str, float]:
    """What is found of the model with an adapter, and what was trained."""
    adapter = finetune.adapted(model, how)
    done = model.replace(params=lora.merge(model.params, adapter))
    return held(lora.trainable(adapter), how) | judged(done, how.data, config.others)


def everything(model: Model, config: Config, data: examples.Data, seed: int) -> dict[str, float]:
    """What is found of the model with every parameter trained in as many updates."""
    optimizer = dataclasses.replace(config.lora.optimizer, rate=config.full_rate)
    how = finetune.DistillConfig(
        loss="cross_entropy", steps=config.lora.steps, batch=config.lora.batch, seed=seed,
        optimizer=optimizer, data=data,
    )  # fmt: skip
    done = finetune.distilled(model, model, how)
    return held(model.params, how) | judged(done, data, config.others)


def held(trained: Any, how: finetune.DistillConfig | finetune.LoraConfig) -> dict[str, int]:
    """How many numbers are trained, and the bytes of the optimizer's state that they need."""
    state = jax.eval_shape(train.optimizer(how.optimizer, how.steps).init, trained)
    return {"trained": tree.count(trained), "state": tree.nbytes(state)}


def judged(model: Model, data: examples.Data, others: tuple[str, ...]) -> dict[str, float]:
    """Held-out accuracy and loss on what is learned, and accuracy on the other tasks."""
    kept = held_out(model, dataclasses.replace(data, tasks=others))["accuracy"]
    return held_out(model, data) | {"others": kept}


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "lora_finetune" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True, resume=True)
    rows = run(config, folder)
    cells = []
    for way, rank in dict.fromkeys((row["way"], row["rank"]) for row in rows):
        of = [row for row in rows if (row["way"], row["rank"]) == (way, rank)]
        loss, right, kept = (np.mean([r[k] for r in of]) for k in ("loss", "accuracy", "others"))
        size, state = of[0]["trained"], f"{of[0]['state'] / 1e3:,.1f}"
        cells.append(
            (way, f"{rank}", f"{size:,}", state, f"{loss:.3g}", f"{right:.2f}", f"{kept:.2f}")
        )
    columns = ("trained", "rank", "parameters", "Adam (kB)", "loss (nats)", "accuracy", "others")
    labels = {"accuracy": "held-out accuracy", "others": "accuracy on other tasks"}
    caption = f"Mean over {config.seeds} seeds, with the range as a band."
    figures = {
        y: (
            curves(
                rows, x="rank", y=y, by="way", control=EVERYTHING, xlabel="rank (0: before)",
                ylabel=label,
            ),
            f"{label} by adapter and rank",
            caption,
        )
        for y, label in labels.items()
    }  # fmt: skip
    told = publish(
        folder.directory,
        f"Teaching {config.model} {', '.join(config.lora.data.tasks)}",
        figures=figures,
        tables={"Means": Section(columns, tuple(cells))},
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
