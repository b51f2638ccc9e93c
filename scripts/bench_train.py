"""Tokens per second of a distillation step against the same step in plain PyTorch, interleaved.

    python scripts/bench_train.py              # about two minutes on 2 cores
    python scripts/bench_train.py --quick      # a small shape, seconds: that it runs

A GPT-2 student of 6 layers learns from a teacher of 12: width 256, 8 heads, 8192 tokens in the
vocabulary, 4 rows of 128 tokens, forward KL plus cross-entropy, AdamW, float32. PyTorch is given
one fused projection for queries, keys and values, `scaled_dot_product_attention`, its fused losses
and fused AdamW, and the teacher under `no_grad`. Ours runs several steps in one compiled call, as
`train.fit` does. Both start from the same weights and must compute the same losses over the first
steps, or nothing is timed. The last line is one JSON object.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import tyro
from torch.nn import functional as F  # noqa: N812

from jaxcompress import train, xla
from jaxcompress.distill import losses
from jaxcompress.models import ModelConfig, init
from jaxcompress.models.transformer import apply

RATE, DECAY, TEMPERATURE = 1e-3, 0.01, 2.0


@dataclasses.dataclass(frozen=True)
class Args:
    """Sizes: `rounds` of `steps` steps of ours and of theirs in turn."""

    student: int = 6
    teacher: int = 12
    heads: int = 8
    width: int = 256
    vocab: int = 8192
    rows: int = 4
    length: int = 128
    rounds: int = 9
    steps: int = 5
    quick: bool = False


def config(args: Args, layers: int) -> ModelConfig:
    """A GPT-2 of this shape."""
    return ModelConfig(
        family="gpt2",
        layers=layers,
        heads=args.heads,
        kv_heads=args.heads,
        head_dim=args.width // args.heads,
        width=args.width,
        neurons=4 * args.width,
        vocab=args.vocab,
        context=args.length,
    )


class Ours:
    """`train.make_step` on the package's models and losses, compiled."""

    def __init__(self, args: Args, student: Any, teacher: Any) -> None:
        small, large = config(args, args.student), config(args, args.teacher)

        def loss(params: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
            tokens, teacher = batch
            labels = tokens[:, 1:]
            target = apply(large, teacher, tokens).logits[:, :-1]
            logits = apply(small, params, tokens).logits[:, :-1]
            kl, count = losses.forward_kl(logits, target, temperature=TEMPERATURE)
            ce, _ = losses.cross_entropy(logits, labels)
            return kl + ce, {"count": count}

        optimizer = optax.adamw(RATE, weight_decay=DECAY)
        step = train.make_step(loss, optimizer)

        def chunk(state: train.State, tokens: Any, teacher: Any) -> tuple[train.State, Any]:
            return jax.lax.scan(lambda state, rows: step(state, (rows, teacher)), state, tokens)

        self.state = train.create(student, optimizer, jax.random.key(0))
        self.teacher = teacher
        self.chunk = jax.jit(chunk, donate_argnums=0)

    def __call__(self, batches: np.ndarray) -> list[float]:
        """One step for each of the batches (step, row, position); the loss before each."""
        self.state, metrics = self.chunk(self.state, batches, self.teacher)
        return metrics["loss"].tolist()


class Torch:
    """The same step by hand."""

    def __init__(self, args: Args, student: Any, teacher: Any) -> None:
        self.heads = args.heads
        self.teacher = [layer.detach() for layer in _weights(teacher)]
        self.student = [layer.requires_grad_() for layer in _weights(student)]
        self.optimizer = torch.optim.AdamW(
            self.student, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=DECAY, fused=True
        )

    def __call__(self, batches: np.ndarray) -> list[float]:
        """One step for each of the batches (step, row, position); the loss before each."""
        return [self._step(tokens) for tokens in torch.from_numpy(batches).long()]

    def _step(self, ids: torch.Tensor) -> float:
        with torch.no_grad():
            target = F.log_softmax(self._logits(self.teacher, ids) / TEMPERATURE, -1)
        logits = self._logits(self.student, ids)
        log = F.log_softmax(logits / TEMPERATURE, -1)
        kl = F.kl_div(log, target, reduction="batchmean", log_target=True) * TEMPERATURE**2
        loss = kl + F.cross_entropy(logits, ids[:, 1:].reshape(-1))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _logits(self, weights: list[torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
        """(row * (position - 1), vocab): those with a token that follows."""
        table, positions, scale, shift, *rest = weights
        rows, length = ids.shape
        width = table.shape[1]
        x = F.embedding(ids, table) + positions[:length]
        for i in range(0, len(rest), 12):
            s1, b1, wqkv, bqkv, wo, bo, s2, b2, wu, bu, wd, bd = rest[i : i + 12]
            qkv = F.linear(F.layer_norm(x, (width,), s1, b1), wqkv, bqkv)
            qkv = qkv.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            z = F.scaled_dot_product_attention(*qkv.unbind(0), is_causal=True)
            x = x + F.linear(z.transpose(1, 2).reshape(rows, length, width), wo, bo)
            h = F.linear(F.layer_norm(x, (width,), s2, b2), wu, bu)
            x = x + F.linear(F.gelu(h, approximate="tanh"), wd, bd)
        x = F.layer_norm(x[:, :-1].reshape(-1, width), (width,), scale, shift)
        return F.linear(x, table)


def _weights(params: Any) -> list[torch.Tensor]:
    """Embeddings and final norm, then twelve arrays a layer, kernels as `F.linear` has them."""
    embed, norm, blocks = params["embed"], params["head"]["final_norm"], params["blocks"]
    found = [embed["tokens"], embed["positions"], norm["scale"], norm["bias"]]
    width = embed["tokens"].shape[1]
    for i in range(len(blocks["attn_norm"]["scale"])):
        layer = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), blocks)
        attn, mlp = layer["attn"], layer["mlp"]
        qkv = [attn[part] for part in ("query", "key", "value")]
        found += [layer["attn_norm"]["scale"], layer["attn_norm"]["bias"]]
        found += [np.concatenate([part["kernel"].reshape(width, -1).T for part in qkv])]
        found += [np.concatenate([part["bias"].reshape(-1) for part in qkv])]
        found += [attn["output"]["kernel"].reshape(-1, width).T, attn["output"]["bias"]]
        found += [layer["mlp_norm"]["scale"], layer["mlp_norm"]["bias"]]
        for part in ("up", "down"):
            found += [mlp[part]["kernel"].T, mlp[part]["bias"]]
    return [torch.tensor(np.ascontiguousarray(array)) for array in found]


Runner = Callable[[np.ndarray], list[float]]


def agree(ours: Runner, theirs: Runner, batches: np.ndarray) -> None:
    """Refuses to time what does not compute the same; also compiles and warms up."""
    pairs = list(zip(ours(batches), theirs(batches), strict=True))
    print("losses: " + ", ".join(f"{a:.5f} / {b:.5f}" for a, b in pairs), flush=True)
    if not all(abs(a - b) < 1e-4 * max(1.0, abs(a)) for a, b in pairs):
        raise SystemExit("ours and PyTorch compute different losses; not timed")


def race(rounds: int, runners: dict[str, Runner], batches: np.ndarray) -> dict[str, list[float]]:
    """Seconds per step in every round; each runner goes first in every second round."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for i in range(rounds):
        for name in sorted(runners, reverse=bool(i % 2)):
            start = time.perf_counter()
            runners[name](batches)
            seconds[name].append((time.perf_counter() - start) / len(batches))
    return seconds


def main(args: Args) -> None:
    """Runs the benchmark and prints one JSON object as the last line."""
    if args.quick:
        small = {"student": 1, "teacher": 2, "heads": 2, "width": 16, "vocab": 50, "length": 8}
        args = dataclasses.replace(args, **small, rounds=2)
    make = jax.jit(init, static_argnums=0)
    student, teacher = (
        make(config(args, layers), jax.random.key(i))
        for i, layers in enumerate((args.student, args.teacher))
    )
    draw = np.random.default_rng(0).integers
    batches = draw(0, args.vocab, (args.steps, args.rows, args.length)).astype(np.int32)
    copied = jax.tree.map(jnp.copy, student)  # the compiled step overwrites what it is given
    runners = {"ours": Ours(args, copied, teacher), "torch": Torch(args, student, teacher)}
    agree(runners["ours"], runners["torch"], batches)
    seconds = race(args.rounds, runners, batches)
    tokens = args.rows * args.length
    print(f"{tokens} tokens a step on {jax.devices()[0].device_kind}, medians of {args.rounds}")
    for name, taken in seconds.items():
        spread = f"{tokens / max(taken):,.0f} to {tokens / min(taken):,.0f}"
        print(f"  {name:<6} {tokens / statistics.median(taken):8,.0f} tokens/s ({spread})")
    ratios = [t / o for t, o in zip(seconds["torch"], seconds["ours"], strict=True)]
    result = {
        "speedup_vs_torch": round(statistics.median(ratios), 3),
        "tokens_per_second": round(tokens / statistics.median(seconds["ours"])),
        "torch_tokens_per_second": round(tokens / statistics.median(seconds["torch"])),
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    xla.set_flags(training=True)
    main(tyro.cli(Args))
