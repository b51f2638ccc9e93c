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
from jaxcompress.ablate.interventions import Components, components, replacements
from jaxcompress.models.gates import Edits, Gates
from jaxcompress.tasks.metrics import Metric, get_metric, logit_difference
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
        corrupted twin.
      pooled: one mean for all positions, instead of one per position.
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
    config = model.config
    prompts = checked(config, prompts)
    items = components(config, over)
    edits = None
    if replacement != "zero":
        fields = tuple(name for name in items.fields if name != "width")
        taps = run(model, prompts, tokens=prompts.corrupted, taps=fields).taps
        edits = replacements({name: taps[name] for name in fields}, replacement, prompts, pooled)
    return measure(
        model, prompts, items, edits, metric=metric, chunk=chunk, devices=devices, progress=progress
    )


def measure(
    model: Any,
    prompts: Prompts,
    items: Components,
    edits: Edits | None,
    *,
    metric: str | Metric,
    chunk: int | None,
    devices: Sequence[Any] | None,
    progress: bool | None,
) -> Effects:
    """The engine under `sweep` and `patch`: runs `items` over `prompts`, replaced by `edits`."""
    metric = get_metric(metric)
    answers_only = metric is logit_difference and hasattr(model, "resume")
    view, tokens = narrowed(prompts) if answers_only else (prompts, None)
    shares = hasattr(model, "resume")
    base = run(model, prompts, taps=("resid",) if shares else (), answer_tokens=tokens)
    logits = at_answer(base.logits, prompts)
    clean = metric(logits, view, logits)
    budget = chunk or chunk_size(model.config, prompts)
    values = np.full((int(np.prod(items.shape)), len(prompts)), np.nan, np.float32)
    spread = None if devices is None else _spread(devices)
    jobs = list(_jobs(items, budget, shares, len(devices or [0])))
    options = {"disable": None if progress is None else not progress, "delay": 1}
    with tqdm(total=len(items), desc="sweep", unit="component", **options) as bar:
        for layer, chosen, real in jobs:
            gates = items.gates(chosen)
            gates = jax.tree.map(jnp.asarray, gates) if spread is None else spread(gates)
            if shares:
                last = layer == model.config.layers - 1
                fixed = layer if last or not model.config.stacked else None
                out = _suffix(
                    model.params, base.taps["resid"][layer], layer, gates, edits, prompts, view,
                    tokens, logits, resume=model.resume, metric=metric, fixed=fixed,
                )  # fmt: skip
            else:
                out = _whole(
                    model.params, gates, edits, prompts, logits, apply=model.apply, metric=metric
                )
            values[items.where[chosen[:real]]] = np.asarray(out - clean[None])[:real]
            bar.update(real)
    return Effects(jnp.asarray(values).reshape(*items.shape, len(prompts)), clean)


@functools.partial(jax.jit, static_argnames=("resume", "metric", "fixed"))
def _suffix(
    params, resid, layer, gates, edits, prompts, view, tokens, logits, *, resume, metric, fixed
):
    """(component, batch) metric of runs from `layer` on; compiled once, and once for the last."""
    layer = layer if fixed is None else fixed

    def one(gates: Gates) -> jax.Array:
        out = resume(
            params,
            resid,
            layer,
            attention_mask=prompts.attention_mask,
            gates=gates,
            edits=edits,
            answer_position=prompts.answer_position,
            answer_tokens=tokens,
        )
        return metric(out.logits, view, logits)

    return jax.vmap(one)(gates)


@functools.partial(jax.jit, static_argnames=("apply", "metric"))
def _whole(params, gates, edits, prompts, logits, *, apply, metric):
    """(component, batch) metric of whole forwards: for models that offer only `apply`."""

    def one(gates: Gates) -> jax.Array:
        out = apply(params, prompts.tokens, gates=gates, **_optional(prompts, edits, ()))
        return metric(at_answer(out.logits, prompts), prompts, logits)

    return jax.vmap(one)(gates)


@functools.partial(jax.jit, static_argnames=("apply", "taps", "native"))
def _forward(params, tokens, prompts, answer_tokens, *, apply, taps, native):
    options = _optional(prompts, None, taps)
    if native:
        options |= {"answer_position": prompts.answer_position, "answer_tokens": answer_tokens}
    return apply(params, tokens, **options)


def run(
    model: Any,
    prompts: Prompts,
    *,
    tokens: Any = None,
    taps: tuple[str, ...] = (),
    answer_tokens: Any = None,
) -> Any:
    """One forward of any model on the clean (or other) tokens of the prompts.

    Args:
      model: as in `sweep`.
      prompts: give mask and answer positions.
      tokens: (batch, position); `None`: the clean ones.
      taps: activations to return.
      answer_tokens: for a model that can `resume`: form these logits only.

    Returns:
      Its `Output`; logits are at the answer positions if the model can `resume`.
    """
    native = hasattr(model, "resume")
    tokens = prompts.tokens if tokens is None else tokens
    return _forward(
        model.params, tokens, prompts, answer_tokens, apply=model.apply, taps=taps, native=native
    )


def _optional(prompts: Prompts, edits: Edits | None, taps: tuple[str, ...]) -> dict[str, Any]:
    """Only what is needed, so that a model without masks, edits or taps can be swept too."""
    options: dict[str, Any] = {}
    if prompts.attention_mask is not None:
        options["attention_mask"] = prompts.attention_mask
    if edits is not None:
        options["edits"] = edits
    if taps:
        options["taps"] = taps
    return options


def at_answer(logits: jax.Array, prompts: Prompts) -> jax.Array:
    """(batch, vocab) logits at the answer positions, from logits with or without positions."""
    if logits.ndim == 2:
        return logits
    return jnp.take_along_axis(logits, prompts.answer_position[:, None, None], axis=1)[:, 0]


def narrowed(prompts: Prompts) -> tuple[Prompts, jax.Array]:
    """Prompts whose answers index (batch, right + wrong) logits, and the tokens of these."""
    both = jnp.concatenate([prompts.correct, prompts.wrong], axis=1)
    place = jnp.where(both >= 0, jnp.arange(both.shape[1])[None], -1)
    count = prompts.correct.shape[1]
    view = dataclasses.replace(prompts, correct=place[:, :count], wrong=place[:, count:])
    return view, jnp.maximum(both, 0)


def checked(config: Any, prompts: Prompts) -> Prompts:
    """Valid prompts on the device; a mask that masks nothing is dropped."""
    prompts.validate(getattr(config, "vocab", None), getattr(config, "context", None))
    if np.asarray(prompts.attention_mask).all():
        prompts = dataclasses.replace(prompts, attention_mask=None)
    return jax.tree.map(jnp.asarray, prompts)


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
        for start in range(0, len(chosen), size):
            chunk = chosen[start : start + size]
            fill = np.repeat(chunk[-1:], size - len(chunk))
            yield int(layer), np.concatenate([chunk, fill]), len(chunk)


def _spread(devices: Sequence[Any]) -> Any:
    if not devices:
        raise check.fail("devices", "at least one device", "none")
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
