#!/usr/bin/env python
"""How few edges carry a task, and do gradients find them as exact patching does?

    .venv/bin/python experiments/circuits_builtin.py            the built-in teacher
    .venv/bin/python experiments/circuits_builtin.py --quick    seconds

Edges are scored by each method and by exact patching on some prompts; the smallest circuit is
chosen on others; it and circuits of all sizes are run on others again. Random scores are the
control. Hanna et al. 2024; Mueller et al. 2025 (MIB: CPR ranks by help, CMD by size).
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import circuits, files, io, runs, tasks
from jaxcompress import config as configs
from jaxcompress.report.circuit import circuit_png, circuit_svg, svg_figure
from jaxcompress.report.curves import curves
from jaxcompress.report.page import experiment_page, figure
from jaxcompress.report.sections import Section
from jaxcompress.report.tables import table

ROOT = Path(__file__).resolve().parents[1]
RANDOM, WAYS = "random", ("noise", "denoise", "mean")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is scored and measured.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`.
      tasks: names from `tasks.NAMES`.
      methods: names from `circuits.METHODS`, or `random`.
      steps: of the integrals.
      target: faithfulness that the smallest circuit must reach.
      errors: by how many standard errors over the prompts that it is chosen on.
      count: prompts to score on, others to choose on, and others to measure on.
      patched: of those to score on, how many exact patching sees, and ranks are compared on.
      seed: of the prompts.
      run: run folder.
    """

    model: str = "builtin:teacher"
    tasks: tuple[str, ...] = ("numerals", "ioi", "greater_than", "induction", "months")
    methods: tuple[str, ...] = ("eap", "eap-ig", "exact", RANDOM)
    steps: int = 5
    target: float = 0.8
    errors: float = 1.64
    count: int = 64
    patched: int = 16
    seed: int = 0
    run: str = "runs/circuits_builtin"


def run(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """A row for each task and method, a row for each size of their circuits, and the circuits."""
    model, rows, sizes, found = io.load(config.model), [], [], {}
    asked = itertools.product(config.tasks, jax.random.split(jax.random.key(config.seed), 3))
    drawn = [tasks.get(task, model.tokenizer, config.count, key) for task, key in asked]
    drawn = iter(tasks.alike(drawn, model.config.context))
    for task in config.tasks:
        seen, second, other = next(drawn), next(drawn), next(drawn)
        few = jax.tree.map(lambda leaf: leaf[: config.patched], seen)
        names = [name for name in config.methods if name not in (RANDOM, "exact")]
        scored, alike = (
            {n: circuits.attribute(model, one, method=n, steps=config.steps) for n in names}
            for one in (seen, few)
        )
        exact = circuits.both_ways(model, few) if "exact" in config.methods else {}
        scored |= {f"exact, {name}": scores for name, scores in exact.items()}
        if RANDOM in config.methods:
            noise = np.random.default_rng(config.seed).standard_normal(model.edges.shape)
            first = next(iter(scored.values()))
            scored[RANDOM] = dataclasses.replace(first, values=noise, method=RANDOM)
        for name, scores in scored.items():
            target, errors = config.target, config.errors
            circuit, _ = circuits.smallest(model, second, scores, target, errors=errors)
            curve = circuits.faithfulness(model, other, scores)
            held = circuits.faithfulness(model, other, circuit)
            cmd = circuits.faithfulness(model, other, scores, signed=False).cmd
            about = {"task": task, "method": name}
            row = about | {"edges": len(circuit), "share": circuit.share, "cpr": curve.cpr}
            row |= {"held_out": float(held.faithfulness[0]), "error": float(held.error[0])}
            row, same = row | {"cmd": cmd}, alike.get(name, scores)
            rows.append(row | {k: circuits.rank_correlation(same, v) for k, v in exact.items()})
            found[f"{task}, {name}"] = circuit
            points = zip(curve.shares, curve.faithfulness, strict=True)
            sizes += [about | {"share": float(x), "faithfulness": float(y)} for x, y in points]
    return rows, sizes, found


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    ranks = ("n/a" if not (r := row.get(way)) else f"{r[0]:.2f} / {r[1]:.2f}" for way in WAYS)
    return (
        row["task"], row["method"], str(row["edges"]), f"{row['share']:.1%}",
        f"{row['held_out']:.1%} ± {1.96 * row['error']:.1%}", f"{row['cpr']:.3f}",
        f"{row['cmd']:.3f}", *ranks,
    )  # fmt: skip


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "circuits_builtin" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, config.seed, overwrite=True)
    rows, sizes, found = run(config)
    for row in rows:
        runs.log(folder, **row)
    png = curves(
        sizes, x="share", y="faithfulness", by="method", panel="task", control=RANDOM,
        xlabel="share kept, helpful first", ylabel="faithfulness", logx=True, target=config.target,
    )  # fmt: skip
    columns = ("task", "method", "edges", "share", "kept, held out", "CPR", "CMD",
               *(f"ranks: {way}" for way in WAYS))  # fmt: skip
    text = tuple(map(cells, rows))
    wanted = f"Smallest circuits that keep {config.target:.0%}"
    note = (
        "Held out: neither scored nor chosen on, 95 % interval. Ranks: Spearman's with exact "
        "patching, all edges / those with 1 % of the largest effect; noise corrupts one edge."
    )
    drawings = []
    for name, one in found.items():
        if name.endswith("eap-ig"):
            told = f"{name}: {len(one)} edges."
            drawings.append(svg_figure(circuit_svg(one), f"Circuit for {name}.", told))
            stem = name.split(",")[0]
            files.write_bytes(folder.directory / f"{stem}.png", circuit_png(one))
            one.save(folder.directory / f"{stem}.json")
    page = experiment_page(
        f"Circuits of {config.model}",
        figures=[figure(png, "Faithfulness by size", "Line across: the target."), *drawings],
        tables={wanted: Section(columns, text, note)},
        config=configs.to_dict(config),
    )
    files.write_bytes(folder.directory / "faithfulness.png", png)
    files.write_text(folder.directory / "report.html", page)
    print(f"{wanted}\n{table(columns, text)}\n{note}\n")
    print(f"Report: {folder.directory / 'report.html'}")


if __name__ == "__main__":
    main()
