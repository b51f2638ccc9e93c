"""Training on modular addition: seeds, fractions and weight decays in one program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcompress import check, tree
from jaxcompress.data import modular
from jaxcompress.models import Model, create
from jaxcompress.narrow import addition
from jaxcompress.narrow.entropy import accuracy, cross_entropy, mean_over
from jaxcompress.train import population
from jaxcompress.train.optimizer import decayed

__all__ = ["Addition", "Trained", "train_addition"]


@dataclasses.dataclass(frozen=True)
class Addition:
    """How networks are trained on modular addition; the defaults are the published values.

    Attributes:
      p: modulus, odd.
      width: of the residual stream.
      heads: of the layer.
      rate: of AdamW, with betas 0.9 and 0.98, constant after the warm-up. Biases are not
        decayed; the published AdamW decays them too.
      warmup: steps over which the rate rises from 0.
      steps: updates; every one sees all training pairs.
      every: steps between measurements.
    """

    p: int = 113
    width: int = 128
    heads: int = 4
    rate: float = 1e-3
    warmup: int = 10
    steps: int = 40_000
    every: int = 400


@dataclasses.dataclass(frozen=True)
class Trained:
    """Networks after training, and on the way.

    Attributes:
      model: configuration and forward; its parameters are those of the first member at the end.
      members: by name (`fraction`, `weight_decay`, `seed`) the value of each member.
      params: leaves (member, ...) at the end.
      history: `step` (time,), and `loss`, `train_accuracy`, `test_loss`, `test_accuracy`
        (time, member).
      snapshots: leaves (time, member, ...), or `None`.
    """

    model: Model
    members: dict[str, np.ndarray]
    params: Any
    history: dict[str, np.ndarray]
    snapshots: Any = None

    def chosen(self, member: int) -> np.ndarray:
        """(pair,) bool: which pairs a member was trained on."""
        p = self.model.config.vocab - 1
        fraction, seed = (self.members[name][member] for name in ("fraction", "seed"))
        return modular.split(p, float(fraction), int(seed))


def train_addition(
    config: Addition,
    *,
    fractions: Sequence[float] = (0.3,),
    weight_decays: Sequence[float] = (1.0,),
    seeds: Sequence[int] = (0,),
    snapshots: bool = False,
    together: int | None = None,
    checkpoints: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Trains a network for every combination of fraction, weight decay and seed, all in one vmap.

    Every member sees the first pairs of its seed's shuffled table, so many as the largest fraction
    needs; those beyond its own fraction are masked. Losses are in float32, in the form of
    `narrow.entropy`, where the published code needs float64.

    Args:
      config: what all members share.
      fractions: of the pairs that are trained on.
      weight_decays: per step and unit of the rate.
      seeds: of the start and of the choice of pairs.
      snapshots: whether to keep the parameters at every measurement.
      together: see `population.train`.
      checkpoints: likewise.
      progress: likewise.

    Raises:
      ValueError: for values out of range, see `Addition` and `data.modular`.

    Example:
      >>> small = Addition(p=5, width=4, heads=1, warmup=1, steps=4, every=2)
      >>> found = train_addition(small, fractions=(0.5, 0.8), progress=False)
      >>> found.history["test_loss"].shape, found.chosen(1).sum()
      ((2, 2), np.int64(20))
    """
    if check.integer("p", config.p, 3) % 2 == 0:
        raise check.fail("p", "an odd modulus", config.p)
    model = _network(config)
    members = population.grid(fraction=fractions, weight_decay=weight_decays, seed=seeds)
    counts = [modular.split(config.p, f, 0).sum() for f in members["fraction"]]
    hyper = {
        "weight_decay": members["weight_decay"].astype(np.float32),
        "order": np.stack([modular.order(config.p, int(seed)) for seed in members["seed"]]),
        "count": np.array(counts, np.int32),
    }
    keys = jnp.stack([jax.random.key(int(seed)) for seed in members["seed"]])
    params = jax.vmap(functools.partial(addition.redraw, model.params))(keys)
    loss, measure = _programs(model, config.p, int(max(counts)), snapshots)
    params, history = population.train(
        loss,
        params,
        functools.partial(_optimizer, config),
        keys=keys,
        hyper=hyper,
        steps=config.steps,
        every=config.every,
        measure=measure,
        together=together,
        checkpoints=checkpoints,
        about={"snapshots": snapshots} | {k: v for k, v in vars(config).items() if k != "steps"},
        name="modular addition",
        progress=progress,
    )
    kept = {k[1:]: v for k, v in history.items() if k.startswith("/")}
    plain = {k: v for k, v in history.items() if not k.startswith("/")}
    model = model.replace(params=tree.index(params, 0))
    return Trained(model, members, params, plain, tree.nest(kept) if snapshots else None)


def _programs(model: Model, p: int, most: int, snapshots: bool) -> tuple[Any, Any]:
    """The loss, on the first `most` pairs of a member's order, and the measurement on all."""
    table = modular.table(p)
    tokens, answers = jnp.asarray(table.tokens), jnp.asarray(table.answers)

    def seen(params: Any, pairs: Any) -> Any:
        last = jnp.full(len(pairs), tokens.shape[1] - 1)
        return model.apply(params, tokens[pairs], answer_position=last).logits

    def loss(params: Any, key: Any, hyper: Any) -> tuple[Any, dict[str, Any]]:
        pairs = hyper["order"][:most]
        losses = cross_entropy(seen(params, pairs), answers[pairs])
        return mean_over(losses, jnp.arange(most) < hyper["count"]), {}

    def measure(params: Any, key: Any, hyper: Any) -> dict[str, Any]:
        logits = seen(params, hyper["order"])
        expected, trained = answers[hyper["order"]], jnp.arange(p * p) < hyper["count"]
        right = accuracy(logits, expected)
        found = {
            "train_accuracy": mean_over(right, trained),
            "test_accuracy": mean_over(right, ~trained),
            "test_loss": mean_over(cross_entropy(logits, expected), ~trained),
        }
        # A slash tells parameters from measures in the history.
        kept = {f"/{k}": v for k, v in tree.paths(params).items()} if snapshots else {}
        return found | kept

    return loss, measure


def _network(config: Addition) -> Model:
    check.integer("warmup", config.warmup, 1)
    shape = addition.network(config.p, width=config.width, heads=config.heads)
    return create(shape, key=jax.random.key(0), name=f"addition modulo {config.p}")


def _optimizer(config: Addition, hyper: Any) -> optax.GradientTransformation:
    return optax.adamw(
        optax.linear_schedule(0.0, config.rate, config.warmup),
        b1=0.9,
        b2=0.98,
        weight_decay=hyper["weight_decay"],
        mask=decayed,
    )
