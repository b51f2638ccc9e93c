"""How much each edge or node matters: gradients times differences, integrated or not, or exact."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.ablate.forward import validated
from jaxcompress.circuits.forward import Pairs, measure, size
from jaxcompress.circuits.graph import Graph
from jaxcompress.circuits.scores import Scores
from jaxcompress.models.gates import Edits, Gates
from jaxcompress.tasks.metrics import Metric, get_metric, kl
from jaxcompress.tasks.prompts import Prompts
from jaxcompress.types import Senders

__all__ = ["METHODS", "attribute", "both_ways"]

METHODS = ("eap", "eap-ig", "eap-ig-activations", "clean-corrupted", "exact")
"""Where the gradient is taken: at the clean run; along the inputs from corrupted to clean; along
every sender's own activation; at both ends; or no gradient, one run per edge."""
NEURON_METHODS = ("eap", "eap-ig", "clean-corrupted")


def attribute(
    model: Any,
    prompts: Prompts,
    *,
    level: Literal["edge", "node", "neuron"] = "edge",
    method: str = "eap-ig",
    steps: int = 5,
    metric: str | Metric = "logit_difference",
    replacement: Literal["resample", "mean"] = "resample",
    per_position: bool = False,
    batch: int | None = None,
    memory: int | None = None,
    progress: bool | None = None,
) -> Scores:
    """Scores every edge, node or neuron by what the metric loses when it carries another run.

    An edge from u to v scores (what u writes in the other run - what it writes) . (gradient of the
    metric at what v reads), summed over positions; a node the sum over its edges. Gradients are
    taken with respect to activations, never to parameters.

    Args:
      model: with `params`, `config` and `edges`; for neurons, with `apply`.
      prompts: clean and corrupted.
      level: what is scored.
      method: one of `METHODS`; neurons have `eap`, `eap-ig` and `clean-corrupted`.
      steps: of the integrals; gradients are taken at corrupted + k / steps (clean - corrupted),
        k = 0 ... steps - 1.
      metric: a name or function of `tasks.metrics`. KL has no slope at the clean run, so `eap`
        gives zeros for it.
      replacement: what an edge carries instead, see `forward.Pairs`; of neurons, `resample`.
      per_position: score each edge or node at each position, counted in real tokens; aligned
        prompts only; not neurons, and not nodes by `exact`.
      batch: prompts at a time; `None` chooses by memory.
      memory: bytes of activations that a step may take; `None`: 1 GiB, or half of what an
        accelerator has free. The products of senders and receivers are formed for few positions and
        one layer at a time, so no array holds all senders or receivers at all positions.
      progress: show a bar for `exact`; `None`: on a terminal.

    Returns:
      `Scores`.

    Raises:
      ValueError: for unknown names, what a level does not have, prompts that do not fit, too
        little memory.

    Reference:
      Syed et al. 2023 (arXiv 2310.10348, EAP); Hanna et al. 2024 (arXiv 2403.17806, EAP-IG);
      Mueller et al. 2025 (arXiv 2504.13151, MIB: the variants); Nanda 2023, attribution patching.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=1, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> ones = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(ones, 2 * ones, ones, 4 * ones[:, 0], ones[:, :1], 2 * ones[:, :1])
      >>> attribute(model, prompts, steps=2).values.shape
      (8, 4)
    """
    check.known("level", level, ("edge", "node", "neuron"))
    check.known("method", method, METHODS)
    check.integer("steps", steps, 1)
    _refuse(level, method, replacement, per_position)
    function = get_metric(metric)
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
    name = "kl" if function is kl else name
    graph = Graph.of(model.config)
    prompts = validated(model.config, prompts)
    length = prompts.tokens.shape[1]
    gradient = method != "exact"
    fits = size(model.config, length, memory, backward=gradient)
    batch = min(fits if batch is None else check.integer("batch", batch, 1), len(prompts))
    found = Pairs(model, prompts, function, replacement=replacement, batch=batch)
    settings = {"metric": function, "memory": memory, "progress": progress}
    if level == "neuron":
        values = _neurons(model, found, method, steps, function)
    elif gradient:
        values = _edges(model, found, method, steps, per_position, function)
    elif level == "node":
        values = _exact(model, found, _node_masks(graph), settings)
    else:
        places = np.argwhere(graph.valid)
        values = _exact_edges(model, found, graph, places, length, per_position, settings)
    if level == "node" and gradient:
        values = values.sum(axis=-2)
    return Scores(graph, level, values, found.clean, found.corrupted, method, name)


