"""Which rank directions of an adapter do the work: exactly, one at a time, and by gradient.

Every direction of every edited matrix has a gate (see `directions`). Its effect is what closing
that gate alone takes from the whole adapter, or what opening it alone gives to the base; both are
one forward each, mapped over all directions. The gradient at the gates says the same to first
order with one backward: exactly where the metric is linear in the gates, else for small edits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.lora.adapters import Adapter
from jaxcompress.lora.answers import forward
from jaxcompress.lora.directions import Directions, gated, ones, strengths, turned
from jaxcompress.tasks.metrics import Metric, get_metric
from jaxcompress.tasks.prompts import Prompts

__all__ = ["Route", "measure", "rows", "trace"]

_CHUNK = 8  # forwards at once


@dataclasses.dataclass(frozen=True)
class Route:
    """What the rank directions of an adapter do; differences are in units of the metric.

    Attributes:
      adapter: the traced one, `turned`: direction i is the i-th singular one of its edit.
      base: (batch,) metric without the adapter.
      whole: (batch,) metric with it.
      removed: by path (layer, rank, batch): metric without this direction minus `whole`.
      kept: by path (layer, rank, batch): metric with this direction alone minus `base`.
      slope_removed: by path (layer, rank): minus the gradient of the mean metric at the gates of
        the whole adapter, which `removed` is to first order.
      slope_kept: by path (layer, rank): the gradient at the base, which `kept` is to first order.
      integrated: by path (layer, rank): the gradient averaged from the base to the whole adapter;
        these add up to mean(whole - base), up to the number of steps.
    """

    adapter: Adapter
    base: Any
    whole: Any
    removed: Directions
    kept: Directions
    slope_removed: Directions
    slope_kept: Directions
    integrated: Directions

    @property
    def loss(self) -> Directions:
        """(layer, rank) by path: what the mean metric loses without the direction."""
        return {path: -np.asarray(value).mean(axis=-1) for path, value in self.removed.items()}

    @property
    def gain(self) -> Directions:
        """(layer, rank) by path: what the mean metric gains from the direction alone."""
        return {path: np.asarray(value).mean(axis=-1) for path, value in self.kept.items()}

    def scores(self, seed: int = 0) -> dict[str, Directions]:
        """(layer, rank) by path, by each way to rank directions; more is more important.

        Two exact ones, two by gradient, and two controls that know nothing of the task.

        Args:
          seed: of the random control.
        """
        rng = np.random.default_rng(seed)
        return {
            "closed alone": self.loss,
            "opened alone": self.gain,
            "gradient": {path: -np.asarray(v) for path, v in self.slope_removed.items()},
            "integrated gradient": {path: np.asarray(v) for path, v in self.integrated.items()},
            "singular value": strengths(self.adapter),
            "random": {path: rng.random(value.shape) for path, value in self.loss.items()},
        }


def trace(
    model: Any,
    prompts: Prompts,
    adapter: Adapter,
    *,
    metric: str | Metric = "logit_difference",
    steps: int = 8,
    chunk: int = _CHUNK,
) -> Route:
    """Effects of all rank directions of an adapter on the answers to prompts.

    Takes two forwards per direction, and `steps` gradients. Memory is that of `chunk` forwards.

    Args:
      model: the base: `params`, and an `apply` that takes `lora`.
      prompts: with right and wrong answers, such as those of the changed rule.
      adapter: LoRA, rsLoRA or PiSSA; turned here.
      metric: name or function, see `tasks.metrics`.
      steps: points of the integrated gradient, midpoint rule.
      chunk: forwards at once.

    Raises:
      ValueError: for DoRA, an unknown metric, an adapter of another model, no steps.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> adapter = init(model.params, ["*/up/kernel"], rank=2, alpha=2, key=jax.random.key(1))
      >>> ones = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(ones, 2 * ones, ones, 4 * ones[:, 0], ones[:, :1], 2 * ones[:, :1])
      >>> trace(model, prompts, adapter).removed["blocks/mlp/up/kernel"].shape
      (2, 2, 3)

    Reference: gates as in Michel et al. 2019 (arXiv 1905.10650), section 2.3; integrated gradients
    of Sundararajan et al. 2017 (arXiv 1703.01365), equation 1.
    """
    check.integer("steps", steps, 1)
    adapter = turned(adapter)
    chosen = get_metric(metric)
    args = (model.params, jax.tree.map(jnp.asarray, prompts), adapter)
    names = {"apply": model.apply, "metric": chosen}
    found = _exact(*args, chunk=chunk, **names)
    points = (jnp.arange(steps) + 0.5) / steps
    slopes = _slopes(*args, jnp.concatenate([jnp.array([0.0, 1.0]), points]), **names)
    mean = {path: value[2:].mean(axis=0) for path, value in slopes.items()}
    return Route(
        adapter,
        *found,
        slope_removed={path: -value[1] for path, value in slopes.items()},
        slope_kept={path: value[0] for path, value in slopes.items()},
        integrated=mean,
    )


@functools.partial(jax.jit, static_argnames=("apply", "metric", "chunk"))
def _exact(params, prompts, adapter, *, apply, metric, chunk):
    """Metrics without and with the adapter, (batch,), removed and kept."""
    everything = ones(adapter)
    plain = forward(apply, params, prompts, None)

    def score(gates: Directions) -> jax.Array:
        logits = forward(apply, params, prompts, gated(adapter, gates))
        return metric(logits, prompts, plain)

    def pair(where: jax.Array) -> tuple[jax.Array, jax.Array]:
        one = _at(where, everything)
        return score(jax.tree.map(lambda x: 1 - x, one)), score(one)

    base, whole = metric(plain, prompts, plain), score(everything)
    count = sum(leaf.size for leaf in everything.values())
    removed, kept = jax.lax.map(pair, jnp.arange(count), batch_size=chunk)
    removed, kept = removed - whole[None], kept - base[None]
    return base, whole, _apart(removed, everything), _apart(kept, everything)


def _at(where: jax.Array, like: Directions) -> Directions:
    """Gates of which only number `where` is open."""
    found, start = {}, 0
    for path, leaf in like.items():
        places = start + jnp.arange(leaf.size).reshape(leaf.shape)
        found[path], start = (places == where).astype(jnp.float32), start + leaf.size
    return found


def _apart(values: jax.Array, like: Directions) -> Directions:
    """(direction, batch) by path and shape."""
    found, start = {}, 0
    for path, leaf in like.items():
        part = values[start : start + leaf.size]
        found[path], start = part.reshape(*leaf.shape, -1), start + leaf.size
    return found


@functools.partial(jax.jit, static_argnames=("apply", "metric"))
def _slopes(params, prompts, adapter, points, *, apply, metric):
    """Gradients of the mean metric with all gates at each of the points, stacked."""
    everything = ones(adapter)
    plain = forward(apply, params, prompts, None)

    def mean(gates: Directions) -> jax.Array:
        logits = forward(apply, params, prompts, gated(adapter, gates))
        return metric(logits, prompts, plain).mean()

    def slope(point: jax.Array) -> Directions:
        return jax.grad(mean)(jax.tree.map(lambda x: point * x, everything))

    return jax.lax.map(slope, points)


def measure(
    model: Any,
    prompts: Prompts,
    adapter: Adapter,
    gates: Mapping[str, Any],
    *,
    metrics: Sequence[str | Metric] = ("accuracy",),
    chunk: int = _CHUNK,
) -> jax.Array:
    """(gates, metrics) means for the model with parts of an adapter, mapped over the gates.

    Args:
      model: as in `trace`.
      prompts: as in `trace`.
      adapter: from `turned`.
      gates: as `directions.ones`, with a leading axis.
      metrics: names or functions, see `tasks.metrics`.
      chunk: forwards at once.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> adapter = init(model.params, ["*/up/kernel"], rank=2, alpha=2, key=jax.random.key(1))
      >>> row = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(row, 2 * row, row, 4 * row[:, 0], row[:, :1], 2 * row[:, :1])
      >>> measure(model, prompts, adapter, {"blocks/mlp/up/kernel": np.zeros((4, 2, 2))}).shape
      (4, 1)
    """
    stacked = {path: jnp.asarray(gate, jnp.float32) for path, gate in gates.items()}
    args = (model.params, jax.tree.map(jnp.asarray, prompts), adapter, stacked)
    chosen = tuple(get_metric(metric) for metric in metrics)
    return _measure(*args, apply=model.apply, metrics=chosen, chunk=chunk)


@functools.partial(jax.jit, static_argnames=("apply", "metrics", "chunk"))
def _measure(params, prompts, adapter, stacked, *, apply, metrics, chunk):
    plain = forward(apply, params, prompts, None)

    def one(gates: Directions) -> jax.Array:
        logits = forward(apply, params, prompts, gated(adapter, gates))
        return jnp.stack([metric(logits, prompts, plain).mean() for metric in metrics])

    return jax.lax.map(one, stacked, batch_size=chunk)


def rows(route: Route) -> list[dict[str, Any]]:
    """One row per direction for tables and logs, the largest loss first.

    Example:
      >>> one = {"up": jnp.array([[[0.5]]])}
      >>> slope = {"up": jnp.array([[0.25]])}
      >>> nothing = Adapter({}, ())
      >>> route = Route(nothing, jnp.zeros(1), jnp.ones(1), one, one, slope, slope, slope)
      >>> rows(route)[0]["removed"]
      0.5
    """
    found = []
    for path, value in route.removed.items():
        for place in np.ndindex(*np.asarray(value).shape[:-1]):
            row = {
                "path": path,
                "layer": int(place[0]) if len(place) > 1 else -1,
                "direction": int(list(place)[-1]),
                "removed": float(np.mean(value[place])),
                "kept": float(np.mean(route.kept[path][place])),
            }
            for name in ("slope_removed", "slope_kept", "integrated"):
                row[name] = float(getattr(route, name)[path][place])
            found.append(row)
    return sorted(found, key=lambda row: row["removed"])
