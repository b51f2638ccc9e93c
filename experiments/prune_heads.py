#!/usr/bin/env python
"""How many heads can go for free, where is the cliff, and does the criterion matter?

    .venv/bin/python experiments/prune_heads.py            the built-in teacher
    .venv/bin/python experiments/prune_heads.py --quick    seconds

Heads are removed in the order of their scores and accuracy is measured on other prompts; every seed
draws its own. All criteria and shares are one `vmap` over gates. Michel et al. 2019, section 4.2.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import config as configs
from jaxcompress import files, io, prune, runs, tasks
from jaxcompress.ablate import sweep
from jaxcompress.models import Gates, Model
from jaxcompress.prune import scores
from jaxcompress.report.curves import curves
from jaxcompress.report.page import experiment_page, figure
from jaxcompress.report.sections import Section
from jaxcompress.report.tables import table

ROOT = Path(__file__).resolve().parents[1]
FREE = 0.01  # accuracy that may be lost for free


@dataclasses.dataclass(frozen=True)
class Config:
    """What is pruned and measured.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`.
      tasks: names from `tasks.NAMES`; each is scored and measured by itself.
      criteria: names from `prune.CRITERIA`, or `ablation` for the exact sweep.
      shares: of the heads that are removed.
      count: prompts to score on, and as many others to measure on.
      seeds: repeats with other prompts.
      run: run folder.
    """

    model: str = "builtin:teacher"
    tasks: tuple[str, ...] = ("numerals", "ioi", "greater_than", "induction")
    criteria: tuple[str, ...] = ("taylor_token", "fisher", "magnitude", "ablation", "random")
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    count: int = 128
    seeds: int = 3
    run: str = "runs/prune_heads"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """One row for each task, criterion, seed and share: the accuracy that is left."""
    model, rows = io.load(config.model), []
    for task in config.tasks:
        for seed in range(config.seeds):
            keys = jax.random.split(jax.random.key(seed), 3)
            seen, other = (tasks.get(task, model.tokenizer, config.count, k) for k in keys[:2])
            scored = score(model, seen, config.criteria, keys[2])
            gates = [prune.select(one, share) for one in scored for share in config.shares]
            stacked = jnp.stack([jnp.asarray(one.heads) for one in gates])
            found = accuracy(model.apply, model.params, other, stacked)
            accuracies = iter(np.asarray(found).tolist())
            for name in config.criteria:
                for share in config.shares:
                    row = {"task": task, "criterion": name, "seed": seed, "share": share}
                    rows.append(row | {"accuracy": next(accuracies)})
    return rows


def score(model: Model, prompts: tasks.Prompts, criteria: Any, key: Any) -> list[Gates]:
    """Scores of the heads by each criterion; those that look at data share one pass over it."""
    sums = prune.calibrate(model, [prompts], prune.answer, progress=False)
    found = []
    for name in criteria:
        if name == "ablation":
            effects = sweep(model, prompts, "heads", replacement="zero", progress=False)
            found.append(scores.ablation("heads", effects.per_example))
        else:
            found.append(Gates(heads=prune.from_sums(model, sums, name, key=key).heads))
    return found


@functools.partial(jax.jit, static_argnums=0)
def accuracy(apply: Any, params: Any, prompts: tasks.Prompts, heads: jax.Array) -> jax.Array:
    """(gates,) accuracies, all gates in one program."""

    def measure(heads: jax.Array) -> jax.Array:
        out = apply(
            params,
            prompts.tokens,
            attention_mask=prompts.attention_mask,
            answer_position=prompts.answer_position,
            gates=Gates(heads=heads),
        )
        return tasks.accuracy(out.logits, prompts).mean()

    return jax.lax.map(measure, heads, batch_size=10)


def free(rows: list[dict[str, Any]], task: str, criterion: str) -> float:
    """The largest share up to which mean accuracy falls by no more than `FREE`."""
    chosen = [row for row in rows if row["task"] == task and row["criterion"] == criterion]
    shares = sorted({row["share"] for row in chosen})
    means = [np.mean([r["accuracy"] for r in chosen if r["share"] == s]) for s in shares]
    kept = [s for s, mean in zip(shares, means, strict=True) if mean >= means[0] - FREE]
    falls = [s for s, mean in zip(shares, means, strict=True) if mean < means[0] - FREE]
    return max(s for s in kept if not falls or s < falls[0])


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "prune_heads" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(folder, **row)
    png = curves(
        rows, x="share", y="accuracy", by="criterion", panel="task", control="random",
        xlabel="share of heads removed", ylabel="accuracy",
    )  # fmt: skip
    cells = [
        (name, *(f"{free(rows, task, name):.0%}" for task in config.tasks))
        for name in config.criteria
    ]
    found = Section(("criterion", *config.tasks), tuple(cells))
    title = f"Heads of {config.model} that can go for free"
    caption = f"Mean over {config.seeds} draws of prompts, with the range as a band."
    page = experiment_page(
        title,
        figures=[figure(png, "Accuracy against the share of heads removed", caption)],
        tables={f"Share that costs at most {FREE:.0%} of accuracy": found},
        config=configs.to_dict(config),
    )
    files.write_bytes(folder.directory / "accuracy.png", png)
    files.write_text(folder.directory / "report.html", page)
    print(f"Share of heads that costs at most {FREE:.0%} of accuracy")
    print(table(found.columns, found.rows))
    print(f"\nReport: {folder.directory / 'report.html'}")


if __name__ == "__main__":
    main()
