#!/usr/bin/env python
"""Which predictions does a language model make with the same part of itself?

    .venv/bin/python experiments/quanta_discovery.py            the built-in teacher
    .venv/bin/python experiments/quanta_discovery.py --quick    seconds

Tokens that the model predicts well are clustered by the angle between the gradients of their
losses. In the built-in language the family that a token belongs to is known, so the clusters can
be checked; the control is the same network with random weights. Michaud et al. 2023, section 5.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check, io, runs
from jaxcompress import config as configs
from jaxcompress.models import Model, create
from jaxcompress.narrow import clustering, contexts, quanta
from jaxcompress.narrow import texts as sources
from jaxcompress.narrow.contexts import Contexts
from jaxcompress.report.blocks import agreement, blocks
from jaxcompress.report.page import Passage, publish

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is clustered.

    Attributes:
      model: Hugging Face id, directory or `builtin:<name>`.
      tokens: an .npz file whose `tokens` are rows of ids; `None` for the built-in language.
      pieces: a JSON file of (text, score) by id, for a model without a tokenizer.
      context: positions of a row that are looked at.
      families: of that language; tokens that the text before them determines.
      count: tokens to cluster.
      loss: nats; tokens that the model predicts worse are left out.
      repeats: whether tokens that end a repeated trigram are kept (left out in the paper).
      clusters: numbers of clusters; the first is shown.
      examples: contexts shown for each cluster.
      seeds: of the texts, the choice of tokens and the clustering; the first is shown.
      run: run folder.
    """

    model: str = "builtin:teacher"
    tokens: str | None = None
    pieces: str | None = None
    context: int = 48
    families: tuple[str, ...] = (
        "numerals", "number_words", "months", "ioi", "greater_than", "induction", "known_facts",
    )  # fmt: skip
    count: int = 490
    loss: float = 0.7
    repeats: bool = True
    clusters: tuple[int, ...] = (7, 14, 28)
    examples: int = 8
    seeds: int = 3
    run: str = "runs/quanta_discovery"


def choose(config: Config, model: Model, seed: int) -> Contexts:
    """Tokens that the model predicts well, equally many of each family."""
    if config.tokens is None:
        texts = sources.determined(
            model.tokenizer, config.families, config.count, jax.random.key(seed),
            context=config.context,
        )  # fmt: skip
    else:
        texts = sources.stored(config.tokens, context=config.context)
    return contexts.well_predicted(
        model.apply, model.params, texts,
        count=config.count, limit=config.loss, repeats=config.repeats, seed=seed,
    )  # fmt: skip


def run(
    config: Config, model: Model, chosen: Contexts, seed: int
) -> tuple[list[dict[str, Any]], Any, Any]:
    """Rows of agreement, the similarities of each network, and the labels that are shown."""
    control = create(model.config, key=jax.random.key(seed)).params
    rows, similar, shown = [], {}, np.zeros(0)
    for name, params in (("trained", model.params), ("random weights", control)):
        cosine = quanta.cosines(model.apply, params, chosen.rows, chosen.places)
        similar[name] = clustering.angular(cosine)
        for count in config.clusters:
            labels = clustering.clusters(similar[name], count, seed=seed)
            shown = labels if not len(shown) else shown
            truth = clustering.agreement(labels, chosen.families)._asdict()
            rows.append({"weights": name, "clusters": count, "seed": seed} | truth)
    return rows, similar, shown


def passages(config: Config, model: Model, chosen: Contexts, labels: Any) -> dict[str, Any]:
    """Contexts of every cluster with the predicted token marked."""
    found = {}
    pieces = json.loads(Path(config.pieces).read_text("utf-8")) if config.pieces else None
    words = sources.decoder(model.tokenizer, pieces)
    for cluster in range(labels.max() + 1):
        mine = np.flatnonzero(labels == cluster)
        kinds, counts = np.unique(np.array(chosen.families)[mine], return_counts=True)
        said = ", ".join(f"{n} {kind}" for kind, n in zip(kinds, counts, strict=True) if kind)
        texts = []
        for i in mine[:: max(1, len(mine) // config.examples)][: config.examples]:
            before, token = np.split(chosen.rows[i, : chosen.places[i] + 1], [-1])
            texts.append(Passage(words(before[-40:]), words(token)))
        found[f"Cluster {cluster + 1}: {len(mine)} tokens {said and f'({said})'}"] = texts
    return found


def main() -> None:
    """Clusters, writes the page, prints the table."""
    config = configs.from_args(Config, ROOT / "configs" / "quanta_discovery" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, 0, overwrite=True)
    model, known = io.load(config.model), config.tokens is None
    shown: Any = None
    rows: list[dict[str, Any]] = []
    for seed in range(check.integer("seeds", config.seeds, 1)):
        chosen = choose(config, model, seed)
        own, similar, labels = run(config, model, chosen, seed)
        for row in own:
            runs.log(folder, **row)
        shown = shown or (chosen, similar, labels)
        rows += own if known else []
    chosen, similar, labels = shown
    groups = chosen.families if known else [f"{label + 1:03d}" for label in labels]
    png = blocks(list(similar.items()), groups, unit="angular similarity of gradients")
    caption = "Tokens ordered by family or cluster; of the first seed."
    told = publish(
        folder.directory,
        f"Quanta of {config.model}",
        figures={"similarity": (png, "similarity of gradients", caption)},
        tables={"Clusters and task families": agreement(rows)},
        passages=passages(config, model, chosen, labels),
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
