#!/usr/bin/env python
"""What was unlearned, and how fast does it come back?

    .venv/bin/python experiments/relearning.py            after python_only.py
    .venv/bin/python experiments/relearning.py --quick    seconds

Narrow models are trained on the prose that they were not to keep, all with the same rows, tokens
and learning rates, the unpruned ones too; the rate is chosen on the validation split and what is
reported is of the test split. Michaud et al. 2025, section 5. The model trained from scratch never
knew prose: what is relearned faster than it learns had not gone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxcompress import check, runs
from jaxcompress import config as configs
from jaxcompress.narrowing import Narrowing, narrow, read, relearn
from jaxcompress.report.curves import curves
from jaxcompress.report.numbers import spread
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is relearned.

    Attributes:
      narrowing: as in python_only.py; the same values find its models, other ones are made.
      size: which of the sizes is relearned, beside the unpruned models.
      rows: methods that are relearned; `general` and `full` are not pruned.
      steps: of training on prose.
      rates: learning rates that every row tries.
      run: run folder.
    """

    narrowing: Narrowing = dataclasses.field(default_factory=Narrowing)
    size: int = 1
    rows: tuple[str, ...] = ("general", "full", "random", "attribution", "lasso", "scratch")
    steps: int = 40
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    run: str = "runs/relearning"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """One row for each model and measurement while it learns prose."""
    check.multiple("steps", config.steps, config.narrowing.points, "narrowing.points")
    check.integer("size", config.size, 0, len(config.narrowing.sizes) - 1)
    for name in config.rows:
        check.known("rows", name, ("general", *config.narrowing.methods))
    texts = read(config.narrowing)
    sizes = ((0.0, 0.0), config.narrowing.sizes[config.size])
    only = dataclasses.replace(config.narrowing, sizes=sizes[1:])
    chosen = [
        network
        for network in narrow(only, texts, progress=progress)
        if network.method in config.rows and tuple(network.size) in sizes
    ]
    return relearn(
        chosen, config.narrowing, texts,
        steps=config.steps, rates=config.rates, progress=progress,
    )  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> Section:
    """Loss on prose before and after, and of code after, for every row."""
    cells = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        last = max(row["tokens"] for row in own)
        first, end = ([r for r in own if r["tokens"] == tokens] for tokens in (0.0, last))
        rates = sorted({f"{r['rate']:g}{' (edge)' if r['edge'] else ''}" for r in end})
        size = "neurons -{:.0%}, channels -{:.0%}".format(*own[0]["size"])
        gone = [spread([r["prose"] for r in part]) for part in (first, end)]
        cells.append((method, size, *gone, spread([r["code"] for r in end]), ", ".join(rates)))
    columns = ("method", "removed", "prose before", "prose after", "code after", "rate")
    note = (
        "Held-out nats per token of the test split; the rate is the best on the validation split. "
        "Edge: the best rate is the lowest or the highest that was tried. scratch never knew prose."
    )
    return Section(columns, tuple(cells), note)


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "relearning" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(folder, **row)
    points = [
        row | {"thousands": row["tokens"] / 1e3, "panel": name, "nats": row[domain]}
        for name, domain in (("prose (relearned)", "prose"), ("code (kept)", "code"))
        for row in rows
    ]
    png = curves(
        points, x="thousands", y="nats", by="method", panel="panel", control="scratch",
        xlabel="tokens of prose, thousands", ylabel="held-out nats per token",
    )  # fmt: skip
    found = summary(rows)
    caption = f"{config.narrowing.seeds} seed(s), the range as a band; at each row's best rate."
    told = publish(
        folder.directory,
        "How fast what was unlearned comes back",
        figures={"relearning": (png, "Loss on prose and code against tokens of prose", caption)},
        tables={"Before and after learning prose": found},
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
