#!/usr/bin/env python
"""When does a network stop memorising and start adding, and what happens inside before it shows?

    .venv/bin/python experiments/grokking.py            a small modulus
    .venv/bin/python experiments/grokking.py --quick    seconds

Trains a one-layer transformer on part of the table of addition modulo p, keeps snapshots, and
measures the whole trajectory in one program: the restricted loss is that of the generalising
circuit, the excluded loss that of what was memorised. Then fractions of the table and weight
decays are swept, all networks in one `vmap`. Nanda et al. 2023, sections 4 and 5.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check, runs
from jaxcompress import config as configs
from jaxcompress.data import modular
from jaxcompress.narrow import grokking
from jaxcompress.narrow.reading import reading
from jaxcompress.narrow.scaling import reached
from jaxcompress.report import addition, addition_tables, lines
from jaxcompress.report.page import publish
from jaxcompress.train.addition import Addition, Trained, train_addition
from jaxcompress.train.population import folder

ROOT = Path(__file__).resolve().parents[1]
CAPTIONS = {
    "circuits": "Restricted: key frequencies alone. Excluded: all but them, on training pairs.",
    "spectrum": "At the end: key frequencies, in colour, have over 1 % of the logits' variance.",
    "sweep": "Range over seeds as a band; a network that never got there stands at its last step.",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
      training: the network and its optimiser.
      fraction: of the table that is trained on.
      weight_decay: per step and unit of the learning rate.
      seed: of the start and of the pairs trained on.
      sweep_fractions: of the second part.
      sweep_weight_decays: likewise; `sweep_seeds` too.
      sweep_steps: updates of each, measured every `sweep_every` (0: as often as in `training`).
      together: networks in one vmap there; groups run one after the other. 0 for all.
      checkpoints: folder with which an interrupted run of these settings goes on; empty: none.
      run: run folder.
    """

    training: Addition = dataclasses.field(default_factory=Addition)
    fraction: float = 0.3
    weight_decay: float = 1.0
    seed: int = 0
    sweep_fractions: tuple[float, ...] = (0.3, 0.5)
    sweep_weight_decays: tuple[float, ...] = (0.5, 1.0)
    sweep_seeds: tuple[int, ...] = (0,)
    sweep_steps: int = 40_000
    sweep_every: int = 0
    together: int = 0
    checkpoints: str = ""
    run: str = "runs/grokking"


def of_sweep(config: Config) -> Addition:
    """How the networks of the sweep are trained, asked before anything is."""
    every = config.sweep_every or config.training.every
    check.multiple("sweep_steps", config.sweep_steps, every, "sweep_every")
    for fraction in config.sweep_fractions:
        modular.split(config.training.p, fraction, 0)
    return dataclasses.replace(config.training, steps=config.sweep_steps, every=every)


def learn(config: Config) -> tuple[Trained, dict[str, np.ndarray]]:
    """The network, and its progress measures over time."""
    trained = train_addition(
        config.training,
        fractions=(config.fraction,),
        weight_decays=(config.weight_decay,),
        seeds=(config.seed,),
        snapshots=True,
        checkpoints=folder(config.checkpoints, config, "trajectory"),
    )
    snapshots = jax.tree.map(lambda leaf: leaf[:, 0], trained.snapshots)
    pairs = modular.table(config.training.p)
    found = grokking.trajectory(trained.model.apply, snapshots, pairs, trained.chosen(0))
    return trained, {name: np.asarray(value) for name, value in found.items()}


def sweep(config: Config) -> list[dict[str, Any]]:
    """One row for each network of the sweep: when it had learned each part of the table."""
    trained = train_addition(
        of_sweep(config),
        fractions=config.sweep_fractions,
        weight_decays=config.sweep_weight_decays,
        seeds=config.sweep_seeds,
        together=config.together or None,
        checkpoints=folder(config.checkpoints, config, "sweep"),
    )
    rows, history = [], trained.history
    for i in range(len(trained.members["seed"])):
        row = {name: values[i].item() for name, values in trained.members.items()}
        row["memorised"] = float(reached(history["step"], history["loss"][:, i], 0.1))
        row["grokked"] = float(reached(history["step"], history["test_loss"][:, i], 0.1))
        rows.append(row | {"test_accuracy": float(history["test_accuracy"][-1, i])})
    return rows


def main() -> None:
    """Runs, draws, writes the page, prints the tables."""
    config = configs.from_args(Config, ROOT / "configs" / "grokking" / "default.yaml")
    of_sweep(config)
    place = runs.start(ROOT / config.run, config, config.seed, overwrite=True)
    (trained, found), p = learn(config), config.training.p
    for i, step in enumerate(trained.history["step"]):
        measured = {name: found[name][i] for name in grokking.MEASURES}
        runs.log(place, part="trajectory", step=int(step), **measured)
    rows = sweep(config)
    for row in rows:
        runs.log(place, part="sweep", **row)
    neurons = reading(trained.model.apply, trained.model.params, modular.table(p))
    of = (found["shares"][-1], found["keys"], neurons["neurons"], found["embedding_norms"][-1])
    pngs = {
        "circuits": addition.circuits(trained.history["step"], found),
        "spectrum": lines.bars(addition.spectrum(f"p = {p}", *of)),
    }
    pngs["sweep"], cells = addition_tables.sweep(rows, config.sweep_steps)
    tables = {
        "The network": addition_tables.progress(trained.history["step"], found),
        "Steps until test loss < 0.1": cells,
    }
    told = publish(
        place.directory,
        f"Grokking: addition modulo {p}",
        figures={name: (pngs[name], name, caption) for name, caption in CAPTIONS.items()},
        tables=tables,
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
