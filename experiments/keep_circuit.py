#!/usr/bin/env python
"""Do scores that protect a task's circuit keep the task longer than scores that know it not?

    .venv/bin/python experiments/keep_circuit.py            the built-in teacher
    .venv/bin/python experiments/keep_circuit.py --quick    seconds

Heads are removed by plain criteria measured on other tasks, and by the same criteria with the heads
of one task's circuit going last. At equal sparsity: accuracy on the protected task and on the
others. `jaxcompress prune ... keep_circuit=[ioi]` does the same to a model.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import config as configs
from jaxcompress import examples, gated, io, prune, runs
from jaxcompress.compress import PruneConfig, circuit_heads, protect
from jaxcompress.models import Gates
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
KEPT, OTHERS = "protected task", "other tasks"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is protected from what.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`.
      protected: tasks, each protected in a run of its own.
      criteria: names from `prune.CRITERIA`.
      shares: of the heads that are removed.
      data: how prompts are drawn; criteria see all of its tasks but the protected one.
      seeds: repeats with other prompts.
      run: run folder.
    """

    model: str = "builtin:teacher"
    protected: tuple[str, ...] = ("ioi", "induction")
    criteria: tuple[str, ...] = ("taylor_example", "magnitude", "random")
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8)
    data: examples.Data = dataclasses.field(default_factory=examples.Data)
    seeds: int = 3
    run: str = "runs/keep_circuit"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """One row for each task, criterion, way, share, seed and thing that is measured."""
    model, rows = io.load(config.model), []
    for task in config.protected:
        for seed in range(config.seeds):
            others = tuple(name for name in config.data.tasks if name != task)
            data = dataclasses.replace(config.data, tasks=others, seed=seed)
            kept = circuit_heads(model, PruneConfig(data=data, keep_circuit=(task,)))
            assert kept is not None  # a task was named
            about = {"task": task, "seed": seed, "circuit": int(kept.sum())}
            seen, loss = examples.batches(model, data)
            sums = prune.calibrate(model, seen, loss, progress=False)
            ways, gates = [], []
            for criterion in config.criteria:
                key = jax.random.key(seed)
                scores = Gates(heads=prune.from_sums(model, sums, criterion, key=key).heads)
                for name in (criterion, f"{criterion}, circuit kept"):
                    one = scores if name == criterion else protect(scores, kept)
                    ways += [(name, share) for share in config.shares]
                    gates += [prune.select(one, share).heads for share in config.shares]
            stacked = Gates(heads=jnp.stack([jnp.asarray(one) for one in gates]))
            for what, names in ((KEPT, (task,)), (OTHERS, others)):
                found, _ = examples.batches(
                    model, dataclasses.replace(data, tasks=names), held_out=True
                )
                left = gated.under_gates(model, found, gated.accuracy, stacked)
                for (name, share), value in zip(ways, left.tolist(), strict=True):
                    row = {"panel": f"{task}: {what}", "way": name, "share": share}
                    rows.append(row | about | {"accuracy": value})
    return rows


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "keep_circuit" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(folder, **row)
    png = curves(
        rows, x="share", y="accuracy", by="way", panel="panel", control="random",
        xlabel="share of heads removed", ylabel="accuracy",
    )  # fmt: skip
    panels, cells = list(dict.fromkeys(row["panel"] for row in rows)), []
    for way in dict.fromkeys(row["way"] for row in rows):
        of = [[r["accuracy"] for r in rows if (r["way"], r["panel"]) == (way, p)] for p in panels]
        cells.append((way, *(f"{np.mean(values):.2f}" for values in of)))
    found = Section(("criterion", *panels), tuple(cells))
    counts = {(row["task"], row["seed"]): row["circuit"] for row in rows}
    sizes = [(t, ", ".join(str(n) for (u, _), n in counts.items() if u == t)) for t, _ in counts]
    sizes = list(dict.fromkeys(sizes))
    caption = f"Mean over {config.seeds} draws of prompts, with the range as a band."
    told = publish(
        folder.directory,
        f"Pruning {config.model} with and without protecting a circuit",
        figures={"curves": (png, "Accuracy by share of heads removed", caption)},
        tables={
            "Accuracy, mean over shares": found,
            "Heads in the circuit, by seed": Section(("task", "heads"), tuple(sizes)),
        },
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
