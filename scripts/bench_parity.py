"""Training of sparse-parity networks against the same training in plain PyTorch, interleaved.

    python scripts/bench_parity.py              # about three minutes on 2 cores
    python scripts/bench_parity.py --seeds 1 8 40    # on a GPU, where PyTorch has one too
    python scripts/bench_parity.py --quick      # a small shape, seconds: that it runs

Compositional sparse parity: 64 bits, 4 atoms of 4 bits and their composite, a ReLU network with two
hidden layers of 128, 10,000 fresh examples a step (2,000 of each task), Adam, float32. Ours is
`train.population`: data are made inside the compiled program, a step is cut into parts that fit
into a cache, and members or parts are spread over devices, one for each core of a CPU. PyTorch
draws its bits with one call in float32, uses fused Adam and all cores, or the GPU that we have,
network after network. Where we have a GPU and it has none, nothing is timed.
Both must compute the same losses over the first steps, from the same weights and examples, or
nothing is timed. The floor is the time of the matrix products of a step at the rate of a large
product in XLA on all cores. The last line is one JSON object.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import tyro
from torch.nn import functional as F  # noqa: N812

from jaxcompress import xla
from jaxcompress.data import parity as data
from jaxcompress.models import MLPConfig
from jaxcompress.models.mlp import apply, init
from jaxcompress.narrow.parity import cross_entropy, objective
from jaxcompress.train import population

RATE, EPS = 1e-3, 1e-5


def torch_device() -> torch.device:
    """The kind of device that JAX has, so that a GPU is compared with a GPU."""
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SystemExit(
            "JAX has a GPU and PyTorch has none: not timed; install a CUDA build of it"
        )
    return torch.device("cuda")


@dataclasses.dataclass(frozen=True)
class Args:
    """Sizes: `rounds` of `steps` steps of ours and of theirs in turn, for each number of seeds."""

    bits: int = 64
    atoms: int = 4
    size: int = 4
    width: int = 128
    depth: int = 3
    batch: int = 10_000
    parts: int = 10
    seeds: tuple[int, ...] = (1, 8)
    rounds: int = 5
    steps: int = 10
    quick: bool = False


class Ours:
    """`population.train` on the package's tasks and networks."""

    def __init__(self, args: Args, parity: data.Parity, seeds: int) -> None:
        config = MLPConfig(parity.inputs, args.width, args.depth)
        self.keys = jax.random.split(jax.random.key(0), seeds)
        self.params = jax.vmap(functools.partial(init, config))(self.keys)
        self.optimizer = optax.adam(RATE, eps=EPS)
        self.loss = objective(functools.partial(apply, config), parity, args.batch // args.parts)
        self.options: dict[str, Any] = {
            "steps": args.steps,
            "every": args.steps,
            "parts": args.parts,
        }

    def __call__(self) -> None:
        params, _ = population.train(
            self.loss, self.params, self.optimizer, keys=self.keys, hyper={}, progress=False,
            **self.options,
        )  # fmt: skip
        jax.block_until_ready(params)


class Torch:
    """The same networks one after the other."""

    def __init__(self, args: Args, parity: data.Parity, params: Any) -> None:
        self.args, self.parity, self.device = args, parity, torch_device()
        count = len(jax.tree.leaves(params)[0])
        some = [network(jax.tree.map(lambda x, i=i: x[i], params)) for i in range(count)]
        self.networks = [one.to(self.device) for one in some]
        self.tools = [
            torch.optim.Adam(one.parameters(), RATE, eps=EPS, fused=True) for one in self.networks
        ]
        task = np.repeat(np.arange(len(parity.codes)), args.batch // len(parity.codes))
        self.control = torch.tensor(parity.control[task], device=self.device)
        self.counted = torch.tensor(parity.counted[task].astype(np.float32), device=self.device)

    def __call__(self) -> None:
        for one, tool in zip(self.networks, self.tools, strict=True):
            for _ in range(self.args.steps):
                shape = (self.args.batch, self.parity.bits)
                bits = torch.randint(0, 2, shape, dtype=torch.float32, device=self.device)
                label = ((bits * self.counted).sum(dim=1) % 2).long()
                self.step(one, tool, torch.cat([self.control, bits], dim=1), label)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @staticmethod
    def step(one: Any, tool: Any, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(one(x), label)
        tool.zero_grad()
        loss.backward()
        tool.step()
        return loss.detach()  # not read, which would wait for the GPU


def network(params: Any) -> torch.nn.Sequential:
    """The parameters of one member as a stack of `torch.nn.Linear`."""
    hidden = zip(params["hidden"]["kernel"], params["hidden"]["bias"], strict=True)
    ends = [(params[name]["kernel"], params[name]["bias"]) for name in ("first", "last")]
    found: list[torch.nn.Module] = []
    for kernel, bias in (ends[0], *hidden, ends[1]):
        linear = torch.nn.Linear(*kernel.shape)
        linear.weight.data = torch.tensor(np.asarray(kernel).T.copy())
        linear.bias.data = torch.tensor(np.asarray(bias).copy())
        found += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*found[:-1])


def agree(args: Args, parity: data.Parity, steps: int = 5) -> None:
    """Refuses to time what does not compute the same, on the same examples."""
    ours = Ours(args, parity, 1)
    theirs = Torch(args, parity, ours.params)
    params = jax.tree.map(lambda leaf: leaf[0], ours.params)
    state = ours.optimizer.init(params)
    config = MLPConfig(parity.inputs, args.width, args.depth)
    task = data.choose(jnp.full(len(parity.codes), 1 / len(parity.codes)), args.batch)

    @jax.jit
    def step(params: Any, state: Any, x: Any, label: Any) -> Any:
        def loss(params: Any) -> Any:
            logits: Any = apply(config, params, x).logits
            return cross_entropy(logits, label).mean()

        value, slope = jax.value_and_grad(loss)(params)
        updates, state = ours.optimizer.update(slope, state, params)
        return optax.apply_updates(params, updates), state, value

    for i in range(steps):
        batch = data.sample(parity, jax.random.key(i), task)
        x = data.inputs(parity, batch)
        params, state, a = step(params, state, x, batch.label)
        there = torch.tensor(np.asarray(x).copy()), torch.tensor(np.asarray(batch.label)).long()
        there = tuple(one.to(theirs.device) for one in there)
        b = float(theirs.step(theirs.networks[0], theirs.tools[0], *there))
        print(f"losses: {a:.6f} / {b:.6f}", flush=True)
        if not abs(float(a) - b) < 1e-4:
            raise SystemExit("ours and PyTorch compute different losses; not timed")


def clock(function: Any) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def floor(args: Args, parity: data.Parity) -> float:
    """Seconds of a step's matrix products, at the best rate seen of a large product."""
    a = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    rate = 2 * 2048**3 / min(clock(lambda: jax.block_until_ready(product(a, a))) for _ in range(5))
    hidden = args.width**2 * (args.depth - 2) + 2 * args.width
    # Forward and two products backward; nothing is passed back to the examples.
    flops = 2 * args.batch * (2 * parity.inputs * args.width + 3 * hidden)
    print(f"matrix products: {flops / 1e9:.2f} GFLOP a step, {rate / 1e9:.0f} GFLOP/s", flush=True)
    return flops / rate


def main(args: Args) -> None:
    """Runs the benchmark and prints one JSON object as the last line."""
    if args.quick:
        small = {"bits": 16, "size": 2, "width": 16, "batch": 400, "seeds": (1, 2)}
        args = dataclasses.replace(args, **small, rounds=2, steps=4)
    atoms = [[i] for i in range(args.atoms)]
    codes = [*atoms, list(range(args.atoms))]
    parity = data.compositional(args.bits, args.atoms, args.size, codes)
    agree(args, parity)
    least, device = floor(args, parity), jax.devices()[0].device_kind
    result: dict[str, Any] = {}
    for seeds in args.seeds:
        ours = Ours(args, parity, seeds)
        runners = {"ours": ours, "torch": Torch(args, parity, ours.params)}
        seconds: dict[str, list[float]] = {name: [] for name in runners}
        for runner in runners.values():
            runner()
        for i in range(args.rounds):
            for name in sorted(runners, reverse=bool(i % 2)):
                seconds[name].append(clock(runners[name]))
        total = seeds * args.steps * args.batch
        print(f"{seeds} seeds on {len(jax.devices())} x {device}, medians of {args.rounds}")
        for name, taken in seconds.items():
            spread = f"{total / max(taken):,.0f} to {total / min(taken):,.0f}"
            print(f"  {name:<6} {total / statistics.median(taken):10,.0f} samples/s ({spread})")
        print(f"  floor  {args.batch / least:10,.0f} samples/s", flush=True)
        word = "seed" if seeds == 1 else "seeds"
        ratios = [t / o for t, o in zip(seconds["torch"], seconds["ours"], strict=True)]
        result[f"speedup_{seeds}_{word}"] = round(statistics.median(ratios), 2)
        result[f"samples_per_second_{seeds}"] = round(total / statistics.median(seconds["ours"]))
        rate = round(total / statistics.median(seconds["torch"]))
        result[f"torch_samples_per_second_{seeds}"] = rate
    where = {"device": device, "devices": len(jax.devices()), "torch_device": torch_device().type}
    print(json.dumps(result | where))


if __name__ == "__main__":
    # One device for each core, before anything runs; GPUs are what they are.
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    xla.set_flags()
    main(tyro.cli(Args))
