"""All edges by EAP and EAP-IG against plain PyTorch and a forward, interleaved in one run.

    python scripts/bench_circuits.py              # GPT-2-small shape: some minutes on 2 cores
    python scripts/bench_circuits.py --quick      # a small shape, seconds: that it runs

The PyTorch version is the same formula written by hand: no hooks, inputs split by receiver, no
gradient of parameters, products layer by layer. The unit is a forward that forms two logits. Scores
are compared before anything is timed; peak memory is measured in a process of its own for each,
above what the process takes with model and prompts loaded. The last line is one JSON object.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
import tyro

from jaxcompress import circuits, xla
from jaxcompress.circuits import Circuit
from jaxcompress.models import Model, ModelConfig, create
from jaxcompress.tasks import Prompts


@dataclasses.dataclass(frozen=True)
class Args:
    """Sizes; `only` measures the peak memory of one implementation and prints nothing else."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    vocab: int = 50257
    prompts: int = 16
    length: int = 32
    steps: int = 5
    edges: int = 400
    rounds: int = 3
    quick: bool = False
    only: Literal["all", "ours", "torch"] = "all"


def build(args: Args) -> tuple[Model, Prompts]:
    """A random GPT-2 of this shape, and random prompts."""
    config = ModelConfig(
        family="gpt2",
        layers=args.layers,
        heads=args.heads,
        kv_heads=args.heads,
        head_dim=args.width // args.heads,
        width=args.width,
        neurons=4 * args.width,
        vocab=args.vocab,
        context=max(args.length, 64),
    )
    rng = np.random.default_rng(0)
    shape = (args.prompts, args.length)
    tokens, corrupted = rng.integers(0, args.vocab, (2, *shape))
    correct, wrong = rng.integers(0, args.vocab, (2, shape[0], 1))
    last = np.full(shape[0], args.length - 1)
    prompts = Prompts(tokens, corrupted, np.ones(shape, int), last, correct, wrong)
    return create(config, key=jax.random.key(0)), prompts


