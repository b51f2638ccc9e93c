#!/usr/bin/env python
"""Can one skill be pulled out of a network by removing neurons, and how many does it need?

    .venv/bin/python experiments/parity_prune.py            minutes on 2 CPU cores
    .venv/bin/python experiments/parity_prune.py --quick    seconds

Networks learn atoms and two composites and are pruned down to the first, as they are or after
tuning with group lasso or L1; both are measured, recovered too. Michaud et al. 2025, section 3.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import config as configs
from jaxcompress import runs
from jaxcompress.data import parity as data
from jaxcompress.models import MLPConfig
from jaxcompress.narrow.skills import group_lasso, kernels, lasso
from jaxcompress.report import skills as tables
from jaxcompress.report.networks import Drawn, networks
from jaxcompress.report.page import publish
from jaxcompress.train import parity as lab
from jaxcompress.train import population, pulling

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained and pruned.

    Attributes:
      bits: random bits of an example.
      atoms: parts; one half of them makes the skill that is kept, the other half the other.
      size: bits of an atom.
      widths: neurons of each of two hidden layers.
      steps: of training on all tasks; `tuning`: of the kept skill with a penalty.
      recovery: of training after pruning.
      batch: examples of each task in a step; `rate`: of Adam.
      group_lasso: its weight in the loss; `l1` too.
      kept: numbers of neurons that stay; `drawn`: one of them, for the drawing.
      threshold: accuracy at which a skill is there.
      seeds: networks of each width; `run`: run folder.
    """

    bits: int = 18
    atoms: int = 6
    size: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    steps: int = 40_000
    tuning: int = 10_000
    recovery: int = 1000
    batch: int = 2000
    rate: float = 1e-3
    group_lasso: float = 1e-3
    l1: float = 3e-4
    kept: tuple[int, ...] = (4, 8, 12, 16, 20, 24, 32, 40, 50, 60, 80, 100, 128)
    drawn: int = 40
    threshold: float = 0.98
    seeds: int = 5
    run: str = "runs/parity_prune"


def run(config: Config, progress: bool = True) -> tuple[list[dict[str, Any]], dict[str, Drawn]]:
    """One row for each network, criterion and number of neurons; and the networks to draw."""
    half, codes = config.atoms // 2, [[i] for i in range(config.atoms)]
    codes += [list(range(half)), list(range(half, config.atoms))]
    parity = data.compositional(config.bits, config.atoms, config.size, codes)
    shape, pair = MLPConfig(parity.inputs, max(config.widths), 3), (len(codes) - 2, len(codes) - 1)
    members = population.grid(width=config.widths, seed=range(config.seeds))
    keys = jax.random.split(jax.random.key(0), len(members["seed"]))
    params, gates = lab.initial(shape, keys, members["width"])
    plain: dict[str, Any] = {"every": 100, "rate": config.rate, "test": 500, "progress": progress}
    params, _ = lab.train(
        parity, shape, params=params, keys=keys, hyper={"gates": gates}, steps=config.steps,
        batch=config.batch * len(codes), name="train", **plain,
    )  # fmt: skip
    wide, rows = np.flatnonzero(members["width"] == shape.width), []

    def prune(name: str, criterion: str, which: Any, params: Any) -> Any:
        found = pulling.pull(
            parity, shape, params, gates[which], kept=config.kept, task=pair[0], measured=pair,
            criterion=criterion, keys=keys[which], recovery=config.recovery, size=config.batch,
            rate=config.rate, progress=progress,
        )  # fmt: skip
        labels = {"names": ("kept", "other"), "way": f"{name}, {criterion}"}
        rows.extend(pulling.as_rows(found, jax.tree.map(lambda x: x[which], members), **labels))
        return found["gates"]

    def locate(name: str, params: Any) -> None:
        options = {"tasks": pair, "keys": keys[wide], "threshold": config.threshold}
        found = pulling.locality(parity, shape, params, gates[wide], size=config.batch, **options)
        rows.extend({"network": name} | row for row in found)

    first = prune("trained", "ablation", np.arange(len(keys)), params)
    params = jax.tree.map(lambda leaf: leaf[wide], params)
    for criterion in ("attribution", "weight_norm", "random"):
        prune("trained", criterion, wide, params)
    locate("trained", params)
    few, before = config.kept.index(config.drawn), kernels(params, 0)
    drawn = {"trained": Drawn(before), "pruned": Drawn(before, first[wide[0], few])}
    penalties = {"group lasso": (group_lasso, config.group_lasso), "L1": (lasso, config.l1)}
    for name, (penalty, strength) in penalties.items():
        for task in (pair[0], None):
            share = jnp.ones(len(codes)) if task is None else jax.nn.one_hot(task, len(codes))
            hyper = {"gates": gates[wide], "weights": jnp.tile(share[None], (len(wide), 1))}
            tuned, _ = lab.train(
                parity, shape, params=params, keys=keys[wide], steps=config.tuning, eps=1e-8,
                hyper=hyper | {"penalty": jnp.full(len(wide), strength)}, penalty=penalty,
                batch=config.batch * len(codes), name=name, **plain,
            )  # fmt: skip
            if task is None:
                locate(f"{name} on all tasks", tuned)
            else:
                gate = prune(name, "ablation", wide, tuned)[0, few]
                drawn[f"{name}, pruned"] = Drawn(kernels(tuned, 0), gate)
    return rows, drawn


def main() -> None:
    """Runs, draws, writes the page, prints the tables."""
    config = configs.from_args(Config, ROOT / "configs" / "parity_prune" / "default.yaml")
    folder, (rows, drawn) = runs.start(ROOT / config.run, config, 0, overwrite=True), run(config)
    pruned = [row for row in rows if "way" in row]
    for row in rows:
        runs.log(folder, **row)
    accuracy = tables.accuracy([row for row in pruned if row["width"] == max(config.widths)])
    first = [config.atoms + config.size * i for i in range(config.atoms)]
    groups = {"control bits": range(config.atoms)}
    groups |= {f"atom {i}": range(n, n + config.size) for i, n in enumerate(first)}
    picture = networks(drawn, groups=groups, outputs=("even", "odd"))
    caption = f"Width {max(config.widths)}, mean and range of {config.seeds} seeds."
    figures = {"accuracy": (accuracy, "Accuracy against the neurons that stay", caption)}
    figures["networks"] = picture, "Weights before and after pruning", "The first seed."
    few, local = f"Fewest neurons at {config.threshold:.0%}", "Neurons of the two composites"
    found = {few: tables.fewest_neurons(pruned, threshold=config.threshold)}
    found[local] = tables.locality([row for row in rows if "network" in row])
    title, values = "Pulling one skill out of a network", configs.to_dict(config)
    print(publish(folder.directory, title, figures=figures, tables=found, config=values))


if __name__ == "__main__":
    main()
