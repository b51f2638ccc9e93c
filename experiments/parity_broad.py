#!/usr/bin/env python
"""Is a hierarchical skill learned only by way of its parts?

    .venv/bin/python experiments/parity_broad.py            minutes on 2 CPU cores
    .venv/bin/python experiments/parity_broad.py --quick    seconds

Networks learn the parity of a few bits (atoms) and of all of them together (the composite): both
mixed, the composite alone, at depth 2 and 3, and with the tasks opened in different orders. All
conditions and seeds of one shape are one program, as a mixture is two arrays. The composite alone
gets the steps of the others, all of them full of it. Michaud et al. 2025, section 3.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, runs, tree
from jaxcompress import config as configs
from jaxcompress.data import parity as data
from jaxcompress.data.curriculum import mixed, several
from jaxcompress.models import MLPConfig
from jaxcompress.narrow.parity import BIT
from jaxcompress.narrow.scaling import reached
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.skills import converged
from jaxcompress.train.parity import train
from jaxcompress.train.population import folder

ROOT = Path(__file__).resolve().parents[1]
RECORDED = {
    "broad": "27/40",
    "composite only": "0/40",
    "depth 2": "19/40",
    "depth 2, wide": "16/40",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
      bits: random bits of an example.
      atoms: parts of the composite.
      size: bits of an atom.
      width: neurons of a hidden layer; wide means as many parameters at depth 2 as at depth 3.
      steps: updates.
      batch: examples of a step, in all conditions.
      parts: of a step, one after the other; `every`: steps between points; `rate`: of Adam.
      curricula: kinds from `data.curriculum` besides mixed.
      frequencies: of the atoms and the composite, for `by_frequency`, which is to be compared with
        `unequal shares`: the same, all open from the start.
      opening: share of the steps in which the tasks of a curriculum open.
      converged: bits of loss on the composite below which a run counts.
      seeds: of each condition.
      checkpoints: folder with which an interrupted run of these settings goes on; empty: none.
      run: run folder.
    """

    bits: int = 64
    atoms: int = 4
    size: int = 4
    width: int = 128
    steps: int = 200_000
    batch: int = 10_000
    parts: int = 10
    every: int = 500
    rate: float = 1e-3
    curricula: tuple[str, ...] = ("easy_first", "hard_first", "by_frequency")
    frequencies: tuple[float, ...] = (5.0, 4.0, 3.0, 2.0, 2.0)
    opening: float = 0.25
    converged: float = 0.1
    seeds: int = 40
    checkpoints: str = ""
    run: str = "runs/parity_broad"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """One row for each condition, seed and time: the lowest losses so far, in bits."""
    if not 0 <= config.opening <= 1:
        raise check.fail("opening", "a share in [0, 1]", config.opening)
    whole, rows = list(range(config.atoms)), []
    codes = [*([i] for i in whole), whole]
    parity = data.compositional(config.bits, config.atoms, config.size, codes)
    wide = round(config.width * (parity.inputs + config.width + 4) / (parity.inputs + 3))
    last, seeds = np.arange(config.atoms + 1) == config.atoms, config.seeds
    opening = {"steps": int(config.opening * config.steps), "frequencies": config.frequencies}
    plans = {"broad": mixed(parity.difficulty)}
    plans["composite only"] = plans["broad"].only(last)
    plans |= several(config.curricula, parity.difficulty, **opening)
    shapes = {
        "depth 3": (MLPConfig(parity.inputs, config.width, 3), plans),
        "depth 2": (MLPConfig(parity.inputs, config.width, 2), {"depth 2": plans["broad"]}),
        "wide": (MLPConfig(parity.inputs, wide, 2), {"depth 2, wide": plans["broad"]}),
    }
    for name, (shape, some) in shapes.items():
        keys = jnp.tile(jax.random.split(jax.random.key(0), seeds), len(some))
        members = tree.stack([plan for plan in some.values() for _ in range(seeds)])
        _, history = train(
            parity, shape, keys=keys, hyper={"plan": members}, steps=config.steps,
            batch=config.batch, every=config.every, rate=config.rate, parts=config.parts, name=name,
            checkpoints=folder(config.checkpoints, config, name), progress=progress,
        )  # fmt: skip
        losses = np.where(history["shown"] > 0, history["task_loss"] / BIT, 1.0)
        losses = np.minimum.accumulate(losses, axis=0)
        first = reached(history["step"], losses[..., -1], config.converged) * config.batch
        for (time, member), loss in np.ndenumerate(losses[..., -1]):
            condition = list(some)[member // seeds].replace("_", " ")
            row = {"condition": condition, "seed": member % seeds, "composite": float(loss)}
            row |= {"samples": int(history["step"][time]) * config.batch}
            row |= {"reached": float(first[member])}
            if condition != "composite only":
                row["atoms"] = float(losses[time, member, :-1].mean())
            rows.append(row)
    return rows


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "parity_broad" / "default.yaml")
    place = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(place, **row)
    caption = f"Mean over {config.seeds} seeds with the range as a band; lowest loss so far."
    points = [
        {**row, "millions": row["samples"] / 1e6, "panel": name, "bits": row[name]}
        for name in ("composite", "atoms") for row in rows if name in row
    ]  # fmt: skip
    png = curves(
        points, x="millions", y="bits", by="condition", panel="panel", control="composite only",
        xlabel="samples, millions", ylabel="loss (bits)",
    )  # fmt: skip
    figures = {"losses": (png, "Loss on the composite and on the atoms", caption)}
    found = {f"Loss on the composite fell below {config.converged} bit": converged(rows, RECORDED)}
    title, values = "Is a skill learned by way of its parts?", configs.to_dict(config)
    print(publish(place.directory, title, figures=figures, tables=found, config=values))


if __name__ == "__main__":
    main()
