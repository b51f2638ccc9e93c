#!/usr/bin/env python
"""Does compression entangle features? Dictionaries of a model and of what was made of it.

    .venv/bin/python experiments/entangled_features.py            the built-in teacher
    .venv/bin/python experiments/entangled_features.py --quick    seconds

Sparse autoencoders learn the residual stream at the same relative depth. With as many features
active: how much of the stream and of the loss is explained, how many tasks has a feature, and is
the teacher's still there? The floor is an untrained model, the ceiling the teacher from another
start. Gao et al. 2024 (top-k); Bricken et al. 2023 (shared features).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check, examples, finetune, io, prune, runs, sae, tree
from jaxcompress import config as configs
from jaxcompress.compress import PruneConfig, prune_gates
from jaxcompress.models import Model, create
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.sections import Section
from jaxcompress.train.dictionaries import Dictionary, fit_dictionaries

ROOT = Path(__file__).resolve().parents[1]
UNTRAINED = "untrained"
MEASURES = {
    "explained": "variance explained",
    "recovered": "loss recovered",
    "tasks": "effective tasks of a feature",
    "shared": "correlation with the teacher's features",
}
COLUMNS = ("explained", "dead", "loss", "spliced", "recovered", "tasks", "shared")


@dataclasses.dataclass(frozen=True)
class Config:
    """Whose stream is looked at, and with what.

    Attributes:
      teacher: Hugging Face id, directory or `builtin:<name>`; `students`: of its vocabulary.
      shares: of heads and neurons that are pruned from the teacher.
      prune: how; its sparsity is set to each share.
      recover: how a pruned model is trained again by its teacher.
      depth: share of the layers before the stream.
      dictionary: how dictionaries are learned; its `k` is set to each of `active`.
      active: features of a token; `seeds`: dictionaries of each stream.
      data: prompts to learn on; as many others are measured on. `run`: run folder.
    """

    teacher: str = "builtin:teacher"
    students: tuple[str, ...] = ("builtin:student", "builtin:from-scratch")
    shares: tuple[float, ...] = (0.5,)
    prune: PruneConfig = dataclasses.field(default_factory=PruneConfig)
    recover: finetune.DistillConfig = dataclasses.field(default_factory=finetune.DistillConfig)
    depth: float = 0.5
    dictionary: Dictionary = dataclasses.field(default_factory=Dictionary)
    active: tuple[int, ...] = (4, 8, 16)
    seeds: int = 3
    data: examples.Data = dataclasses.field(default_factory=examples.Data)
    run: str = "runs/entangled_features"


def models(config: Config) -> Iterator[tuple[str, Callable[[], Model]]]:
    """Names, and what makes each: the teacher first, the untrained one last."""
    teacher = io.load(config.teacher)
    yield config.teacher, lambda: teacher
    for name in config.students:
        yield name, functools.partial(io.load, name)
    for share in config.shares:
        how = dataclasses.replace(config.prune, sparsity=share)
        small = prune.shrink(teacher, prune_gates(teacher, how, progress=False))
        yield f"pruned {share:.0%}", lambda small=small: small
        again = functools.partial(finetune.distilled, teacher, small, config.recover)
        yield f"recovered {share:.0%}", again
    random = functools.partial(create, teacher.config, key=jax.random.key(1))
    yield UNTRAINED, functools.partial(random, tokenizer=teacher.tokenizer)


def run(config: Config, folder: runs.Run) -> list[dict[str, Any]]:
    """One row for each model, number of active features and seed."""
    made, names = dict(models(config)), config.data.tasks
    keys = jax.random.split(jax.random.key(0), check.integer("seeds", config.seeds, 2))

    @functools.cache
    def looked(name: str) -> tuple[Any, ...]:
        """Model, layer, its stream on each task to learn and to measure on, held-out batches."""
        model, of = made[name](), [dataclasses.replace(config.data, tasks=(t,)) for t in names]
        layer = round(config.depth * model.config.layers)
        seen = [examples.batches(model, data)[0] for data in of]
        held = [examples.batches(model, data, held_out=True)[0] for data in of]
        streams = ([sae.activations.stream(model, b, layer) for b in some] for some in (seen, held))
        return model, layer, *streams, [batch for some in held for batch in some]

    @functools.cache
    def learned(name: str, k: int) -> list[Any]:
        how, x = dataclasses.replace(config.dictionary, k=k), np.concatenate(looked(name)[2])
        return tree.unstack(fit_dictionaries(x, how, keys, name=f"{name}, {k} active"))

    def measured(name: str, k: int, seed: int) -> dict[str, float]:
        model, layer, seen, held, batches = looked(name)
        one, x = learned(name, k)[seed], np.concatenate(held)
        found = sae.quality.quality(one, x)
        mean = np.concatenate(seen).mean(axis=0)
        left = sae.recovery.recovered(model, one, layer, batches, prune.answer, mean=mean)
        # A dictionary from another start, so that the teacher is not compared with itself.
        first = learned(config.teacher, k)[(seed + 1) % config.seeds]
        theirs = np.concatenate(looked(config.teacher)[3])
        alike = sae.geometry.correlations(first, one, theirs, x)
        jobs = float(np.nanmean(sae.entanglement.groups_per_feature(one, held)))
        shared = sae.geometry.shared(alike, alive=alike.any(axis=1))
        row = {"explained": found.explained, "dead": found.dead, "tasks": jobs, "shared": shared}
        return row | {"recovered": left.share, "loss": left.clean, "spliced": left.spliced}

    return [
        runs.remember(folder, {"model": name, "k": k, "seed": seed}, measured, name, k, seed)
        for name in made for k in config.active for seed in range(config.seeds)
    ]  # fmt: skip


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "entangled_features" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True, resume=True)
    rows, cells = run(config, folder), []
    for name, k in dict.fromkeys((row["model"], row["k"]) for row in rows):
        of = [row for row in rows if (row["model"], row["k"]) == (name, k)]
        cells.append((name, str(k), *(f"{np.mean([row[m] for row in of]):.3g}" for m in COLUMNS)))
    caption = f"Mean over {config.seeds} dictionaries, with the range as a band."
    figures = {
        y: (curves(rows, x="k", y=y, by="model", control=UNTRAINED, ylabel=label,
                   xlabel="active features of a token"), label, caption)
        for y, label in MEASURES.items()
    }  # fmt: skip
    title, asked = f"Features of {config.teacher} and descendants", configs.to_dict(config)
    note = "Losses in nats, of the answers: as it is, and with the stream's reconstruction."
    tables = {"Means over dictionaries": Section(("model", "k", *COLUMNS), tuple(cells), note)}
    print(publish(folder.directory, title, figures=figures, tables=tables, config=asked))


if __name__ == "__main__":
    main()
