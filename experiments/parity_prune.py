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

from jaxcompress import check, runs
from jaxcompress import config as configs
from jaxcompress.narrow.skills import group_norms, kernels, lasso
from jaxcompress.report import skills as tables
from jaxcompress.report.networks import Drawn
from jaxcompress.report.page import publish
from jaxcompress.train.two_skills import Networks, TwoSkills

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained and pruned.

    Attributes:
      networks: the tasks, the sizes, the training.
      group_lasso: its weight in the loss; `l1` too, of which `l1_eps` is Adam's.
      drawn: number of neurons, one of those that are kept, for the drawing.
      checkpoints: folder with which an interrupted run of these settings goes on; empty: none.
      run: run folder.
    """

    networks: TwoSkills = dataclasses.field(default_factory=TwoSkills)
    group_lasso: float = 1e-3
    l1: float = 3e-4
    l1_eps: float = 1e-8
    drawn: int = 40
    checkpoints: str = ""
    run: str = "runs/parity_prune"


def run(config: Config, progress: bool = True) -> tuple[list[dict[str, Any]], dict[str, Drawn]]:
    """One row for each network, criterion and number of neurons; and the networks to draw."""
    if config.drawn not in config.networks.kept:
        raise check.fail("drawn", f"one of kept, {config.networks.kept}", config.drawn)
    here = Networks(config.networks, checkpoints=config.checkpoints, progress=progress)
    few, wide = config.networks.kept.index(config.drawn), here.wide
    params = here.learned()
    rows, gates = here.pruned("trained", "ablation", slice(None), params)
    first = gates[wide[0], few]
    params = jax.tree.map(lambda leaf: leaf[wide], params)
    for criterion in ("attribution", "weight_norm", "random"):
        rows += here.pruned("trained", criterion, wide, params)[0]
    rows += here.located("trained", params)
    before = kernels(params, 0)
    drawn = {"trained": Drawn(before), "pruned": Drawn(before, first)}
    penalties = {
        "group lasso": (lambda params: group_norms(params).sum(), config.group_lasso, 1e-8),
        "L1": (lasso, config.l1, config.l1_eps),
    }
    for name, (penalty, strength, eps) in penalties.items():
        tuned = here.tuned(name, params, penalty, strength, here.pair[0], eps)
        more, gates = here.pruned(name, "ablation", wide, tuned)
        drawn[f"{name}, pruned"] = Drawn(kernels(tuned, 0), gates[0, few])
        name += " on all tasks"
        rows += more + here.located(name, here.tuned(name, params, penalty, strength, None, eps))
    return rows, drawn


def main() -> None:
    """Runs, draws, writes the page, prints the tables."""
    config = configs.from_args(Config, ROOT / "configs" / "parity_prune" / "default.yaml")
    folder, (rows, drawn) = runs.start(ROOT / config.run, config, 0, overwrite=True), run(config)
    pruned = [row for row in rows if "way" in row]
    for row in rows:
        runs.log(folder, **row)
    asked, wide = config.networks, config.networks.wide
    accuracy = tables.accuracy([row for row in pruned if row["width"] == wide])
    picture = tables.weights(drawn, atoms=asked.atoms, size=asked.size)
    caption = f"Width {wide}, mean and range of {asked.seeds} seeds."
    figures = {"accuracy": (accuracy, "Accuracy against the neurons that stay", caption)}
    figures["networks"] = picture, "Weights before and after pruning", "The first seed."
    few, local = f"Fewest neurons at {asked.threshold:.0%}", "Neurons of the two composites"
    found = {few: tables.fewest_neurons(pruned, threshold=asked.threshold)}
    found[local] = tables.locality([row for row in rows if "network" in row])
    title, values = "Pulling one skill out of a network", configs.to_dict(config)
    print(publish(folder.directory, title, figures=figures, tables=found, config=values))


if __name__ == "__main__":
    main()