def clock(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def forward(model: Model, prompts: Prompts) -> Any:
    """The unit: logits of two answers at the last position."""
    answers = np.concatenate([prompts.correct, prompts.wrong], 1)
    where = {"answer_position": prompts.answer_position, "answer_tokens": answers}
    return model.apply(model.params, prompts.tokens, **where).logits.block_until_ready()


def ours(model: Model, prompts: Prompts, steps: int) -> np.ndarray:
    """(receiver, sender) scores; one step is EAP, at the clean run."""
    method = "eap" if steps == 1 else "eap-ig"
    return circuits.attribute(model, prompts, method=method, steps=steps).values


class PlainTorch:
    """EAP and EAP-IG in functions: every receiver has an input of its own, which has a gradient."""

    def __init__(self, model: Model, prompts: Prompts) -> None:
        import torch

        self.torch, config = torch, model.config
        self.heads, self.dim, self.width = config.heads, config.head_dim, config.width
        blocks = model.params["blocks"]

        def move(array: Any) -> Any:
            return torch.tensor(np.array(array))

        self.layers = []
        for i in range(config.layers):
            attn, mlp = blocks["attn"], blocks["mlp"]
            parts = ("query", "key", "value")
            layer = {
                # (3 heads, width, dim): queries, keys and values of all heads in one product.
                "qkv": move(
                    np.concatenate([np.asarray(attn[p]["kernel"][i]).swapaxes(0, 1) for p in parts])
                ),
                "shift": move(np.concatenate([np.asarray(attn[p]["bias"][i]) for p in parts])),
                "out": (move(attn["output"]["kernel"][i]), move(attn["output"]["bias"][i])),
            }
            for part in ("up", "down"):
                layer[part] = (move(mlp[part]["kernel"][i]), move(mlp[part]["bias"][i]))
            for part in ("attn_norm", "mlp_norm"):
                layer[part] = (move(blocks[part]["scale"][i]), move(blocks[part]["bias"][i]))
            self.layers.append(layer)
        norm = model.params["head"]["final_norm"]
        self.norm = (move(norm["scale"]), move(norm["bias"]))
        table = np.asarray(model.params["embed"]["tokens"])
        where = np.asarray(model.params["embed"]["positions"])[: prompts.tokens.shape[1]]
        self.clean, self.other = (
            move(table[np.asarray(t)] + where[None]) for t in (prompts.tokens, prompts.corrupted)
        )
        right, wrong = np.asarray(prompts.correct)[:, 0], np.asarray(prompts.wrong)[:, 0]
        self.slope = move(table[right] - table[wrong])

    def _run(self, x: Any, split: bool) -> tuple[Any, list[Any], list[Any]]:
        """The metric, what every sender writes, and the leaves whose gradients are wanted."""
        torch = self.torch
        functional = torch.nn.functional
        batch, length, width = x.shape
        senders, leaves = [x[:, :, None]], []

        def leaf(*shape: int) -> Any:
            made = torch.zeros(shape, requires_grad=split)
            leaves.append(made)
            return made

        for layer in self.layers:
            if split:
                inputs = x[:, :, None] + leaf(batch, length, 3 * self.heads, width)
                h = functional.layer_norm(inputs, (width,), *layer["attn_norm"])
                qkv = torch.einsum("btrm,rmd->brtd", h, layer["qkv"])
            else:
                h = functional.layer_norm(x, (width,), *layer["attn_norm"])
                qkv = torch.einsum("btm,rmd->brtd", h, layer["qkv"])
            q, k, v = (qkv + layer["shift"][None, :, None]).chunk(3, dim=1)
            z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            if not split:
                senders.append(torch.einsum("bhtd,hdm->bthm", z, layer["out"][0]))
            x = x + torch.einsum("bhtd,hdm->btm", z, layer["out"][0]) + layer["out"][1]
            read = x + leaf(batch, length, width) if split else x
            h = functional.layer_norm(read, (width,), *layer["mlp_norm"])
            h = functional.gelu(h @ layer["up"][0] + layer["up"][1], approximate="tanh")
            out = h @ layer["down"][0] + layer["down"][1]
            senders.append(out[:, :, None])
            x = x + out
        read = x + leaf(batch, length, width) if split else x
        last = functional.layer_norm(read[:, -1], (width,), *self.norm)
        return (last * self.slope).sum(), senders, leaves

    def scores(self, steps: int) -> np.ndarray:
        """(receiver, sender), as ours."""
        torch = self.torch
        with torch.no_grad():
            now, base = self._run(self.clean, False)[1], self._run(self.other, False)[1]
            delta = torch.cat([b - a for a, b in zip(now, base, strict=True)], dim=2)
        count, columns = len(self.clean), delta.shape[2]
        delta = delta.reshape(-1, columns, self.width)
        total: list[Any] = []
        for k in range(steps):
            away = 0.0 if steps == 1 else 1 - k / steps
            value, _, leaves = self._run(self.clean + away * (self.other - self.clean), True)
            gradients = torch.autograd.grad(value, leaves)
            rows = []
            for i, gradient in enumerate(gradients):
                gradient = gradient.reshape(len(delta), -1, self.width)
                seen = 1 + (i // 2) * (self.heads + 1) + (i % 2) * self.heads
                found = torch.einsum("nrm,nsm->rs", gradient, delta[:, :seen])
                rows.append(torch.nn.functional.pad(found, (0, columns - seen)))
            total.append(torch.cat(rows))
        return (sum(total) / (steps * count)).numpy()


def rss() -> float:
    """Bytes that this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak(args: Args) -> float:
    """GiB above the loaded model, of one implementation in this process."""
    model, prompts = build(args)
    if args.only == "torch":
        plain = PlainTorch(model, prompts)
        start, run = rss(), lambda: plain.scores(args.steps)
    else:
        start, run = rss(), lambda: ours(model, prompts, args.steps)
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start) / 2**30


def peaks(args: Args) -> dict[str, float]:
    """GiB of ours and of PyTorch, each in a process of its own."""
    found = {}
    for name in ("ours", "torch"):
        command = [sys.executable, __file__, "--only", name]
        for field in ("layers", "heads", "width", "vocab", "prompts", "length", "steps"):
            command += [f"--{field}", str(getattr(args, field))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = float(done.stdout.strip().splitlines()[-1])
    return found


def circuit(scores: np.ndarray, model: Model, count: int) -> Circuit:
    """The edges of largest score."""
    graph = circuits.Graph.of(model.config)
    found = circuits.Scores(graph, "edge", scores, np.ones(1), np.zeros(1))
    return circuits.find(found, edges=min(count, int(graph.valid.sum())), connected=False)


def main(args: Args) -> None:
    """Runs the benchmark and prints one JSON object as the last line."""
    if args.quick:
        args = dataclasses.replace(
            args, layers=3, heads=4, width=64, vocab=101, prompts=4, length=8, rounds=1, edges=40
        )
    if args.only != "all":
        print(peak(args))
        return
    memory = peaks(args)
    model, prompts = build(args)
    plain = PlainTorch(model, prompts)
    for steps in (1, args.steps):
        mine, theirs = ours(model, prompts, steps), plain.scores(steps)
        error = float(np.abs(mine - theirs).max() / np.abs(theirs).max())
        print(f"{steps} steps: largest difference, of the largest score: {error:.1e}", flush=True)
        if not error < 1e-3:
            raise SystemExit("PyTorch computes something else; not timed")
    chosen = circuit(mine, model, args.edges)
    runs = {
        "forward, two logits": lambda: forward(model, prompts),
        "EAP": lambda: ours(model, prompts, 1),
        f"EAP-IG, {args.steps} steps": lambda: ours(model, prompts, args.steps),
        "plain PyTorch EAP": lambda: plain.scores(1),
        f"plain PyTorch EAP-IG, {args.steps} steps": lambda: plain.scores(args.steps),
        f"one circuit of {len(chosen)} edges": lambda: circuits.faithfulness(
            model, prompts, chosen, progress=False
        ),
    }
    for name in ("forward, two logits", f"one circuit of {len(chosen)} edges"):
        runs[name]()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            seconds[name].append(clock(run))
    report(args, seconds, memory)


def report(args: Args, seconds: dict[str, list[float]], memory: dict[str, float]) -> None:
    """Prints medians and the JSON object."""
    names = list(seconds)
    unit = statistics.median(seconds[names[0]])
    print(f"\n{args.prompts} prompts x {args.length} tokens on {jax.devices()[0].device_kind}")
    for name, taken in seconds.items():
        middle, spread = statistics.median(taken), f"{min(taken):.2f} to {max(taken):.2f}"
        print(f"  {name:<32} {middle:8.2f} s ({spread})  {middle / unit:6.1f} forwards")
    for name, gib in memory.items():
        print(f"  peak memory of {name:<17} {gib:8.2f} GiB above the loaded model")
    print(f"  {lens()}")

    def ratio(a: int, b: int) -> float:
        pairs = zip(seconds[names[a]], seconds[names[b]], strict=True)
        return round(statistics.median(x / y for x, y in pairs), 2)

    found = {
        "speedup_vs_torch": ratio(4, 2),
        "eap_speedup_vs_torch": ratio(3, 1),
        "memory_ratio": round(memory["ours"] / memory["torch"], 3),
        "eap_over_forward": ratio(1, 0),
        "eap_ig5_over_forward": ratio(2, 0),
        "circuit_over_forward": ratio(5, 0),
        "seconds": round(statistics.median(seconds[names[2]]), 3),
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(found))


def lens() -> str:
    """What TransformerLens says when it is asked for edges: it declares them before it has them."""
    if importlib.util.find_spec("transformer_lens") is None:
        return "TransformerLens is not installed"
    name = f"TransformerLens {importlib.metadata.version('transformer-lens')}"
    try:
        patching = importlib.import_module("transformer_lens.tools.analysis.attribution_patching")
        patching.EdgeAttributionConfig(granularity="edge")
    except (ImportError, AttributeError, NotImplementedError) as error:
        return f"{name} scores no edges, so none are timed: {error}"
    return f"{name} scores edges, which this benchmark does not time yet"


if __name__ == "__main__":
    xla.set_flags()
    main(tyro.cli(Args))
