#!/usr/bin/env python
"""How many heads can go for free, where is the cliff, and does the criterion matter?

    .venv/bin/python experiments/prune_heads.py            the built-in teacher
    .venv/bin/python experiments/prune_heads.py --quick    seconds

Heads are removed in the order of their scores, and what is left is measured on other prompts or
rows: accuracy on tasks, nats on text, similarity of embeddings for an encoder without a head. All
criteria and shares are one `vmap` over gates. Michel et al. 2019, section 4.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import config as configs
from jaxcompress import examples, gated, io, prune, runs
from jaxcompress.models import Gates, Model
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
FREE = 0.01  # accuracy or similarity that may be lost for free; of a loss, the share it may rise by


@dataclasses.dataclass(frozen=True)
class Config:
    """What is pruned and measured.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`.
      data: tasks, each of which is scored and measured by itself, or text.
      criteria: names from `prune.CRITERIA`, or `ablation`: each head removed by itself.
      shares: of the heads that are removed.
      seeds: repeats with other prompts.
      run: run folder.
    """

    model: str = "builtin:teacher"
    data: examples.Data = dataclasses.field(default_factory=lambda: examples.Data(tasks=("ioi",)))
    criteria: tuple[str, ...] = ("taylor_token", "fisher", "magnitude", "ablation", "random")
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    seeds: int = 3
    run: str = "runs/prune_heads"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """One row for each task or text, criterion, seed and share: what is left."""
    model, rows = io.load(config.model), []
    for name, seed in itertools.product(panels(config), range(config.seeds)):
        data = dataclasses.replace(config.data, tasks=(name,) * bool(config.data.tasks), seed=seed)
        seen, loss = examples.batches(model, data)
        other, _ = examples.batches(model, data, held_out=True)
        kind, measure = measured(loss)
        gates = [
            prune.select(one, share).heads
            for one in score(model, seen, loss, measure, config.criteria, seed)
            for share in config.shares
        ]
        stacked = Gates(heads=jnp.stack([jnp.asarray(one) for one in gates]))
        left = iter(gated.under_gates(model, other, measure, stacked).tolist())
        for criterion, share in itertools.product(config.criteria, config.shares):
            row = {"on": name, "criterion": criterion, "seed": seed, "measure": kind}
            rows.append(row | {"share": share, "value": next(left)})
    return rows


def panels(config: Config) -> tuple[str, ...]:
    """What is measured on, by name."""
    return config.data.tasks or (", ".join(Path(text).stem for text in config.data.texts),)


def measured(loss: Any) -> tuple[str, Any]:
    """What is measured, and the measure, by the loss that gradients are of."""
    if loss is prune.answer:
        return "accuracy", gated.accuracy
    if loss is prune.embedding:
        return "similarity", gated.similarity
    return "nats per token", lambda out, batch, whole: loss(out, batch)


def score(
    model: Model, found: Any, loss: Any, measure: Any, criteria: Any, seed: int
) -> list[Gates]:
    """Scores of the heads by each criterion; those that look at data share one pass over it."""
    sums = prune.calibrate(model, found, loss, progress=False)
    scored = []
    for name in criteria:
        if name == "ablation":
            changes = gated.each_removed(model, found, measure, ["heads"], progress=False)
            scored.append(jax.tree.map(jnp.abs, changes))
        else:
            key = jax.random.key(seed)
            scored.append(Gates(heads=prune.from_sums(model, sums, name, key=key).heads))
    return scored


def free(rows: list[dict[str, Any]], name: str, criterion: str) -> float:
    """The largest share up to which the mean is no worse than `FREE` allows."""
    chosen = [row for row in rows if row["on"] == name and row["criterion"] == criterion]
    shares = sorted({row["share"] for row in chosen})
    means = [np.mean([r["value"] for r in chosen if r["share"] == s]) for s in shares]
    scale = -means[0] if chosen[0]["measure"] == "nats per token" else 1.0
    fine = [(means[0] - mean) / scale <= FREE for mean in means]
    return max(itertools.compress(shares, itertools.accumulate(fine, operator.and_)))


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "prune_heads" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(folder, **row)
    png = curves(
        rows, x="share", y="value", by="criterion", panel="on", control="random",
        xlabel="share of heads removed", ylabel=rows[0]["measure"],
    )  # fmt: skip
    names, what = panels(config), rows[0]["measure"]
    cells = [(c, *(f"{free(rows, n, c):.0%}" for n in names)) for c in config.criteria]
    found = Section(("criterion", *names), tuple(cells))
    heading = f"Share of heads that costs at most {FREE:.0%} of {what}"
    many = f"Mean over {config.seeds} draws of the data, with the range as a band."
    caption = many if config.seeds > 1 else "One draw of the data."
    told = publish(
        folder.directory,
        f"Heads of {config.model} that can go for free",
        figures={"curves": (png, f"{what} by share of heads removed", caption)},
        tables={heading: found},
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