def both_ways(model: Any, prompts: Prompts, **options: Any) -> dict[str, Scores]:
    """Exact patching from the clean run, from the corrupted run, and the mean of both.

    Corrupting one edge of the clean run (noise) shows what the edge is needed for while all others
    work; restoring one of the corrupted run (denoise) shows what it can do by itself. An edge that
    others back up has only the second. EAP is the slope at the clean run, the counterpart of noise;
    EAP-IG averages the whole way and is the counterpart of the mean of both.

    Args:
      model: as in `attribute`.
      prompts: clean and corrupted.
      **options: of `attribute`, but the method.

    Returns:
      `noise`, `denoise` and `mean`, all with the sign of noise: negative is what the task needs,
      and positive where the metric is KL (see `Scores.importance`), which is measured from the run
      that is patched and never falls.

    Example:
      >>> both_ways(model, prompts, level="node")["mean"].top(3)  # doctest: +SKIP
    """
    other = dataclasses.replace(prompts, tokens=prompts.corrupted, corrupted=prompts.tokens)
    noise = attribute(model, prompts, method="exact", **options)
    back = attribute(model, other, method="exact", **options).values
    back = back if noise.metric == "kl" else -back
    found = {"noise": noise.values, "denoise": back, "mean": (noise.values + back) / 2}
    return {name: dataclasses.replace(noise, values=values) for name, values in found.items()}


def _refuse(level: str, method: str, replacement: str, per_position: bool) -> None:
    """Raises a `ValueError` for what a level does not have."""
    if level == "neuron" and method not in NEURON_METHODS:
        hint = "ablate.patch is the exact one"
        raise check.fail("method", f"one of {NEURON_METHODS} for neurons", repr(method), hint)
    if level == "neuron" and replacement != "resample":
        raise check.fail("replacement", "resample for neurons", repr(replacement))
    if per_position and (level == "neuron" or (level, method) == ("node", "exact")):
        hint = "ablate.patch has them" if level == "node" else ""
        raise check.fail("per_position", f"False for {level}s by {method}", True, hint)


