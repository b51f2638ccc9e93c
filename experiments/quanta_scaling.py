#!/usr/bin/env python
"""Do power laws of the loss come from skills that are learned one by one, the frequent ones first?

    .venv/bin/python experiments/quanta_scaling.py            minutes on 2 CPU cores
    .venv/bin/python experiments/quanta_scaling.py --quick    seconds

Many sparse-parity tasks with Zipf frequencies, one hidden layer. Widths (by masking), seeds and
exponents are one vmapped program, amounts of data another, and curves over steps a third, with
tasks of its own: as a run of few tasks ends, its loss falls faster than any power law, so that the
exponent in steps wants many more tasks than are learned. The exponents are set against the
quantization model. Michaud et al. 2023, section 3.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxcompress import config as configs
from jaxcompress import runs
from jaxcompress.report.page import publish
from jaxcompress.report.scaling import emergence, exponents, scaling
from jaxcompress.train.population import folder
from jaxcompress.train.quanta import Mixture, train_quanta

ROOT = Path(__file__).resolve().parents[1]
RECORDED = {  # of 500 tasks, for alpha 0.2, 0.4 and 0.8
    "parameters": {0.2: 0.282, 0.4: 0.378, 0.8: 0.608},
    "data": {0.2: 0.274, 0.4: 0.308, 0.8: 0.404},
    "steps": {0.2: 0.268, 0.4: 0.348, 0.8: 0.482},
    "emergence": {0.4: 0.81},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
      sizes: tasks and training of the networks by parameters and by data.
      curves: of those by steps.
      alphas: Zipf exponents, less 1.
      widths: hidden neurons.
      examples: sizes of data sets; the lowest test loss on the way counts.
      below: bits of loss below which a data set counts for the fit.
      seeds: networks of each kind.
      checkpoints: folder with which an interrupted run of these settings goes on; empty: none.
      run: run folder.
    """

    sizes: Mixture = dataclasses.field(default_factory=Mixture)
    curves: Mixture = dataclasses.field(default_factory=Mixture)
    alphas: tuple[float, ...] = (0.2, 0.4, 0.8)
    widths: tuple[int, ...] = (10, 15, 20, 30, 50, 70, 100, 150, 200, 300)
    examples: tuple[int, ...] = (30_000, 100_000, 300_000, 1_000_000, 3_000_000)
    below: float = 0.95
    seeds: int = 3
    checkpoints: str = ""
    run: str = "runs/quanta_scaling"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """Rows of mean test loss in bits: by parameters, by data, by steps; and of each task."""
    rows: list[dict[str, Any]] = []
    plans = {
        "parameters": (config.sizes, config.widths),
        "data": (config.sizes, config.examples),
        "steps": (config.curves, ()),
    }
    for by, (mixture, sizes) in plans.items():
        rows += train_quanta(
            mixture, by, alphas=config.alphas, sizes=sizes, seeds=config.seeds,
            checkpoints=folder(config.checkpoints, config, by), progress=progress,
        )  # fmt: skip
    return rows


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "quanta_scaling" / "default.yaml")
    place = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(place, **row)
    by_task = [row for row in rows if row["by"] == "task"]
    caption = "Mean over the seeds. Dashed: as if the tasks that are absent cost one bit each."
    figures = {
        "scaling": (scaling([row for row in rows if row["by"] != "task"]), "Power laws", caption),
        "emergence": (emergence(by_task), "Loss of each task against steps", ""),
    }
    found = {"Exponents of the loss": exponents(rows, RECORDED, below=config.below)}
    title, values = "Power laws from skills learned one by one", configs.to_dict(config)
    print(publish(place.directory, title, figures=figures, tables=found, config=values))


if __name__ == "__main__":
    main()
