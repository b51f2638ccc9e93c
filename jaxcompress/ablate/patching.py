"""Activation patching: put an activation of one run into the other, everywhere, one at a time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxcompress import check
from jaxcompress.ablate.interventions import Components, components, replacements
from jaxcompress.ablate.sweep import (
    Effects,
    at_answer,
    checked,
    chunk_size,
    measure,
    narrowed,
    run,
)
from jaxcompress.models.gates import Gates
from jaxcompress.tasks.metrics import Metric, get_metric, logit_difference
from jaxcompress.tasks.prompts import Prompts

__all__ = ["patch"]

_BLOCKS = 8  # groups of positions; each recomputes from its first position on, and compiles once


def patch(
    model: Any,
    prompts: Prompts,
    over: str = "resid",
    *,
    direction: Literal["denoise", "noise"] = "denoise",
    per_position: bool = False,
    metric: str | Metric = "logit_difference",
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: bool | None = None,
) -> Effects:
    """Patches activations between the clean and the corrupted run, one place at a time.

    Args:
      model: as in `sweep`; for `resid` it must have `resume`.
      prompts: clean and corrupted prompts, aligned token by token.
      over: `resid`: the residual stream that enters each layer, at each position; `heads`,
        `attns`, `mlps`, `layers` or `neurons`: their outputs, at all positions.
      direction: `denoise` puts clean activations into the corrupted run (what is sufficient),
        `noise` corrupted ones into the clean run (what is necessary).
      per_position: for components: patch one position at a time.
      metric: as in `sweep`; `kl` is measured from the run without the patch.
      chunk: places per batch; `None` chooses by memory.
      devices: shard the places over these.
      progress: as in `sweep`.

    Returns:
      `Effects`: the metric with the patch minus the metric of the run it was put into; per_example
      (layer, position, batch) for `resid`, (layer, head, batch) or (layer, batch) for components,
      with position before batch if `per_position`.

    Raises:
      ValueError: for prompts that do not fit the model, and unknown names.

    Reference:
      Heimersheim and Nanda 2024 (arXiv 2404.15255, section 2); Meng et al. 2022 (arXiv 2202.05262).

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> ones = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(ones, 2 * ones, ones, 4 * ones[:, 0], ones[:, :1], 2 * ones[:, :1])
      >>> patch(model, prompts).per_example.shape
      (2, 5, 3)
    """
    prompts = checked(model.config, prompts)
    check.known("direction", direction, ("denoise", "noise"))
    if direction == "denoise":
        prompts = dataclasses.replace(prompts, tokens=prompts.corrupted, corrupted=prompts.tokens)
    if over == "resid":
        return _patch_resid(model, prompts, get_metric(metric), chunk, devices, progress)
    items = components(model.config, over)
    if per_position:
        items = _at_positions(items, prompts)
    source = run(model, prompts, tokens=prompts.corrupted, taps=items.fields).taps
    edits = replacements({name: source[name] for name in items.fields}, "resample", prompts)
    options: dict[str, Any] = {"chunk": chunk, "devices": devices, "progress": progress}
    return measure(model, prompts, items, edits, metric=metric, **options)


def _at_positions(items: Components, prompts: Prompts) -> Components:
    """Every component at every position: gates with batch and position axes."""
    batch, length = prompts.tokens.shape

    def gates(chosen: np.ndarray) -> Gates:
        whole, position = items.gates(chosen // length), chosen % length

        def spread(gate: np.ndarray) -> np.ndarray:
            out = np.ones((len(chosen), batch, length, *gate.shape[1:]), np.float32)
            out[np.arange(len(chosen)), :, position] = gate[:, None]
            return out

        return jax.tree.map(spread, whole)

    return Components(
        fields=items.fields,
        shape=(*items.shape, length),
        where=(items.where[:, None] * length + np.arange(length)).ravel(),
        layers=np.repeat(items.layers, length),
        gates=gates,
    )


def _patch_resid(
    model: Any,
    prompts: Prompts,
    metric: Metric,
    chunk: int | None,
    devices: Sequence[Any] | None,
    progress: bool | None,
) -> Effects:
    """All (layer, position) cells; in a causal model only what comes after the cell is run."""
    if not hasattr(model, "resume"):
        raise check.fail(
            "model", "a model with `resume`, to patch its residual stream", "only apply"
        )
    config, (batch, length) = model.config, prompts.tokens.shape
    view, tokens = narrowed(prompts) if metric is logit_difference else (prompts, None)
    base = run(model, prompts, taps=("resid",), answer_tokens=tokens)
    source = run(model, prompts, tokens=prompts.corrupted, taps=("resid",)).taps["resid"]
    logits = at_answer(base.logits, prompts)
    clean = metric(logits, view, logits)
    values = np.zeros((config.layers, length, batch), np.float32)
    jobs = _blocks(length, config.causal, chunk or chunk_size(config, prompts), len(devices or [0]))
    options = {"disable": None if progress is None else not progress, "delay": 1}
    with tqdm(total=values[..., 0].size, desc="patch", unit="cell", **options) as bar:
        for layer in range(config.layers):
            fixed = layer if layer == config.layers - 1 or not config.stacked else None
            for start, places in jobs:
                out = _cells(
                    model.params, base.taps["resid"], source, layer, _placed(places, devices),
                    prompts, view, tokens, logits, clean, resume=model.resume, metric=metric,
                    fixed=fixed, start=start,
                )  # fmt: skip
                real = places < length
                values[layer, places[real]] = np.asarray(out - clean[None])[real]
                bar.update(int(real.sum()))
    return Effects(jnp.asarray(values), clean)


def _blocks(length: int, causal: bool, budget: int, parts: int) -> list[tuple[int, np.ndarray]]:
    """(first position to recompute, positions to patch); those past the end are filling."""
    size = min(-(-length // _BLOCKS) if causal else length, budget)
    size += -size % parts
    starts = range(0, length, size)
    return [(start if causal else 0, start + np.arange(size)) for start in starts]


def _placed(places: np.ndarray, devices: Sequence[Any] | None) -> jax.Array:
    if devices is None:
        return jnp.asarray(places)
    mesh = jax.sharding.Mesh(np.array(devices), ("component",))
    return jax.device_put(places, jax.sharding.NamedSharding(mesh, jax.P("component")))


@functools.partial(jax.jit, static_argnames=("resume", "metric", "fixed", "start"))
def _cells(
    params, base, source, layer, places, prompts, view, tokens, logits, clean, *, resume, metric,
    fixed, start,
):  # fmt: skip
    """(place, batch) metric with the stream that enters `layer` patched at each place."""
    layer = layer if fixed is None else fixed
    run_on: Callable[..., Any] = functools.partial(
        resume,
        params,
        attention_mask=prompts.attention_mask,
        # Answers before the block cannot change; they are computed at its start and not used.
        answer_position=jnp.maximum(prompts.answer_position, start),
        answer_tokens=tokens,
        prefix=base[:, :, :start] if start else None,
    )

    def one(place: jax.Array) -> jax.Array:
        here = (jnp.arange(base.shape[2] - start) + start == place)[None, :, None]
        x = jnp.where(here, source[layer, :, start:], base[layer, :, start:])
        out = metric(run_on(x, layer).logits, view, logits)
        return jnp.where(prompts.answer_position < start, clean, out)

    return jax.vmap(one)(places)
