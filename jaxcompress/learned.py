"""Pruning that is trained: gates that learn to shut, and weights that are pruned as they move."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check, train, tree
from jaxcompress.distill import losses
from jaxcompress.matrices import layout_of, matrices, restored
from jaxcompress.models import Gates, Model
from jaxcompress.prune import l0, patterns, regularizers, size, speaking, targets
from jaxcompress.prune.schedule import cubic
from jaxcompress.prune.scores import marked

__all__ = ["LearnConfig", "learned_scores", "movement"]

OPEN = 2.5  # log alpha at the start: nine of ten gates are then wide open


@dataclasses.dataclass(frozen=True)
class LearnConfig:
    """How gates or scores are trained.

    Attributes:
      steps: updates.
      batch: rows of an update.
      rate: of Adam for the log alphas of gates, or for weights in `movement`.
      multiplier_rate: of the ascent of the multipliers; for scores in `movement`.
      seed: of the gates' noise and the choice of rows.
    """

    steps: int = 200
    batch: int = 32
    rate: float = 0.1
    multiplier_rate: float = 1.0
    seed: int = 0


def learned_scores(
    model: Model,
    rows: Any,
    over: Sequence[str],
    sparsity: float,
    config: LearnConfig,
    *,
    progress: bool = True,
) -> Gates:
    """Log alphas of hard-concrete gates, trained with the weights held still.

    The loss is cross-entropy with the data plus the Lagrangian that holds the expected share of
    open gates of each kind at 1 - sparsity; the target falls over the first half of the steps.

    Args:
      model: its parameters stay as they are.
      rows: what it is to go on predicting: prompts or text in one pytree (`examples.together`).
      over: fields of `Gates` that are learned, such as heads and neurons.
      sparsity: share to be shut, in [0, 1).
      config: how.
      progress: whether to show a progress bar.

    Returns:
      Scores for `prune.select`: the higher, the more a component was kept open.

    Raises:
      ValueError: for a sparsity outside [0, 1), unknown fields, rates that are not positive, and
        encoders without a head.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> from jaxcompress.prune import Text
      >>> rows, config = Text(*jnp.ones((2, 2, 5), int)), LearnConfig(steps=1, batch=2)
      >>> learned_scores(load("builtin:student"), rows, ["heads"], 0.5, config).heads.shape
      (2, 8)

    Reference: Louizos et al. 2018 (arXiv 1712.01312), section 2; Xia et al. 2024
      (arXiv 2310.06694), section 2.1.
    """
    _check(model, sparsity, config)
    every = dataclasses.asdict(Gates.ones(model.config))
    for name in over:
        check.known("over", name, every)
    there = size.existing(model.config)
    start = {name: jnp.full(every[name].shape, OPEN) for name in over}
    zeros = {name: jnp.zeros(()) for name in over}
    params = {"gates": start, "multipliers": l0.Multipliers(zeros, zeros), **train.counter()}

    def loss(params: Any, batch: Any, key: Any, step: Any) -> tuple[Any, dict[str, Any]]:
        keys = jax.random.split(key, len(over))
        gates = {
            name: l0.sample_gate(k, params["gates"][name])
            for name, k in zip(over, keys, strict=True)
        }
        value = _nats(model, model.params, batch, Gates(**gates))
        target = 1 - sparsity * jnp.minimum(2 * step / config.steps, 1)
        for name in over:
            real = getattr(there, name)
            left = (l0.expected_open(params["gates"][name]) * real).sum() / real.sum()
            held = l0.Multipliers(*(one[name] for one in params["multipliers"]))
            value += l0.lagrangian(left, target, held)
        return value, {"target": target}

    rates = {"gates": ("adam", config.rate), "multipliers": ("ascent", config.multiplier_rate)}
    trained = _trained(params, loss, rates, rows, config, "gates", progress)
    return marked(model.config, Gates(**trained["gates"]))


def movement(
    model: Model,
    rows: Any,
    sparsity: float,
    config: LearnConfig,
    *,
    progress: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Movement pruning: weights and the scores that decide which of them stay, trained together.

    Every matrix of the blocks loses the share of its weights with the lowest scores, a share that
    rises along a cubic; a weight that moves away from 0 gains score. Weights are trained with Adam.

    Args:
      model: its parameters are the start.
      rows: what it is trained on, as for `learned_scores`.
      sparsity: share of each matrix at the end, in [0, 1).
      config: how; `rate` is that of the weights, `multiplier_rate` that of the scores.
      progress: whether to show a progress bar.

    Returns:
      The trained parameters with zeros where they are pruned, and the masks by path.

    Raises:
      ValueError: as `learned_scores`.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> from jaxcompress.prune import Text
      >>> rows, config = Text(*jnp.ones((2, 2, 5), int)), LearnConfig(steps=1, batch=2, rate=1e-3)
      >>> _, masks = movement(load("builtin:student"), rows, 0.5, config, progress=False)
      >>> round(float(masks["blocks/mlp/up/kernel"].mean()), 3)
      0.5

    Reference: Sanh et al. 2020 (arXiv 2005.07683), section 4.
    """
    _check(model, sparsity, config)
    rise = cubic(sparsity, max(1, config.steps - config.steps // 4))
    flat = tree.paths(model.params)
    pruned = [path for path in flat if path.startswith("blocks/") and layout_of(path) is not None]
    scores = {path: jnp.zeros_like(flat[path]) for path in pruned}

    def masked(params: Any, scores: Any, share: Any) -> tuple[Any, dict[str, Any]]:
        leaves, masks = tree.paths(params), {}
        for path in pruned:
            layout = layout_of(path)
            assert layout is not None  # selected
            view = matrices(scores[path], layout)
            mask = restored(patterns.per_tensor(view, share), scores[path], layout)
            masks[path] = jax.lax.stop_gradient(mask) > 0
            leaves[path] = leaves[path] * regularizers.straight_through(masks[path], scores[path])
        return jax.tree.unflatten(jax.tree.structure(params), leaves.values()), masks

    def loss(params: Any, batch: Any, key: Any, step: Any) -> tuple[Any, dict[str, Any]]:
        share = rise(step)
        weights, _ = masked(params["weights"], params["scores"], share)
        return _nats(model, weights, batch, None), {"sparsity": share}

    rates = {"weights": ("adam", config.rate), "scores": ("sgd", config.multiplier_rate)}
    params = {"weights": model.params, "scores": scores, **train.counter()}
    trained = _trained(params, loss, rates, rows, config, "movement", progress)
    final, masks = masked(trained["weights"], trained["scores"], sparsity)
    return final, masks


def _check(model: Model, sparsity: float, config: LearnConfig) -> None:
    speaking(model)
    if not 0 <= sparsity < 1:
        raise check.fail("sparsity", "a number in [0, 1)", sparsity)
    for name in ("rate", "multiplier_rate"):
        if not 0 < getattr(config, name) < math.inf:
            raise check.fail(name, "a number above 0", getattr(config, name))


def _nats(model: Model, params: Any, batch: Any, gates: Gates | None) -> jax.Array:
    labels, mask = targets(batch)
    out = model.apply(params, batch.tokens, attention_mask=batch.attention_mask, gates=gates)
    value, _ = losses.cross_entropy(out.logits, labels, mask)
    return value


def _trained(
    params: Any,
    loss: Callable[..., Any],
    rates: Any,
    rows: Any,
    config: LearnConfig,
    name: str,
    progress: bool,
) -> Any:
    optimizer = train.by_part(rates)
    state = train.create(params, optimizer, jax.random.key(config.seed))
    step = train.make_step(train.counted(loss), optimizer)
    done = train.fit(
        state, step, rows, config.steps, batch=config.batch, name=name, progress=progress
    )
    return done.params
