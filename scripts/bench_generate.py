"""Greedy tokens per second against `generate` of stock `transformers`, interleaved.

    python scripts/bench_generate.py              # minutes on 2 cores
    python scripts/bench_generate.py --quick      # a small shape, seconds: that it runs

A GPT-2 with random weights, 12 layers of width 768 and the vocabulary of 50257 by default, 32
prompt tokens and 64 new ones, float32, batches of 1 and 8. Both have the same weights and a
key/value cache, and must choose the same tokens, or tokens whose logits are nearly tied, or nothing
is timed. The floor is the time in which the weights of one token can be read from memory, at the
bandwidth measured between the rounds. The last line is one JSON object.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
import tyro

from jaxcompress import generate, io, tree, xla
from jaxcompress.models import Model, ModelConfig, create

TIE = 1e-3  # logits nearer than this may be ordered either way


@dataclasses.dataclass(frozen=True)
class Args:
    """Sizes: `rounds` of ours and of theirs in turn."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    vocab: int = 50257
    prompt: int = 32
    count: int = 64
    batches: tuple[int, ...] = (1, 8)
    rounds: int = 5
    quick: bool = False


def build(args: Args) -> Model:
    """A GPT-2 of this shape with random weights."""
    config = ModelConfig(
        family="gpt2",
        layers=args.layers,
        heads=args.heads,
        kv_heads=args.heads,
        head_dim=args.width // args.heads,
        width=args.width,
        neurons=4 * args.width,
        vocab=args.vocab,
        context=args.prompt + args.count,
    )
    return create(config, key=jax.random.key(0))


def stock(model: Model) -> Any:
    """The same weights in `transformers`."""
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        io.save(model, folder)
        return transformers.GPT2LMHeadModel.from_pretrained(folder).eval()


Runner = Callable[[np.ndarray], np.ndarray]


def runners(args: Args, model: Model) -> dict[str, Runner]:
    """Prompts to (batch, prompt + count) tokens."""
    theirs = stock(model)

    def ours(prompts: np.ndarray) -> np.ndarray:
        return np.asarray(generate.sample(model, prompts, count=args.count).tokens)

    def torch_generate(prompts: np.ndarray) -> np.ndarray:
        tokens = torch.from_numpy(prompts).long()
        with torch.inference_mode():
            out = theirs.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                use_cache=True,
                max_new_tokens=args.count,
                eos_token_id=None,
                pad_token_id=0,
            )
        return out.numpy()

    return {"ours": ours, "torch": torch_generate}


def agree(model: Model, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Refuses to time what chooses other tokens, but where two logits are nearly tied."""
    apart = 0
    for one, other in zip(ours, theirs, strict=True):
        differ = np.flatnonzero(one != other)
        if differ.size:
            first = differ[0]
            logits = np.asarray(model.apply(model.params, one[None, :first]).logits)[0, -1]
            gap = abs(logits[one[first]] - logits[other[first]])
            if gap > TIE:
                raise SystemExit(f"other tokens, with logits {gap:.1e} apart; not timed")
            apart += 1
    said = len(np.unique(ours))
    print(f"batch {len(ours)}: both say the same {said} distinct tokens, but for {apart} ties")


def bandwidth(megabytes: int) -> float:
    """Bytes per second at which a large array is read."""
    array = jnp.ones(megabytes * 250_000)
    total = jax.jit(jnp.sum)
    total(array).block_until_ready()
    start = time.perf_counter()
    total(array).block_until_ready()
    return array.nbytes / (time.perf_counter() - start)


def race(
    args: Args, pair: dict[str, Runner], prompts: np.ndarray
) -> tuple[dict[str, list[float]], float]:
    """Seconds in every round, each going first in every second one; and the best bandwidth."""
    seconds: dict[str, list[float]] = {name: [] for name in pair}
    rates = []
    for i in range(args.rounds):
        for name in sorted(pair, reverse=bool(i % 2)):
            start = time.perf_counter()
            pair[name](prompts)
            seconds[name].append(time.perf_counter() - start)
        rates.append(bandwidth(4 if args.quick else 400))
    return seconds, max(rates)


def measured(args: Args, model: Model, pair: dict[str, Runner], batch: int) -> dict[str, Any]:
    """Speed of one batch size, printed and returned."""
    shape = (batch, args.prompt)
    prompts = np.random.default_rng(0).integers(0, args.vocab, shape).astype(np.int32)
    agree(model, *(run(prompts) for run in pair.values()))
    seconds, rate = race(args, pair, prompts)
    tokens, config = batch * args.count, model.config
    unread = config.context * config.width * 4  # of the positions one row is read
    floor = (tree.nbytes(model.params) - unread) / rate
    for name, taken in seconds.items():
        spread = f"{tokens / max(taken):,.1f} to {tokens / min(taken):,.1f}"
        print(f"  {name:<6} {tokens / statistics.median(taken):8,.1f} tokens/s ({spread})")
    share = floor * args.count / statistics.median(seconds["ours"])
    print(f"  floor  {batch / floor:8,.1f} tokens/s at {rate / 1e9:.1f} GB/s: ours at {share:.0%}")
    ratios = [t / o for t, o in zip(seconds["torch"], seconds["ours"], strict=True)]
    return {
        f"speedup_batch{batch}": round(statistics.median(ratios), 3),
        f"speedups_batch{batch}": [round(min(ratios), 2), round(max(ratios), 2)],
        f"tokens_per_second_batch{batch}": round(tokens / statistics.median(seconds["ours"]), 1),
        f"share_of_floor_batch{batch}": round(share, 3),
    }


def main(args: Args) -> None:
    """Runs the benchmark and prints one JSON object as the last line."""
    if args.quick:
        small = {"layers": 2, "heads": 2, "width": 16, "vocab": 50, "prompt": 4, "count": 6}
        args = dataclasses.replace(args, **small, rounds=2)
    model = build(args)
    pair = runners(args, model)
    result = {}
    for batch in args.batches:
        result |= measured(args, model, pair, batch)
    print(json.dumps(result | {"device": jax.devices()[0].device_kind}))


if __name__ == "__main__":
    xla.set_flags()
    main(tyro.cli(Args))
