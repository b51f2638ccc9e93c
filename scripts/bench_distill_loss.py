"""The chunked distillation loss against the plain one: memory and time of value and gradient.

    python scripts/bench_distill_loss.py              # 2 x 512 tokens, vocabulary 128k: minutes
    python scripts/bench_distill_loss.py --quick      # a small shape, seconds: that it runs

Forward KL at temperature 2, mixed with cross-entropy; the gradient goes to the student's hidden
states and unembedding. Memory is what the compiled program needs besides its inputs and outputs.
Values and gradients are compared before any timing; rounds are interleaved. The last line is one
JSON object.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from jaxcompress import xla
from jaxcompress.distill.chunked import chunked
from jaxcompress.distill.losses import forward_kl, mixed


@dataclasses.dataclass(frozen=True)
class Args:
    """Sizes, and how many `rounds` of both in turn."""

    batch: int = 2
    length: int = 512
    width: int = 1024
    vocab: int = 131072
    chunk: int = 64
    rounds: int = 5
    quick: bool = False


def inputs(args: Args) -> tuple[Any, ...]:
    """Student and teacher (hidden states, unembedding), mask and labels, random."""
    keys = jax.random.split(jax.random.key(0), 5)
    shape = (args.batch, args.length)
    pairs = [
        (
            jax.random.normal(keys[i], (*shape, args.width)),
            jax.random.normal(keys[i + 1], (args.width, args.vocab)) * args.width**-0.5,
        )
        for i in (0, 2)
    ]
    labels = jax.random.randint(keys[4], shape, 0, args.vocab)
    return *pairs, jnp.ones(shape).at[-1, -args.length // 4 :].set(0.0), labels


def compiled(loss: Any, arguments: tuple[Any, ...]) -> Any:
    """Value and gradient with respect to the student, compiled."""
    return jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments).compile()


def clock(function: Any, arguments: tuple[Any, ...]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def agree(ours: Any, plain: Any, arguments: tuple[Any, ...]) -> None:
    """Refuses to time what does not compute the same."""
    pairs = zip(*(jax.tree.leaves(f(*arguments)) for f in (ours, plain)), strict=True)
    errors = [float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs]
    print("largest differences, of the largest entry: " + ", ".join(f"{e:.1e}" for e in errors))
    if not max(errors) < 1e-4:
        raise SystemExit("the chunked loss computes something else; not timed")


def main(args: Args) -> None:
    """Runs the benchmark and prints one JSON object as the last line."""
    if args.quick:
        args = dataclasses.replace(args, length=20, width=16, vocab=300, chunk=8, rounds=2)
    arguments = inputs(args)
    loss = functools.partial(mixed, distillation=functools.partial(forward_kl, temperature=2.0))

    def plain(student: Any, teacher: Any, *rest: Any) -> Any:
        return loss(student[0] @ student[1], teacher[0] @ teacher[1], *rest)

    programs = {
        "chunked": compiled(chunked(loss, args.chunk), arguments),
        "plain": compiled(plain, arguments),
    }
    bytes_ = {name: p.memory_analysis().temp_size_in_bytes for name, p in programs.items()}
    agree(programs["chunked"], programs["plain"], arguments)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(args.rounds):
        for name, program in programs.items():
            seconds[name].append(clock(program, arguments))
    device = jax.devices()[0].device_kind
    print(f"{args.batch} x {args.length} tokens, vocabulary {args.vocab}, on {device}")
    for name, taken in seconds.items():
        spread = f"{min(taken):.2f} to {max(taken):.2f}"
        memory = f"{bytes_[name] / 2**20:8.1f} MiB"
        print(f"  {name:<8} {memory}   {statistics.median(taken):7.2f} s ({spread})")
    medians = [statistics.median(seconds[name]) for name in ("chunked", "plain")]
    result = {
        "memory_ratio": round(bytes_["plain"] / bytes_["chunked"], 2),
        "time_ratio": round(medians[0] / medians[1], 3),
        "device": device,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    xla.set_flags()
    main(tyro.cli(Args))
