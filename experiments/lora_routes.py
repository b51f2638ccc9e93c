#!/usr/bin/env python
"""Where does a fine-tuned rule run? The adapter that teaches "go on by two", taken apart.

    .venv/bin/python experiments/lora_routes.py            the built-in teacher
    .venv/bin/python experiments/lora_routes.py --quick    seconds

An adapter teaches the numerals to go on by two (1 2 3 4 -> 6). Each rank direction is closed and
opened by itself; the strongest are transplanted alone and measured on other prompts.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import config as configs
from jaxcompress import io, lora, runs, tasks, train
from jaxcompress.data.language import evaluation, held_out
from jaxcompress.distill import losses
from jaxcompress.lora import directions
from jaxcompress.lora.trace import measure
from jaxcompress.models import Model
from jaxcompress.report.curves import curves
from jaxcompress.report.page import publish
from jaxcompress.report.routes import carried_table, route_map, strongest_directions

ROOT, ENOUGH = Path(__file__).resolve().parents[1], 0.9  # of the behaviour


@dataclasses.dataclass(frozen=True)
class Config:
    """What is taught and taken apart.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`; its tokenizer must know the numerals.
      unchanged: tasks that are trained on as they are, so that only the rule changes.
      targets: globs of the edited parameters.
      rank: of every matrix.
      steps: updates.
      rate: highest learning rate.
      count: prompts of each task to train on.
      traced: prompts to trace on, and as many others to measure on.
      shares: of the directions that are transplanted.
      seeds: repeats, with other adapters.
      run: run folder.
    """

    model: str = "builtin:teacher"
    unchanged: tuple[str, ...] = ("months", "ioi")
    targets: tuple[str, ...] = ("*/attn/*/kernel", "*/mlp/*/kernel")
    rank: int = 8
    steps: int = 200
    rate: float = 0.003
    count: int = 512
    traced: int = 32
    shares: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0)
    seeds: int = 2
    run: str = "runs/lora_routes"


def teach(model: Model, config: Config, seed: int, progress: bool) -> lora.Adapter:
    """The adapter of one seed."""
    start, data, draw = jax.random.split(jax.random.key(seed), 3)
    drawn = [tasks.texts(name, config.count, data) for name in config.unchanged]
    drawn = sum(drawn, tasks.texts("numerals", config.count, data, ahead=2))
    examples = tasks.encode([p for p in drawn if not held_out(p.clean)], model.tokenizer)
    adapter = lora.init(model.params, config.targets, rank=config.rank, alpha=16.0, key=start)

    def loss(trained: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        logits = model.apply(
            model.params, batch.tokens, attention_mask=batch.attention_mask,
            answer_position=batch.answer_position, lora=lora.with_trained(adapter, trained),
        ).logits  # fmt: skip
        one = np.ones((len(logits), 1), bool)
        return losses.cross_entropy(logits[:, None], batch.correct[:, :1], one)[0], {}

    values = train.OptimizerConfig(rate=config.rate, warmup=0, weight_decay=0.0)
    optimizer = train.optimizer(values, config.steps)
    step = train.make_step(loss, optimizer)
    state = train.create(lora.trainable(adapter), optimizer, draw)
    state = train.fit(state, step, examples, config.steps, batch=32, name="lora", progress=progress)
    return lora.with_trained(adapter, state.params)


def run(config: Config, progress: bool = True) -> tuple[list[dict[str, Any]], list[lora.Route]]:
    """Rows for each seed, criterion and share: what the transplanted part carries; the routes."""
    model, rows, routes = io.load(config.model), [], []
    for seed in range(config.seeds):
        adapter = teach(model, config, seed, progress)
        seen, other = prompts(model, config, seed)
        routes += [lora.trace(model, seen, adapter)]
        turned, scores = routes[-1].adapter, routes[-1].scores(seed)
        everything = directions.size(turned)
        asked = [(name, share) for name in scores for share in (0.0, *config.shares)]
        keep = [lora.strongest(scores[n], round(share * everything[0])) for n, share in asked]
        gates = {path: np.stack([one[path] for one in keep]) for path in keep[0]}
        found = measure(model, other, turned, gates, metrics=("accuracy", "logit_difference"))
        right, nats = np.asarray(found).T
        whole = len(config.shares)  # a share of 1
        for i, (name, share) in enumerate(asked):
            row = {"seed": seed, "criterion": name, "share": share, "accuracy": float(right[i])}
            row["parameters"] = directions.size(turned, keep[i])[1] / everything[1]
            for key, value in (("behaviour", right), ("difference", nats)):
                row[key] = float((value[i] - value[0]) / (value[whole] - value[0] or np.nan))
            rows.append(row)
    return rows, routes


def prompts(model: Model, config: Config, seed: int) -> tuple[tasks.Prompts, tasks.Prompts]:
    """Prompts of the changed rule that were not trained on: to trace on, and to measure on."""
    both = evaluation("numerals", model.tokenizer, 2 * config.traced, jax.random.key(seed), ahead=2)
    return both[::2], both[1::2]


def main() -> None:
    """Runs, draws, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "lora_routes" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    rows, routes = run(config)
    for row in rows:
        runs.log(folder, **row)
    model = io.load(config.model)
    png = curves(
        rows, x="share", y="difference", by="criterion", control="random",
        xlabel="share of rank directions transplanted", ylabel="share of the behaviour carried",
    )  # fmt: skip
    route = route_map(model, routes[0], prompts(model, config, 0)[0])
    found = carried_table(rows, enough=ENOUGH)
    smallest = f"Least share of the adapter that carries {ENOUGH:.0%} of what it changes"
    told = publish(
        folder.directory,
        f"Where the rule 'go on by two' runs in {config.model}",
        figures={
            "carried": (png, "Logit difference carried", "Mean over adapters, range as a band."),
            "route": (route, "Where the route of the first adapter runs", ""),
        },
        tables={smallest: found, "Strongest directions": strongest_directions(model, routes[0])},
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
