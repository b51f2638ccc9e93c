"""Ablate every component of a model, one at a time: exact, batched, each prefix computed once.

Taking out a component of layer `l` leaves everything before it as it was. So one clean run gives
the residual stream that enters every layer, and each layer's components are run together from
there: `vmap` over gates of `resume`. Attention of the first layer is shared by all its heads, the
last layer and the logits are computed at the answer positions only, and the layer is a traced
number, so that one compiled program serves all layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxcompress import check
from jaxcompress.ablate.forward import Base, at_answer, options, run, start
from jaxcompress.ablate.interventions import Components, components, replacements
from jaxcompress.models.gates import Edits, Gates
from jaxcompress.tasks.metrics import Metric, get_metric
from jaxcompress.tasks.prompts import Prompts

__all__ = ["Effects", "sweep"]

_MEMORY = 1 << 30  # bytes of activations that one chunk may take on a host without a GPU


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Effects:
    """What interventions did to a metric, per component and per example.

    Attributes:
      per_example: (*components, batch) metric with the intervention minus metric without, in the
        metric's unit (nats for logit differences); NaN where the model has no such component.
      clean: (batch,) the metric of the run without intervention.
    """

    per_example: Any
    clean: Any

    @property
    def mean(self) -> Any:
        """(*components,) mean over the examples."""
        return self.per_example.mean(axis=-1)


def sweep(
    model: Any,
    prompts: Prompts,
    over: str | Sequence[Mapping[str, Any]] = "heads",
    *,
    replacement: str = "mean",
    pooled: bool = False,
    metric: str | Metric = "logit_difference",
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: bool | None = None,
) -> Effects:
    """Takes out every component, one at a time, and measures what that does.

    Args:
      model: ours, or anything with `params`, `config` (`layers`, and `heads` or `neurons`) and
        `apply(params, tokens, *, gates, ...)` that returns an `Output`. If it also has `resume`,
        prefixes are shared. For `mean` and `resample` it must take `edits` and return `taps`; for
        padded prompts, take `attention_mask`.
      prompts: clean and corrupted prompts with answers.
      over: `heads`, `attns`, `mlps`, `layers`, `neurons`, or groups (see `components`).
      replacement: `zero`, `mean` over the corrupted prompts, or `resample`: the activation on the
        corrupted twin. Residual channels (`width` in a group) have none: they are always removed.
      pooled: one mean for all positions, instead of one per position; positions count real tokens,
        whatever side is padded.
      metric: from `tasks.METRICS`, or a function `(logits, prompts, clean_logits) -> (batch,)`.
      chunk: components per batch; `None` chooses by memory.
      devices: shard the component axis over these.
      progress: show a bar; `None`: on a terminal, after a second.

    Returns:
      `Effects`, per_example (layer, head, batch), (layer, batch) or (group, batch).

    Raises:
      ValueError: for prompts that do not fit the model, unknown names, empty lists.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> ones = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(ones, 2 * ones, ones, 4 * ones[:, 0], ones[:, :1], 2 * ones[:, :1])
      >>> sweep(model, prompts, replacement="zero").per_example.shape
      (2, 2, 3)

    Reference:
      Zero, mean and resample ablation as in Wang et al. 2022 (arXiv 2211.00593, section 2.2) and
      Chan et al. 2022 (causal scrubbing).
    """
    metric = get_metric(metric)
    base = start(model, prompts, metric)
    items = components(model.config, over)
    edits = None
    if replacement != "zero":
        fields = tuple(name for name in items.fields if name != "width")
        taps = run(model, base.prompts, tokens=base.prompts.corrupted, taps=fields).taps
        edits = replacements(taps, replacement, base.prompts, pooled)
    return measure(
        model, base, items, edits, metric=metric, chunk=chunk, devices=devices, progress=progress
    )


def measure(
    model: Any,
    base: Base,
    items: Components,
    edits: Edits | None,
    *,
    metric: Metric,
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: bool | None = None,
) -> Effects:
    """The engine under `sweep` and `patch`: what each of `items`, replaced by `edits`, changes.

    Args:
      model: as in `sweep`.
      base: the run that is intervened in, from `start`.
      items: what is taken out.
      edits: what is put in its place; `None` is zeros.
      metric: the one that `base` was started with.
      chunk: as in `sweep`.
      devices: as in `sweep`.
      progress: as in `sweep`.

    Example:
      >>> from types import SimpleNamespace
      >>> from jaxcompress.types import Output
      >>> def apply(params, tokens, gates=None):
      ...     kept = jnp.ones(2) if gates is None else gates.mlps
      ...     return Output(jnp.stack([kept.sum(), 0 * params.sum()])[None, None], {})
      >>> model = SimpleNamespace(config=SimpleNamespace(layers=2), params=jnp.eye(2), apply=apply)
      >>> row = np.ones((1, 1), np.int32)
      >>> prompts = Prompts(row, row, row, 0 * row[:, 0], row, 0 * row)
      >>> metric = get_metric("probability")
      >>> items = components(model.config, "mlps")
      >>> measure(model, start(model, prompts, metric), items, None, metric=metric).mean.shape
      (2,)
    """
    check_batching(chunk, devices)
    native = base.resid is not None
    # The residual width is gated where the embedding writes it: no prefix is left to share.
    shares = native and "width" not in items.fields
    budget = chunk_size(model.config, base.prompts) if chunk is None else chunk
    # (batch,), or (batch, more) for a metric of several numbers.
    values = np.full((int(np.prod(items.shape)), *base.clean.shape), np.nan, np.float32)
    spread = None if devices is None else _spread(devices)
    bar = tqdm(
        total=len(items),
        desc="sweep",
        unit="component",
        delay=1,
        disable=None if progress is None else not progress,
    )
    with bar:
        for layer, chosen, real in _jobs(items, budget, shares, len(devices or [0])):
            gates = items.gates(chosen)
            gates = jax.tree.map(jnp.asarray, gates) if spread is None else spread(gates)
            if shares:
                # Layers of different sizes have no traced index: one program for each.
                fixed = None if model.config.stacked else layer
                rest = base._replace(resid=base.resid[layer], taps={})
                out = _suffix(
                    model.params, rest, layer, gates, edits,
                    resume=model.resume, metric=metric, fixed=fixed,
                )  # fmt: skip
            else:
                out = _whole(
                    model.params, base, gates, edits,
                    apply=model.apply, metric=metric, native=native,
                )  # fmt: skip
            values[items.where[chosen[:real]]] = np.asarray(out - base.clean[None])[:real]
            bar.update(real)
    return Effects(jnp.asarray(values).reshape(*items.shape, *base.clean.shape), base.clean)


@functools.partial(jax.jit, static_argnames=("resume", "metric", "fixed"))
def _suffix(params, base, layer, gates, edits, *, resume, metric, fixed):
    """(component, batch) metric of the runs from `layer` on; compiled once for all layers."""
    layer = layer if fixed is None else fixed

    def one(gates: Gates) -> jax.Array:
        out = resume(
            params,
            base.resid,
            layer,
            attention_mask=base.prompts.attention_mask,
            gates=gates,
            edits=edits,
            answer_position=base.prompts.answer_position,
            answer_tokens=base.tokens,
        )
        return metric(out.logits, base.view, base.logits)

    return jax.vmap(one)(gates)


@functools.partial(jax.jit, static_argnames=("apply", "metric", "native"))
def _whole(params, base, gates, edits, *, apply, metric, native):
    """(component, batch) metric of whole forwards: where no prefix can be shared."""
    given = options(base.prompts, edits=edits)
    if native:
        given |= {"answer_position": base.prompts.answer_position, "answer_tokens": base.tokens}

    def one(gates: Gates) -> jax.Array:
        logits = apply(params, base.prompts.tokens, gates=gates, **given).logits
        return metric(at_answer(logits, base.prompts), base.view, base.logits)

    return jax.vmap(one)(gates)


def _jobs(
    items: Components, budget: int, shares: bool, parts: int
) -> Iterator[tuple[int, np.ndarray, int]]:
    """(layer, component indices, real ones among them); components of one prefix go together.

    Chunks of a layer have one size, so that they share a compiled program: the last is filled up.
    """
    layers = items.layers if shares else np.zeros(len(items), int)
    for layer in np.unique(layers):
        chosen = np.flatnonzero(layers == layer)
        size = -(-len(chosen) // -(-len(chosen) // budget))
        size += -size % parts
        for first in range(0, len(chosen), size):
            chunk = chosen[first : first + size]
            fill = np.repeat(chunk[-1:], size - len(chunk))
            yield int(layer), np.concatenate([chunk, fill]), len(chunk)


def check_batching(chunk: int | None, devices: Sequence[Any] | None) -> None:
    """Raises `ValueError` for a chunk or devices that hold nothing."""
    if chunk is not None:
        check.integer("chunk", chunk, 1)
    if devices is not None and not devices:
        raise check.fail("devices", "at least one device", "none")


def _spread(devices: Sequence[Any]) -> Any:
    mesh = jax.sharding.Mesh(np.array(devices), ("component",))
    return functools.partial(
        jax.device_put, device=jax.sharding.NamedSharding(mesh, jax.P("component"))
    )


def chunk_size(config: Any, prompts: Prompts, memory: int | None = None) -> int:
    """Components that fit into `memory` bytes of activations at once (at least 1).

    Args:
      config: sizes of the model; unknown ones count as nothing.
      prompts: the batch.
      memory: bytes; `None`: 1 GiB, or half of what the accelerator has free.
    """
    if memory is None:
        stats = jax.devices()[0].memory_stats() or {}
        free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
        memory = free // 2 if stats.get("bytes_limit") else _MEMORY
    batch, length = prompts.tokens.shape
    width, neurons = getattr(config, "width", 256), getattr(config, "neurons", 1024)
    heads, dim = getattr(config, "heads", 8), getattr(config, "head_dim", 64)
    per_position = 6 * width + 2 * neurons + 4 * heads * dim + 3 * heads * length
    return max(1, memory // (4 * batch * length * per_position))
