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
from jaxcompress.ablate.forward import Base, checked, run, start
from jaxcompress.ablate.interventions import Components, components, replacements
from jaxcompress.ablate.sweep import Effects, check_batching, chunk_size, measure
from jaxcompress.models.gates import Gates
from jaxcompress.tasks.metrics import Metric, get_metric
from jaxcompress.tasks.prompts import Prompts

__all__ = ["patch"]

# Positions are patched in blocks, each recomputed from its first position on: many blocks compute
# less, but each is a program to compile.
_BLOCKS = 8
_SMALLEST = 4


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
      with position before batch if `per_position`; positions count real tokens.

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
    metric = get_metric(metric)
    check.known("direction", direction, ("denoise", "noise"))
    check_batching(chunk, devices)
    if over == "resid" and not hasattr(model, "resume"):
        expected = "a model with `resume`, to patch its residual stream"
        raise check.fail("model", expected, "only apply")
    # Before the sides are swapped, so that an error names the one it is about.
    checked(model.config, prompts)
    if direction == "denoise":
        prompts = dataclasses.replace(prompts, tokens=prompts.corrupted, corrupted=prompts.tokens)
    base = start(model, prompts, metric)
    settings: dict[str, Any] = {"chunk": chunk, "devices": devices, "progress": progress}
    if over == "resid":
        return _patch_resid(model, base, metric, **settings)
    items = components(model.config, over)
    source = run(model, base.prompts, tokens=base.prompts.corrupted, taps=items.fields).taps
    edits = replacements(source, "resample", base.prompts)
    if per_position:
        items = _at_positions(items, base.prompts)
    return measure(model, base, items, edits, metric=metric, **settings)


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
    base: Base,
    metric: Metric,
    chunk: int | None,
    devices: Sequence[Any] | None,
    progress: bool | None,
) -> Effects:
    """All (layer, position) cells; in a causal model only what comes after the cell is run."""
    config, prompts = model.config, base.prompts
    batch, length = prompts.tokens.shape
    source = run(model, prompts, tokens=prompts.corrupted, taps=("resid",)).taps["resid"]
    values = np.zeros((config.layers, length, batch), np.float32)
    budget = chunk_size(config, prompts) if chunk is None else chunk
    jobs = _blocks(length, config.causal, budget, len(devices or [0]))
    bar = tqdm(
        total=config.layers * length,
        desc="patch",
        unit="cell",
        delay=1,
        disable=None if progress is None else not progress,
    )
    with bar:
        for layer in range(config.layers):
            fixed = None if config.stacked else layer
            for first, places in jobs:
                out = _cells(
                    model.params, base, source, layer, _placed(places, devices),
                    resume=model.resume, metric=metric, fixed=fixed, first=first,
                )  # fmt: skip
                real = places < length
                values[layer, places[real]] = np.asarray(out - base.clean[None])[real]
                bar.update(int(real.sum()))
    return Effects(jnp.asarray(values), base.clean)


def _blocks(length: int, causal: bool, budget: int, parts: int) -> list[tuple[int, np.ndarray]]:
    """(first position to recompute, positions to patch); those past the end are filling."""
    size = max(-(-length // _BLOCKS), _SMALLEST) if causal else length
    size = min(size, length, budget)
    size += -size % parts
    starts = range(0, length, size)
    return [(start if causal else 0, start + np.arange(size)) for start in starts]


def _placed(places: np.ndarray, devices: Sequence[Any] | None) -> jax.Array:
    if devices is None:
        return jnp.asarray(places)
    mesh = jax.sharding.Mesh(np.array(devices), ("component",))
    return jax.device_put(places, jax.sharding.NamedSharding(mesh, jax.P("component")))


@functools.partial(jax.jit, static_argnames=("resume", "metric", "fixed", "first"))
def _cells(params, base, source, layer, places, *, resume, metric, fixed, first):
    """(place, batch) metric with the stream that enters `layer` patched at each place."""
    layer = layer if fixed is None else fixed
    prompts = base.prompts
    run_on: Callable[..., Any] = functools.partial(
        resume,
        params,
        attention_mask=prompts.attention_mask,
        # Answers before the block cannot change; they are computed at its start and not used.
        answer_position=jnp.maximum(prompts.answer_position, first),
        answer_tokens=base.tokens,
        prefix=base.resid[:, :, :first] if first else None,
    )

    def one(place: jax.Array) -> jax.Array:
        here = (jnp.arange(source.shape[2] - first) + first == place)[None, :, None]
        x = jnp.where(here, source[layer, :, first:], base.resid[layer, :, first:])
        out = metric(run_on(x, layer).logits, base.view, base.logits)
        return jnp.where(prompts.answer_position < first, base.clean, out)

    return jax.vmap(one)(places)
