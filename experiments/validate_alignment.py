#!/usr/bin/env python
"""Do alignment scores tell same mechanisms from different ones?

    .venv/bin/python experiments/validate_alignment.py [--quick]

Pairs whose truth is known: a model in other clothes, pruned copies, students that started from the
teacher's layers or not; addition by clock and by pizza; compiled programs. Nothing is fitted here.
"""

from __future__ import annotations

import dataclasses
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import config as configs
from jaxcompress import files, io, prune, runs, tasks
from jaxcompress.align import disguise, profile
from jaxcompress.align.separation import areas, case, nested, recovered
from jaxcompress.models import Gates, create
from jaxcompress.report.separation import page, pictures, tables
from jaxcompress.report.tables import table

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared.

    Attributes:
      teacher: Hugging Face id, directory or `builtin:<name>`.
      students: the first started from the teacher's layers, the last never saw the teacher.
      copied: those layers.
      tasks: names from `tasks.NAMES`.
      count: prompts of each.
      shares: of the teacher's heads that are removed, in one random order.
      data: folder with `modadd113`, `clock_pizza` and `tracr`; empty or absent: without these.
      modular: pairs of numbers.
      seed: of everything random.
      run: run folder.
    """

    teacher: str = "builtin:teacher"
    students: tuple[str, ...] = ("builtin:student", "builtin:from-scratch")
    copied: tuple[int, ...] = (0, 2)
    tasks: tuple[str, ...] = ("numerals", "ioi")
    count: int = 64
    shares: tuple[float, ...] = (0.1, 0.5, 0.9)
    data: str = "../shared/data"
    modular: int = 1000
    seed: int = 0
    run: str = "runs/validate_alignment"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """One row for each pair and task, with its truth and every score."""
    folder = ROOT / config.data
    more = bool(config.data) and folder.is_dir()
    return language(config) + (addition(config, folder) + programs(folder) if more else [])


def language(config: Config) -> list[dict[str, Any]]:
    """The teacher against its disguise, its pruned copies, the students, an untrained model."""
    key, teacher = jax.random.key(config.seed), io.load(config.teacher)
    models = {model.name: model for model in map(io.load, config.students)}
    first, last = next(iter(models)), list(models)[-1]
    for name, heads in nested(teacher.config, config.shares, config.seed).items():
        models[name] = prune.fold(teacher, Gates(heads=heads))
    models["disguised"] = disguise(teacher, key)
    models["untrained"] = create(models[first].config, key=jax.random.fold_in(key, 1))
    truth = {"disguised": "same", "untrained": "different", last: "different", first: "same"}
    rows, both = [], []
    drawn = [tasks.get(name, teacher.tokenizer, config.count, key) for name in config.tasks]
    for task, batch in zip(config.tasks, tasks.alike(drawn, teacher.config.context), strict=True):
        ours = profile(teacher, batch, progress=False)
        seen = {name: profile(model, batch, progress=False) for name, model in models.items()}
        both.append((ours, seen[first]))
        pairs = [("teacher", name, truth.get(name, "graded"), ours) for name in seen]
        pairs += [(first, last, "different", seen[first])] if first != last else []
        rows += [case("language", task, (a, b), t, one, seen[b]) for a, b, t, one in pairs]
    rows[0]["recovered"] = recovered(both, config.copied)
    return rows


def addition(config: Config, folder: Path) -> list[dict[str, Any]]:
    """Two seeds of one algorithm, a clock and a pizza, each also in disguise."""
    made, seen, told = {}, {}, {}
    for i in (0, 1):
        arrays = np.load(folder / f"modadd113/seed{i}.npz")
        made[f"seed {i}"] = io.from_transformer_lens(arrays), 113
    for name, file, uniform in (("clock", "l8k1hzciux", 1.0), ("pizza", "p99zdpze5l", 0.0)):
        arrays = np.load(folder / f"clock_pizza/{file}.npz")
        options: dict[str, Any] = {"causal": False, "attention_coefficient": uniform}
        made[name] = io.from_transformer_lens(arrays, layout="grokking", **options), 59
    for name, (model, p) in made.items():
        batch = tasks.addition.prompts(p, equals=p == 113, count=config.modular)
        both = {name: model, f"{name} disguised": disguise(model, jax.random.key(config.seed))}
        for label, one in both.items():
            seen[label] = profile(one, batch, progress=False)
            told[label] = tasks.addition.variables(batch, p)
    pairs = [(name, f"{name} disguised", "same") for name in made]
    pairs += [(*two, "same") for two in combinations(("seed 0", "seed 1", "clock"), 2)]
    pairs += [(name, "pizza", "different") for name in ("clock", "seed 0", "seed 1")]
    return [
        case("addition", "addition", (a, b), truth, seen[a], seen[b], (told[a], told[b]))
        for a, b, truth in pairs
    ]


def programs(folder: Path) -> list[dict[str, Any]]:
    """Compiled programs over three symbols and the padding: counting, length and sorting."""
    rows, seen = [], {}
    for name, output in (("hist", "hist_8"), ("length", "length_10"), ("sort_unique", "sort_1")):
        told = json.loads((folder / f"tracr/{name}.json").read_text())
        model = io.from_haiku(np.load(folder / f"tracr/{name}.npz"), told)
        model = io.read_out(model, told, output, 3, 6)
        batch = tasks.programs.prompts(lambda x, m=model: m.apply(m.params, x).logits, 4, 5)
        seen[name] = profile(model, batch, progress=False), batch, model
        other = profile(disguise(model, jax.random.key(0)), batch, progress=False)
        rows.append(case("programs", name, (name, "disguised"), "same", seen[name][0], other))
    for (a, (one, batch, _)), (b, (_, _, model)) in combinations(seen.items(), 2):
        rows.append(case("programs", a, (a, b), "different", one, profile(model, batch)))
    return rows


def main() -> None:
    """Runs, draws, writes the page, prints tables; last a line of JSON."""
    config = configs.from_args(Config, ROOT / "configs" / "validate_alignment" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, config.seed, overwrite=True)
    rows = run(config)
    for one in rows:
        runs.log(folder, **one)
    found = areas(rows)
    for name, png in pictures(rows, found).items():
        files.write_bytes(folder.directory / f"{name}.png", png)
    files.write_text(folder.directory / "report.html", page(rows, found, configs.to_dict(config)))
    for name, one in tables(rows, found).items():
        print(f"{name}\n{table(one.columns, one.rows)}\n")
    print(f"Report: {folder.directory / 'report.html'}")
    print(json.dumps({f"auc_{name}": round(value["auc"], 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
