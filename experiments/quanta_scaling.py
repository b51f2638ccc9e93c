#!/usr/bin/env python
"""Do power laws of the loss come from skills that are learned one by one, the frequent ones first?

    .venv/bin/python experiments/quanta_scaling.py            minutes on 2 CPU cores
    .venv/bin/python experiments/quanta_scaling.py --quick    seconds

Many sparse-parity tasks with Zipf frequencies, one hidden layer. Widths (by masking), seeds and
exponents are one vmapped program, amounts of data another. The exponents of the loss in parameters,
data and steps are set against the quantization model. Michaud et al. 2023, section 3.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import config as configs
from jaxcompress import runs
from jaxcompress.data import parity as data
from jaxcompress.models import MLPConfig
from jaxcompress.narrow.parity import BIT
from jaxcompress.narrow.scaling import reached
from jaxcompress.report.page import publish
from jaxcompress.report.scaling import emergence, exponents, scaling
from jaxcompress.train import parity as lab
from jaxcompress.train import population

ROOT = Path(__file__).resolve().parents[1]
RECORDED = {  # of 500 tasks, for alpha 0.2, 0.4 and 0.8
    "parameters": {0.2: 0.282, 0.4: 0.378, 0.8: 0.608},
    "data": {0.2: 0.274, 0.4: 0.308, 0.8: 0.404},
    "steps": {0.2: 0.268, 0.4: 0.348, 0.8: 0.482},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
      bits: random bits of an example.
      tasks: how many.
      size: bits of each task.
      alphas: Zipf exponents, less 1.
      widths: hidden neurons.
      examples: sizes of data sets, for the widest network.
      steps: updates; with a data set the lowest test loss on the way counts.
      batch: examples of a step; `rate`: of Adam.
      every: steps between measurements.
      fitted: lowest and highest step of the fit in steps; `below`: bits of loss below which a data
        set counts for the fit in data.
      seeds: networks of each kind.
      run: run folder.
    """

    bits: int = 100
    tasks: int = 500
    size: int = 3
    alphas: tuple[float, ...] = (0.2, 0.4, 0.8)
    widths: tuple[int, ...] = (10, 15, 20, 30, 50, 70, 100, 150, 200, 300)
    examples: tuple[int, ...] = (30_000, 100_000, 300_000, 1_000_000, 3_000_000)
    steps: int = 100_000
    batch: int = 20_000
    every: int = 500
    rate: float = 1e-3
    fitted: tuple[int, int] = (500, 15_000)
    below: float = 0.95
    seeds: int = 3
    run: str = "runs/quanta_scaling"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """Rows of mean test loss in bits: by parameters, by data, by steps; and of each task."""
    parity = data.multitask(config.bits, config.tasks, config.size)
    shape = MLPConfig(parity.inputs, max(config.widths), 2)
    rows: list[dict[str, Any]] = []
    for kind, sizes in (("parameters", config.widths), ("data", config.examples)):
        members = population.grid(alpha=config.alphas, size=sizes, seed=range(config.seeds))
        keys = jax.vmap(jax.random.key)(members["seed"])
        width = members["size"] if kind == "parameters" else np.full(len(keys), shape.width)
        params, gates = lab.initial(shape, keys, width)
        often = np.stack([data.zipf(config.tasks, 1 + alpha) for alpha in members["alpha"]])
        hyper = {"gates": gates, "weights": often}
        if kind == "data":
            hyper |= {
                "examples": members["size"],
                "data": jax.vmap(jax.random.key)(members["seed"]),
            }
        _, history = lab.train(
            parity, shape, params=params, keys=keys, hyper=hyper, steps=config.steps,
            batch=config.batch, every=config.every, rate=config.rate, eps=1e-8, stratified=False,
            test=100, name=kind, progress=progress,
        )  # fmt: skip
        by_task = history["test_loss"] / BIT
        losses = (by_task * often).sum(axis=-1)
        for i, (alpha, size, seed) in enumerate(zip(*members.values(), strict=True)):
            row = {"alpha": float(alpha), "seed": int(seed), "by": kind}
            size = int(size) * (parity.inputs + 3) + 2 if kind == "parameters" else int(size)
            least = losses[-1, i] if kind == "parameters" else losses[:, i].min()
            rows.append(row | {"x": size, "loss": float(least)})
            if kind == "data" or width[i] < shape.width:
                continue
            for step, loss in zip(history["step"].tolist(), losses[:, i], strict=True):
                rows.append(row | {"by": "steps", "x": step, "loss": float(loss)})
            when = reached(history["step"], by_task[:, i], 0.1)
            for task, found in enumerate(by_task[:, i].T):
                emerged = {"frequency": float(often[i, task]), "step": float(when[task])}
                curve = [round(float(value), 4) for value in found]
                rows.append(row | emerged | {"by": "task", "x": task, "curve": curve})
    return rows


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "quanta_scaling" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(folder, **row)
    by_task = [row for row in rows if row["by"] == "task"]
    figures = {
        "scaling": (scaling([row for row in rows if row["by"] != "task"]), "Power laws", ""),
        "emergence": (emergence(by_task), "Loss of each task against steps", ""),
    }
    table = exponents(rows, RECORDED, fitted=config.fitted, below=config.below)
    found = {"Exponents of the loss": table}
    title, values = "Power laws from skills learned one by one", configs.to_dict(config)
    print(publish(folder.directory, title, figures=figures, tables=found, config=values))


if __name__ == "__main__":
    main()
