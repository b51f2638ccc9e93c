#!/usr/bin/env python
"""How do trained networks add modulo p: which frequencies, and is it the clock or the pizza?

    .venv/bin/python experiments/read_modular.py data=DIRECTORY    published weights
    .venv/bin/python experiments/read_modular.py --quick           a tiny network, trained here

The directory has `modadd113/*.npz` (key frequencies; Nanda et al. 2023) and `clock_pizza/*.npz`
with their `config_*.json` (gradient symmetry, distance irrelevance; Zhong et al. 2023). Without
one, a small network is trained on the spot and read in the same way.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxcompress import check, io, runs
from jaxcompress import config as configs
from jaxcompress.data import modular
from jaxcompress.models import Model
from jaxcompress.narrow import symmetry
from jaxcompress.narrow.reading import reading
from jaxcompress.report import addition, addition_tables, lines
from jaxcompress.report.page import publish
from jaxcompress.train.addition import Addition, train_addition

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is read.

    Attributes:
      data: directory of trained weights; `None` trains a network, as `training` says.
      training: of that network, on a `fraction` of the pairs.
      fraction: likewise.
      triples: (a, b, c) for the gradient symmetry, or all that there are.
      seed: of the triples: the published shuffle.
      run: run folder.
    """

    data: str | None = None
    training: Addition = dataclasses.field(default_factory=Addition)
    fraction: float = 0.8
    triples: int = 100
    seed: int = 42
    run: str = "runs/read_modular"


def networks(config: Config) -> dict[str, Model]:
    """The networks that there are, by name."""
    if config.data is None:
        print("No data: a small network is trained. data=DIRECTORY reads modadd113, clock_pizza.")
        trained = train_addition(config.training, fractions=(config.fraction,))
        return {f"trained here, p = {config.training.p}": trained.model}
    found, root = {}, Path(config.data)
    for path in sorted((root / "modadd113").glob("*.npz")):
        found[f"modadd113 {path.stem}"] = io.from_transformer_lens(np.load(path))
    for path in sorted((root / "clock_pizza").glob("*.npz")):
        stored = json.loads((path.parent / f"config_{path.stem}.json").read_text("utf-8"))
        found[f"attention {stored['attn_coeff']}, {path.stem}"] = io.from_transformer_lens(
            np.load(path), layout="grokking", causal=False,
            attention_coefficient=stored["attn_coeff"],
        )  # fmt: skip
    if not found:
        got = f"{root} without modadd113/*.npz and clock_pizza/*.npz"
        raise check.fail("data", "a directory of trained networks", got)
    return found


def run(config: Config) -> list[dict[str, Any]]:
    """One row for each network; under `arrays` what is drawn."""
    rows = []
    for name, model in networks(config).items():
        equals = model.config.context == 3
        p = model.config.vocab - equals
        pairs = modular.table(p, equals=equals)
        triples = modular.triples(p, min(config.triples, p**3), config.seed)
        after = np.repeat(pairs.tokens[:1, 2:], len(triples), axis=0)
        tokens = np.concatenate([triples[:, :2], after], axis=1)
        found = reading(model.apply, model.params, pairs)
        cosines = symmetry.gradient_symmetry(model, tokens, triples[:, 2])
        similar = float(cosines.mean())
        irrelevant = float(symmetry.distance_irrelevance(found["logits"], p))
        clusters = np.bincount(found["neurons"].argmax(1), minlength=len(found["keys"]))
        keys = sorted(np.flatnonzero(found["keys"]), key=lambda k: -found["shares"][k])
        row = {
            "network": name,
            "p": p,
            "accuracy": found["accuracy"],
            "keys": {int(k) + 1: float(found["shares"][k]) for k in keys},
            "loss": found["loss"],
            "restricted_loss": found["restricted_loss"],
            "excluded_loss": found["excluded_loss"],
            "excluded_each": {int(k) + 1: float(found["excluded_each"][k]) for k in keys},
            "neurons": {int(k) + 1: int(clusters[k]) for k in keys},
            "gradient_symmetry": similar,
            "distance_irrelevance": irrelevant,
            "circularity": float(symmetry.circularity(model.params["embed"]["tokens"][:p])),
            "algorithm": symmetry.algorithm(similar, irrelevant),
        }
        rows.append(row | {"arrays": found})
    return rows


def main() -> None:
    """Reads, draws, writes the page, prints the tables."""
    config = configs.from_args(Config, ROOT / "configs" / "read_modular" / "default.yaml")
    folder = runs.start(ROOT / config.run, config, config.seed, overwrite=True)
    rows = run(config)
    bars, logits = [], []
    for row in rows:
        found = row.pop("arrays")
        runs.log(folder, **row)
        of = (found["shares"], found["keys"], found["neurons"])
        bars += addition.spectrum(row["network"], *of)
        logits.append((f"{row['network']}: {row['algorithm']}", found["logits"], row["p"]))
    pngs = {"frequencies": lines.bars(bars), "right": addition.right_logits(logits)}
    captions = {
        "frequencies": "Frequencies of the logits and of the neurons; key frequencies in colour.",
        "right": "The right answer's logit. Where it varies with the distance only, it is a pizza.",
    }
    tables = addition_tables.readings(rows)
    told = publish(
        folder.directory,
        "How trained networks add",
        figures={name: (pngs[name], name, caption) for name, caption in captions.items()},
        tables=tables,
        config=configs.to_dict(config),
    )
    print(told)


if __name__ == "__main__":
    main()
