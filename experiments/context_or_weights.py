#!/usr/bin/env python
"""Where is it: in the context or in the weights? Attention and MLPs removed share by share.

    .venv/bin/python experiments/context_or_weights.py            the built-in teacher
    .venv/bin/python experiments/context_or_weights.py --quick    seconds

What is read in the prompt (induction, associative recall, IOI) and what is known by heart (facts)
are measured while heads or neurons are replaced by their means: in random order, and from the least
important up, as pruning removes them. Only prompts that the whole model answers count.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check, io, prune, runs, tasks
from jaxcompress import config as configs
from jaxcompress.ablate.removal import answered, remaining
from jaxcompress.models import Gates, Model
from jaxcompress.report.curves import curves
from jaxcompress.report.numbers import reached
from jaxcompress.report.page import publish
from jaxcompress.report.readings import falls
from jaxcompress.report.sections import Section

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("heads", "neurons")
ORDERS = ("random order", "least important first")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is removed and measured.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`.
      context: tasks whose answer follows from the prompt.
      recall: tasks whose answer is known by heart.
      facts: JSON file of facts, such as `known_1000.json`; left out, the built-in ones.
      shares: of the heads, or of the neurons, that are removed.
      criterion: from `prune.CRITERIA`, on all tasks together.
      count: prompts of each task; of those in context up to as many answered.
      seeds: random orders; of the pruning order, as many draws of prompts to score on.
      run: run folder.
    """

    model: str = "builtin:teacher"
    context: tuple[str, ...] = ("induction", "associative_recall", "ioi")
    recall: tuple[str, ...] = ("known_facts",)
    facts: str | None = None
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    criterion: str = "taylor_token"
    count: int = 62
    seeds: int = 2
    run: str = "runs/context_or_weights"


def run(config: Config, progress: bool = True) -> list[dict[str, Any]]:
    """One row for each task, kind, order, seed and share: the accuracy that is left."""
    model, rows = io.load(config.model), []
    prompts = answerable(model, config, 99)
    scored = [importance(model, config, seed) for seed in range(config.seeds)]
    asked = [(order, seed) for order in ORDERS for seed in range(config.seeds)]
    for kind in KINDS:
        gates = []
        for order, seed in asked:
            scores = np.asarray(getattr(scored[seed], kind))
            if order == ORDERS[0]:
                scores = np.random.default_rng(seed).random(scores.shape)
            one = Gates(**{kind: scores})
            gates += [getattr(prune.select(one, share), kind) for share in config.shares]
        for name, some in prompts.items():
            found = remaining(model, some, Gates(**{kind: np.stack(gates)}))
            numbers = iter(np.asarray(found).tolist())
            for order, seed in asked:
                row = {"task": name, "kind": kind, "order": order, "seed": seed}
                row |= {"prompts": len(some), "panel": f"{kind}, {order}"}
                rows += [row | {"share": s, "accuracy": next(numbers)} for s in config.shares]
    return rows


def answerable(model: Model, config: Config, seed: int) -> dict[str, tasks.Prompts]:
    """Of each task up to `count` prompts that the model answers."""
    found = {}
    for name in (*config.context, *config.recall):
        key, options = jax.random.key(seed), dict[str, Any](context=model.config.context)
        if name == "known_facts" and config.facts:
            options["path"] = config.facts
        many = config.count * (8 if name in config.context else 1)
        drawn = tasks.get(name, model.tokenizer, many, key, **options)
        if len(right := answered(model, drawn)[: config.count]):
            found[name] = right
    if not found:
        raise check.fail("model", "one that answers some prompt of the tasks", config.model)
    return found


def importance(model: Model, config: Config, seed: int) -> Gates:
    """Scores of heads and neurons on all tasks, each with the same weight."""
    how, given = {"loss": prune.answer, "progress": False}, answerable(model, config, seed)
    found = [prune.score(model, [some], config.criterion, **how) for some in given.values()]
    each = {kind: [np.asarray(getattr(one, kind)) for one in found] for kind in KINDS}
    return Gates(**{k: sum(v / max(v.mean(), 1e-30) for v in some) for k, some in each.items()})


def half(rows: list[dict[str, Any]], kind: str, order: str) -> str:
    """The share removed at which half of the answers are gone: median and range over seeds."""
    own = [row for row in rows if (row["kind"], row["order"]) == (kind, order)]
    seeds = itertools.groupby(own, lambda row: row["seed"])
    found = [falls([*of], share="share", value="accuracy", below=0.5) for _, of in seeds]
    return reached(found, "{:.0%}".format)


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "context_or_weights" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows = run(config)
    for row in rows:
        runs.log(folder, **row)
    png = curves(
        rows, x="share", y="accuracy", by="task", panel="panel",
        xlabel="share removed", ylabel="accuracy left",
    )  # fmt: skip
    cells = []
    for name in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == name]
        halves = [half(mine, kind, order) for kind in KINDS for order in ORDERS]
        where = "weights" if name in config.recall else "context"
        cells.append((name, where, str(mine[0]["prompts"]), *halves))
    columns = ("task", "where", "prompts", *(f"{k}, {o}" for k in KINDS for o in ORDERS))
    caption = f"Mean over {config.seeds} orders, the range as a band; means stand for what is gone."
    told = publish(
        folder.directory,
        f"In the context or in the weights of {config.model}?",
        figures={"accuracy": (png, "Accuracy against the share removed", caption)},
        tables={"Share removed at which half is left": Section(columns, tuple(cells))},
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
