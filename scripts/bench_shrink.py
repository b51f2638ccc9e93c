#!/usr/bin/env python
"""Latency of a shrunk model against its dense parent: arrays that are really smaller.

    .venv/bin/python scripts/bench_shrink.py            GPT-2-small shape, minutes
    .venv/bin/python scripts/bench_shrink.py --quick    seconds

Random weights, half of each layer's heads and neurons removed. Both models take turns; medians.
The unembedding (vocabulary 50257), which pruning does not touch, is timed apart: the first two rows
are forwards of all positions that form the logits of one token only. The masked parent is the
control: gates alone make nothing faster. The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro

from jaxcompress import prune, xla
from jaxcompress.models import Gates, Model, ModelConfig, create

RATIO = 0.6  # the target: half the arrays take at most so much of the time


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes; the defaults are GPT-2 small.

    Attributes:
      layers: of the model.
      heads: of a layer.
      width: of the residual stream.
      vocab: tokens.
      length: tokens of a prompt.
      batches: prompts of a forward.
      repeats: forwards of each model that are timed.
      quick: tiny sizes, to see that it runs.
    """

    layers: int = 12
    heads: int = 12
    width: int = 768
    vocab: int = 50257
    length: int = 64
    batches: tuple[int, ...] = (1, 16)
    repeats: int = 15
    quick: bool = False


def build(config: Config) -> tuple[Model, Model, Gates]:
    """A random parent, the child without half of its heads and neurons, and the gates."""
    shape = ModelConfig(
        family="gpt2",
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.heads,
        head_dim=config.width // config.heads,
        width=config.width,
        neurons=4 * config.width,
        vocab=config.vocab,
        context=max(config.length, 8),
    )
    parent = create(shape, key=jax.random.key(0))
    scores = prune.score(parent, [], "random", key=jax.random.key(1))
    scores = Gates(heads=scores.heads, neurons=scores.neurons)
    gates = prune.select(scores, 0.5, scope="layer")
    return parent, prune.shrink(parent, gates), gates


def take_turns(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, one after the other, round after round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    """Builds, checks that both compute the same, times, prints."""
    config = tyro.cli(Config, description=__doc__)
    if config.quick:
        config = Config(2, 2, 16, 32, 8, (1, 2), 2, True)
    parent, child, gates = build(config)
    result: dict[str, Any] = {"device": jax.devices()[0].device_kind, "target": RATIO}
    sizes = [prune.parameters(model.config) for model in (parent, child)]
    flops = [prune.flops_per_token(m.config, length=config.length) for m in (parent, child)]
    embedding = 2 * config.width * config.vocab
    share = (flops[1] - embedding) / (flops[0] - embedding)
    print(f"parameters {sizes[0]:,} -> {sizes[1]:,}; FLOPs without the unembedding x {share:.2f}")
    for batch in config.batches:
        key = jax.random.fold_in(jax.random.key(2), batch)
        tokens = jax.random.randint(key, (batch, config.length), 0, config.vocab)
        one = np.zeros((batch, 1), np.int32)
        # Parameters as arguments: as constants XLA would fold them at compile time.
        run = {
            "parent": lambda t=tokens, a=one: parent.apply(parent.params, t, answer_tokens=a),
            "masked": lambda t=tokens, a=one: parent.apply(
                parent.params, t, answer_tokens=a, gates=gates
            ),
            "shrunk": lambda t=tokens, a=one: child.apply(child.params, t, answer_tokens=a),
            "parent, all logits": lambda t=tokens: parent.apply(parent.params, t),
            "shrunk, all logits": lambda t=tokens: child.apply(child.params, t),
        }
        np.testing.assert_allclose(run["shrunk"]().logits, run["masked"]().logits, atol=1e-3)
        seconds = take_turns(run, config.repeats)
        for name, value in seconds.items():
            ratio = value / seconds["parent, all logits" if "all" in name else "parent"]
            print(f"batch {batch:3}  {name:20} {1e3 * value:9.1f} ms  x {ratio:.2f}")
        result[f"time_ratio_batch{batch}"] = round(seconds["shrunk"] / seconds["parent"], 3)
    print(json.dumps(result))


if __name__ == "__main__":
    xla.set_flags()
    main()