def _edges(model, found, method, steps, per_position, metric) -> np.ndarray:
    """Mean over prompts of (receiver, sender) scores by gradients."""
    path = _path(model.config, method, steps)
    total: Any = 0.0
    for pair in found:
        block = max(1, 64 // len(pair.clean))
        for stage, away, weight in path:
            total = total + weight * _gradients(
                model.params, pair, stage, away, edges=model.edges, metric=metric,
                per_position=per_position, block=block,
            )  # fmt: skip
    return np.asarray(total) / len(found.prompts) * Graph.of(model.config).valid


def _path(config: Any, method: str, steps: int) -> list[tuple[int, float, float]]:
    """Points of the path: a stage, how far it is moved towards the other run, and a weight.

    Stage 0 is the embedding, then come each layer's heads and its MLP; a sender's column is read
    off at its own stage only. Stage -1 moves the embedding and reads all columns.
    """
    away = [1 - k / steps for k in range(steps)]
    if method == "eap":
        away = [0.0]
    if method == "clean-corrupted":
        away = [0.0, 1.0]
    stages = range(2 * config.layers + 1) if method == "eap-ig-activations" else [-1]
    return [(stage, point, 1 / len(away)) for stage in stages for point in away]


@functools.partial(jax.jit, static_argnames=("edges", "metric", "per_position", "block"))
def _gradients(params, pair, stage, away, *, edges, metric, per_position, block) -> jax.Array:
    """(receiver, sender) sums over the prompts, with the gradient at one point."""
    config = edges.config
    delta = jax.tree.map(jnp.subtract, pair.base, pair.now)
    own = [0] + [2 * i + 1 + (h == config.heads) for i in range(config.layers)
                 for h in range(config.heads + 1)]  # fmt: skip
    layers = jnp.arange(config.layers)

    def objective(logits: jax.Array) -> jax.Array:
        return metric(logits, pair.view, pair.logits).sum()

    def moved(leaf: jax.Array, here: jax.Array) -> jax.Array:
        return leaf * (away * here).reshape(here.shape + (1,) * (leaf.ndim - here.ndim))

    shift = Senders(
        moved(delta.embed, stage <= 0),
        moved(delta.heads, 2 * layers + 1 == stage),
        moved(delta.mlps, 2 * layers + 2 == stage),
    )
    out = edges.scores(
        params, pair.prompts.tokens, delta, objective, shift=shift,
        per_position=per_position, block=block, **pair.options,
    )  # fmt: skip
    columns = (stage == -1) | (np.array(own) == stage)
    return out * columns.reshape((1,) * (out.ndim - 1) + (-1,))


def _exact(model, found, masks, settings) -> np.ndarray:
    """(mask,) mean change of the metric."""
    return (measure(model, found, masks, **settings) - found.clean[None]).mean(axis=1)


def _node_masks(graph: Graph) -> np.ndarray:
    """All edges of one sender off, for each sender."""
    rows, columns = graph.shape
    masks = np.ones((columns, rows, columns), np.float32)
    masks[np.arange(columns), :, np.arange(columns)] = 0
    return masks


def _exact_edges(model, found, graph, places, length, per_position, settings) -> np.ndarray:
    """One run for every edge (and position), in groups whose masks fit into memory."""
    lead = (length,) if per_position else ()
    values = np.zeros((*lead, *graph.shape), np.float32)
    spots = [(t, *p) for t in range(length) for p in places] if per_position else places
    spots = np.asarray(spots)
    group = max(1, (1 << 28) // (4 * values.size))  # 256 MiB of masks
    for start in range(0, len(spots), group):
        chosen = spots[start : start + group]
        masks = np.ones((len(chosen), *values.shape), np.float32)
        masks[(np.arange(len(chosen)), *chosen.T)] = 0
        values[tuple(chosen.T)] = _exact(model, found, masks, settings)
    return values


def _neurons(model, found, method, steps, metric) -> np.ndarray:
    """(layer, neuron) by the gradient at the gates: gate 0 is the other run's activation."""
    total: Any = 0
    shape = (model.config.layers, model.config.neurons)
    for pair in found:
        for _, away, weight in _path(model.config, method, steps):
            total = total + weight * _neuron_gradients(
                model.params, pair, away, shape=shape, resume=model.resume, metric=metric
            )
    return np.asarray(total) / len(found.prompts)


@functools.partial(jax.jit, static_argnames=("shape", "resume", "metric"))
def _neuron_gradients(params, pair, away, *, shape, resume, metric) -> jax.Array:
    """(layer, neuron) sums over the prompts, with the gradient at one point of the inputs."""

    def neurons(resid: jax.Array) -> jax.Array:
        return resume(params, resid, 0, taps=("neurons",), **pair.options).taps["neurons"]

    clean, other = pair.now.embed, pair.base.embed
    here = clean + away * (other - clean)
    # The slope at gate 1 is gradient times (activation - replacement): the step of both runs.
    edits = Edits(neurons=neurons(here) - neurons(clean) + neurons(other))

    def total(gates: jax.Array) -> jax.Array:
        out = resume(params, here, 0, gates=Gates(neurons=gates), edits=edits, **pair.options)
        return metric(out.logits, pair.view, pair.logits).sum()

    return -jax.grad(total)(jnp.ones(shape))
