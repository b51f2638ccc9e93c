#!/usr/bin/env python
"""Is a hierarchical skill learned only by way of its parts?

    .venv/bin/python experiments/parity_broad.py            minutes on 2 CPU cores
    .venv/bin/python experiments/parity_broad.py --quick    seconds

Networks learn the parity of a few bits (atoms) and of all of them together (the composite): both
mixed, the composite alone, at depth 2 and 3, and with the tasks opened in different orders. All
seeds of a condition are one program. Michaud et al. 2025, section 3.
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
from jaxcompress.data.curriculum import curriculum
from jaxcompress.models import MLPConfig
from jaxcompress.narrow.parity import BIT
from jaxcompress.narrow.scaling import reached, wilson
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section
from jaxcompress.train.parity import train

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
      parts: of a step, one after the other; `every`: steps between points of the curves.
      rate: learning rate of Adam.
      curricula: kinds from `data.curriculum` besides mixed.
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
    curricula: tuple[str, ...] = ("easy_first", "hard_first")
    opening: float = 0.25
    converged: float = 0.1
    seeds: int = 40
    checkpoints: str = ""
    run: str = "runs/parity_broad"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """One row for each condition, seed and time: the lowest losses so far, in bits."""
    whole, inputs = list(range(config.atoms)), config.atoms + config.bits
    wide = round(config.width * (inputs + config.width + 4) / (inputs + 3))
    broad, plain, rows = [[i] for i in whole] + [whole], (config.width, 3, "mixed"), []
    conditions = {
        "broad": (broad, *plain),
        "composite only": ([whole], *plain),
        "depth 2": (broad, config.width, 2, "mixed"),
        "depth 2, wide": (broad, wide, 2, "mixed"),
        **{kind: (broad, config.width, 3, kind) for kind in config.curricula},
    }
    for name, (codes, width, depth, kind) in conditions.items():
        parity = data.compositional(config.bits, config.atoms, config.size, codes)
        plan = curriculum(kind, parity.difficulty, steps=int(config.opening * config.steps))
        _, history = train(
            parity, MLPConfig(parity.inputs, width, depth),
            keys=jax.random.split(jax.random.key(0), config.seeds),
            hyper={"plan": jax.tree.map(lambda leaf: jnp.stack([leaf] * config.seeds), plan)},
            steps=config.steps, batch=config.batch, every=config.every, rate=config.rate,
            parts=config.parts, name=name, progress=progress,
            checkpoints=Path(config.checkpoints) / name if config.checkpoints else None,
        )  # fmt: skip
        losses = np.where(history["shown"] > 0, history["task_loss"] / BIT, 1.0)
        losses = np.minimum.accumulate(losses, axis=0)
        first = reached(history["step"], losses[..., -1], config.converged) * config.batch
        for step, by_seed in zip(history["step"].tolist(), losses, strict=True):
            for seed, loss in enumerate(by_seed):
                row = {"condition": name, "seed": seed, "samples": step * config.batch}
                row |= {"composite": float(loss[-1]), "reached": float(first[seed])}
                rows.append(row | ({"atoms": float(loss[:-1].mean())} if len(codes) > 1 else {}))
    return rows


def summary(rows: list[dict[str, Any]]) -> Section:
    """Share of seeds that converged, and after how many samples."""
    last, cells = max(row["samples"] for row in rows), []
    for name in dict.fromkeys(row["condition"] for row in rows):
        found = [r for r in rows if r["condition"] == name and r["samples"] == last]
        done = [row["reached"] for row in found if np.isfinite(row["reached"])]
        low, high = wilson(len(done), len(found))
        share = f"{len(done)}/{len(found)}", f"{low:.0%} to {high:.0%}"
        median = f"{np.median(done):.1e}" if done else "n/a"
        cells.append((name, *share, median, RECORDED.get(name, "n/a")))
    columns = ("condition", "converged", "95 % interval", "samples, median")
    return Section((*columns, "recorded at 64 bits"), tuple(cells))


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "parity_broad" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(folder, **row)
    caption = f"Mean over {config.seeds} seeds with the range as a band; lowest loss so far."
    figures = {}
    for name in ("composite", "atoms"):
        png = curves(
            [row for row in rows if name in row], x="samples", y=name, by="condition",
            xlabel="samples", ylabel=f"loss on the {name} (bits)",
        )  # fmt: skip
        figures[name] = png, f"Loss on the {name} against samples", caption
    found = {f"Loss on the composite fell below {config.converged} bit": summary(rows)}
    title, values = "Is a skill learned by way of its parts?", configs.to_dict(config)
    print(publish(folder.directory, title, figures=figures, tables=found, config=values))


if __name__ == "__main__":
    main()
