"""Single ablations in a Python loop, from `apply` alone: what a sweep has to equal."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxcompress.models import Edits, Gates
from tests import families
from tests.families import BATCH

FIELDS = ("heads", "attns", "mlps", "neurons")


def difference(logits, prompts):
    """(batch,) log-odds at the answer position, by hand."""
    out = []
    for row, at, right, wrong in zip(
        np.asarray(logits, np.float64),
        prompts.answer_position,
        prompts.correct,
        prompts.wrong,
        strict=True,
    ):
        right, wrong = (row[at][answers[answers >= 0]] for answers in (right, wrong))
        out.append(np.logaddexp.reduce(right) - np.logaddexp.reduce(wrong))
    return np.array(out)


def edits(model, prompts, kind, pooled=False) -> Edits:
    """Replacements for every component, spread over batch and positions, by NumPy."""
    taps = model.apply(
        model.params, prompts.corrupted, attention_mask=prompts.attention_mask, taps=FIELDS
    ).taps
    mask = np.asarray(prompts.attention_mask, bool)
    filled = {}
    for name, tap in taps.items():
        tap = np.array(tap)
        if kind == "zero":
            tap[:] = 0
        elif kind == "mean" and pooled:
            tap[:] = tap[:, mask].mean(axis=1)[:, None, None]
        elif kind == "mean":
            for t in range(mask.shape[1]):  # positions count real tokens
                here = mask & (np.cumsum(mask, axis=1) == t + 1)
                if here.any():
                    tap[:, here] = tap[:, here].mean(axis=1, keepdims=True)
        filled[name] = jnp.asarray(tap)
    return Edits(**filled)


def removed(config, over, index) -> Gates:
    """Gates of one ablation, every field but the width filled in."""
    group = index if isinstance(over, list) else {over: [index if len(index) > 1 else index[0]]}
    ones = dataclasses.replace(Gates.ones(config), width=None)
    off = Gates.off(config, **group)
    changed = {name: getattr(off, name) for name in FIELDS if getattr(off, name) is not None}
    return dataclasses.replace(ones, **changed)


def places(config, over):
    """Where results belong, for each component that the model has."""
    sizes = config.layer_sizes
    if isinstance(over, list):
        return [((i,), group) for i, group in enumerate(over)]
    if over in ("heads", "neurons"):
        counts = [getattr(size, over) for size in sizes]
        return [((i, j), (i, j)) for i, n in enumerate(counts) for j in range(n)]
    return [((i,), (i,)) for i in range(config.layers)]


def loop(model, prompts, over, kind, pooled=False):
    """Per-example effects, cell by cell; NaN where there is no component."""
    config, changed = model.config, edits(model, prompts, kind, pooled)

    def run(gates):
        out = model.apply(
            model.params,
            prompts.tokens,
            attention_mask=prompts.attention_mask,
            gates=gates,
            edits=changed,
        )
        return difference(out.logits, prompts)

    clean = run(dataclasses.replace(Gates.ones(config), width=None))
    cells = places(config, over)
    if isinstance(over, list):
        shape = (len(over),)
    else:
        own = {"heads": (config.heads,), "neurons": (config.neurons,)}.get(over, ())
        shape = (config.layers, *own)
    effects = np.full((*shape, BATCH), np.nan)
    for where, index in cells:
        effects[where] = run(removed(config, over, index)) - clean
    return effects, clean


def prompts_for(name, padding):
    return families.prompts(padding, causal=families.config(name).causal)
