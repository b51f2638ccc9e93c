#!/usr/bin/env python
"""A Python-only model out of a general one: which way costs least, and what is forgotten?

    .venv/bin/python experiments/python_only.py            code and prose of the standard library
    .venv/bin/python experiments/python_only.py --quick    seconds

A general model is trained on code and prose; then models of several sizes are made for code alone,
each with equally many tokens of code: attribution pruning and recovery, random pruning and
recovery, group lasso, pruning and recovery, distillation, training from scratch. Michaud et al.
2025, section 4. The models stay in `narrowing.work`, where relearning.py finds them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxcompress import config as configs
from jaxcompress import runs
from jaxcompress.narrowing import Narrowing, Network, narrow, read
from jaxcompress.report.curves import curves
from jaxcompress.report.numbers import reached, spread
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is made and measured.

    Attributes:
      narrowing: the general model, the ways and the sizes.
      run: run folder.
    """

    narrowing: Narrowing = dataclasses.field(default_factory=Narrowing)
    run: str = "runs/python_only"


def run(config: Config, progress: bool = True) -> tuple[list[dict[str, Any]], str]:
    """One row for each model and measurement, and what the corpus holds."""
    texts = read(config.narrowing)
    networks = narrow(config.narrowing, texts, progress=progress)
    return [row for one in networks for row in measurements(one)], texts.report


def measurements(network: Network) -> list[dict[str, Any]]:
    """Rows of one model; `last` marks the one at the end of its training."""
    inner, whole = network.parameters
    size = "neurons -{:.0%}, channels -{:.0%}".format(*network.size)
    label = {"method": network.method, "size": size, "seed": network.seed}
    label |= {"inner": inner, "parameters": whole}
    last = len(network.history) - 1
    return [label | row | {"last": i == last} for i, row in enumerate(network.history)]


def needed(rows: list[dict[str, Any]], method: str, size: str) -> str:
    """Thousands of tokens until the loss on code is where training from scratch ends."""
    found = []
    for seed in {row["seed"] for row in rows}:
        chosen = [r for r in rows if r["size"] == size and r["seed"] == seed]
        ends = [r["code"] for r in chosen if r["method"] == "scratch" and r["last"]]
        own = [(r["tokens"], r["code"]) for r in chosen if r["method"] == method]
        found.append(min((t / 1e3 for t, code in own if ends and code <= ends[0]), default=None))
    return reached(found, "{:.0f}".format)


def frontier(rows: list[dict[str, Any]]) -> bytes:
    """Loss after training against size: on code by both counts of parameters, and on prose."""
    points = []
    for row in rows:
        if row["last"] and row["method"] not in ("general", "full"):
            for name, x, y in (
                ("code, without embedding", "inner", "code"),
                ("code, with embedding", "parameters", "code"),
                ("prose (forgotten), without embedding", "inner", "prose"),
            ):
                points.append(row | {"panel": name, "x": row[x] / 1e3, "y": row[y]})
    return curves(
        points, x="x", y="y", by="method", panel="panel", control="scratch",
        xlabel="parameters, thousands", ylabel="held-out nats per token",
    )  # fmt: skip


def course(rows: list[dict[str, Any]]) -> bytes:
    """Loss on code against tokens of code, one panel for each size."""
    points = [
        row | {"x": row["tokens"] / 1e3} for row in rows if row["method"] not in ("general", "full")
    ]
    return curves(
        points, x="x", y="code", by="method", panel="size", control="scratch",
        xlabel="tokens of code, thousands", ylabel="held-out nats per token",
    )  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> Section:
    """Sizes, losses (mean and range over seeds) and tokens of every model at its end."""
    ends, cells = [row for row in rows if row["last"]], []
    for size, method in dict.fromkeys((row["size"], row["method"]) for row in ends):
        chosen = [r for r in ends if (r["size"], r["method"]) == (size, method)]
        counts = [f"{np.mean([r[k] for r in chosen]) / 1e3:.0f}" for k in ("inner", "parameters")]
        losses = [spread([r[k] for r in chosen]) for k in ("code", "prose")]
        tokens = "" if method in ("general", "full") else needed(rows, method, size)
        cells.append((method, size, *counts, *losses, tokens))
    columns = ("method", "removed", "k parameters", "with embedding", "code", "prose", "k tokens")
    note = (
        "Removed: shares of neurons and of residual channels. Losses: held-out nats per token."
        " Tokens until the loss on code is where training from scratch ends, at the measured "
        "points; those of the general model are counted for none. full: all of the general model, "
        "trained on code for as many tokens."
    )
    return Section(columns, tuple(cells), note)


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "python_only" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows, corpus = run(config)
    for row in rows:
        runs.log(folder, **row)
    seeds = f"{config.narrowing.seeds} seed(s), the range as a band; one general model."
    told = publish(
        folder.directory,
        "A Python-only model out of a general one",
        figures={
            "frontier": (frontier(rows), "Loss against size", f"At the end of training; {seeds}"),
            "course": (course(rows), "Loss against tokens", f"By shares removed; {seeds}"),
        },
        tables={"Models at equal tokens of code": summary(rows)},
        summary=[corpus],
        config=configs.to_dict(config),
    )
    print(f"{corpus}\n\n{told}")


if __name__ == "__main__":
    main()
