"""The exact sweep and patching against TransformerLens and plain PyTorch, interleaved in one run.

    python scripts/bench_sweep.py              # GPT-2-small shape: about 10 minutes on 2 cores
    python scripts/bench_sweep.py --quick      # a small shape, seconds: that it runs
    python scripts/bench_sweep.py --full       # the peers over all components, not over a sample

Every head is zero-ablated, and every (layer, position) cell of the residual stream patched. Peers
do one whole forward per component, so they are timed over a sample of components and scaled (all
their forwards are alike); `--full` times every one. Numbers are compared with ours before any
timing. The last line is one JSON object.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxcompress import ablate, xla
from jaxcompress.models import Model, ModelConfig, create
from jaxcompress.tasks import Prompts


@dataclasses.dataclass(frozen=True)
class Args:
    """Sizes: `rounds` of ours and the peers in turn, these over `sample` components a round."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    vocab: int = 50257
    prompts: int = 16
    length: int = 32
    rounds: int = 3
    sample: int = 12
    full: bool = False
    quick: bool = False
    growth: bool = True


def build(args: Args, **changes: int) -> tuple[Model, Prompts]:
    """A random GPT-2 of this shape, and random prompts."""
    sizes = dataclasses.asdict(args) | changes
    config = ModelConfig(
        family="gpt2",
        layers=sizes["layers"],
        heads=args.heads,
        kv_heads=args.heads,
        head_dim=args.width // args.heads,
        width=args.width,
        neurons=4 * args.width,
        vocab=args.vocab,
        context=max(args.length, 64),
    )
    rng = np.random.default_rng(0)
    shape = (sizes["prompts"], args.length)
    tokens, corrupted = rng.integers(0, args.vocab, (2, *shape))
    correct, wrong = rng.integers(0, args.vocab, (2, shape[0], 1))
    last = np.full(shape[0], args.length - 1)
    prompts = Prompts(tokens, corrupted, np.ones(shape, int), last, correct, wrong)
    return create(config, key=jax.random.key(0)), prompts


def gflop_sweep(config: ModelConfig, batch: int, length: int) -> float:
    """Matrix products of the sweep as structured here, in GFLOP (2 per multiply-add).

    Per token a layer costs its projections, 2 * (4 D^2 + 2 D F), and the attention products; the
    ablated layer its MLP only; the last layer keys and values, and the answer's query and MLP.
    """
    d, f, t = config.width, config.neurons, length
    tokens = batch * length
    mlp, layer = 4 * d * f, 8 * d * d + 4 * d * f + 4 * t * d
    last = batch * (8 * d * d + 4 * t * d * config.heads + mlp)
    total = 0.0
    for i in range(config.layers):
        middle = max(config.layers - 2 - i, 0) * tokens * layer
        own = tokens * mlp + (last if i < config.layers - 1 else 0)
        total += config.heads * (own + middle)
    return total / 1e9


def matmul_rate(quick: bool) -> float:
    """GFLOP/s of the fastest of some large float32 matrix products on this device."""

    def rate(rows: int, inner: int, columns: int) -> float:
        a, b = jnp.ones((rows, inner)), jnp.ones((inner, columns))
        taken = [clock(lambda: product(a, b).block_until_ready()) for _ in range(4)]  # compiles
        return 2 * rows * inner * columns / 1e9 / min(taken)

    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    large = ((2048,) * 3, (4096,) * 3, (6144, 768, 3072), (6144, 3072, 768))
    return max(rate(*shape) for shape in (large[:1] if quick else large))


def clock(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_gib() -> float:
    """Highest memory so far: of the device if it counts, else of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def heads(model: Model, prompts: Prompts) -> np.ndarray:
    """Ours: (layer, head, batch) effects of zero ablation."""
    return np.asarray(ablate.sweep(model, prompts, replacement="zero", progress=False).per_example)


def cells(model: Model, prompts: Prompts) -> np.ndarray:
    """Ours: (layer, position, batch) effects of patching clean streams into the corrupted run."""
    return np.asarray(ablate.patch(model, prompts, progress=False).per_example)


def agree(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Refuses to time what does not compute the same."""
    error = float(np.abs(ours - theirs).max())
    print(f"  {name}: largest difference from ours {error:.1e} nats", flush=True)
    if not error < 1e-3:
        raise SystemExit(f"{name} computes something else; not timed")


def race(
    ours: Callable[[], Any], peers: dict[str, Callable[[Any], Any]], items: list[Any], args: Args
) -> dict[str, list[float]]:
    """Seconds of whole sweeps, ours and the peers' in turn; peers over a sample, scaled."""
    rng = np.random.default_rng(1)
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in peers}}
    for _ in range(args.rounds):
        seconds["ours"].append(clock(ours))
        size = len(items) if args.full else min(args.sample, len(items))
        chosen = [items[i] for i in rng.choice(len(items), size, replace=False)]
        for name, peer in peers.items():
            taken = clock(lambda peer=peer, chosen=chosen: [peer(item) for item in chosen])
            seconds[name].append(taken * len(items) / size)
    return seconds


def report(title: str, seconds: dict[str, list[float]], count: int) -> dict[str, float]:
    """Prints medians and ratios per round; returns the median ratio of each peer to ours."""
    print(f"\n{title}: {count} runs, medians of {len(seconds['ours'])} interleaved rounds")
    ratios = {}
    for name, taken in seconds.items():
        ratio = statistics.median(t / o for t, o in zip(taken, seconds["ours"], strict=True))
        spread = f"{min(taken):.2f} to {max(taken):.2f}"
        print(f"  {name:<16} {statistics.median(taken):8.2f} s ({spread})   {ratio:6.2f}x ours")
        ratios[name] = ratio
    return ratios


def growth(args: Args) -> None:
    """Prints seconds to compile and to run, by layers and by prompts, on a quarter of the width."""
    small = dataclasses.replace(args, width=args.width // 4, vocab=min(args.vocab, 5000))
    print(
        "\ngrowth (a quarter of the width): layers, prompts, first call - second call, second call"
    )
    for layers, prompts in ((3, 16), (6, 16), (12, 16), (24, 16), (12, 8), (12, 32)):
        model, batch = build(small, layers=layers, prompts=prompts)
        first = clock(lambda m=model, b=batch: heads(m, b))
        second = min(clock(lambda m=model, b=batch: heads(m, b)) for _ in range(2))
        print(f"  {layers:3d} {prompts:4d}   compile {first - second:6.2f} s   run {second:7.2f} s")


def _difference(logits: Any, prompts: Prompts) -> Any:
    import torch

    rows = torch.arange(len(logits))
    right = torch.tensor(np.asarray(prompts.correct)[:, 0])
    wrong = torch.tensor(np.asarray(prompts.wrong)[:, 0])
    return logits[rows, right] - logits[rows, wrong]


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class TransformerLens:
    """TransformerLens 3: one `run_with_hooks` per component, its own patching function per cell."""

    def __init__(self, model: Model, prompts: Prompts) -> None:
        import torch
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        torch.set_grad_enabled(False)
        config = model.config
        sizes = {"n_layers": config.layers, "n_heads": config.heads, "d_model": config.width}
        sizes |= {"d_head": config.head_dim, "d_mlp": config.neurons, "n_ctx": config.context}
        kind = {"act_fn": "gelu_new", "normalization_type": "LN", "device": _device()}
        hooked = HookedTransformerConfig(d_vocab=config.vocab, **sizes, **kind)
        self.model = HookedTransformer(hooked)
        state = {name: torch.tensor(array) for name, array in _lens_arrays(model).items()}
        self.model.load_state_dict(state, strict=False)
        self.prompts = prompts
        self.tokens = torch.tensor(np.asarray(prompts.tokens), device=_device())
        self.corrupted = torch.tensor(np.asarray(prompts.corrupted), device=_device())
        self.clean = self._metric(self.model(self.tokens))
        self.base = self._metric(self.model(self.corrupted)).mean()
        _, self.cache = self.model.run_with_cache(self.tokens)

    def _metric(self, logits: Any) -> Any:
        return _difference(logits[:, -1].cpu(), self.prompts)

    def ablate(self, unit: tuple[int, int]) -> np.ndarray:
        """(batch,) effect of zeroing one head."""
        layer, head = unit

        def zero(z: Any, hook: Any) -> Any:
            del hook
            z[:, :, head] = 0
            return z

        logits = self.model.run_with_hooks(
            self.tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)]
        )
        return (self._metric(logits) - self.clean).numpy()

    def patch(self, places: list[tuple[int, int]]) -> np.ndarray:
        """(place,) mean effect of patching the clean residual stream in, by its own function."""
        import pandas
        from transformer_lens import patching

        # The function that get_act_patch_resid_pre is, over a list of cells instead of all.
        out = patching.generic_activation_patch(
            model=self.model,
            corrupted_tokens=self.corrupted,
            clean_cache=self.cache,
            patching_metric=lambda logits: self._metric(logits).mean(),
            patch_setter=patching.layer_pos_patch_setter,
            activation_name="resid_pre",
            index_df=pandas.DataFrame(places, columns=["layer", "pos"]),
        )
        return (out.cpu() - self.base).numpy()


def _lens_arrays(model: Model) -> dict[str, np.ndarray]:
    embed, norm = model.params["embed"], model.params["head"]["final_norm"]
    blocks = model.params["blocks"]
    arrays = {"embed.W_E": embed["tokens"], "unembed.W_U": np.asarray(embed["tokens"]).T}
    arrays |= {"pos_embed.W_pos": embed["positions"], "unembed.b_U": np.zeros(model.config.vocab)}
    arrays |= {"ln_final.w": norm["scale"], "ln_final.b": norm["bias"]}
    for i in range(model.config.layers):
        at = f"blocks.{i}"
        for letter, part in (("Q", "query"), ("K", "key"), ("V", "value"), ("O", "output")):
            kernel = np.asarray(blocks["attn"][part]["kernel"][i])
            arrays[f"{at}.attn.W_{letter}"] = kernel if letter == "O" else kernel.swapaxes(0, 1)
            arrays[f"{at}.attn.b_{letter}"] = blocks["attn"][part]["bias"][i]
        for ending, part in (("in", "up"), ("out", "down")):
            arrays[f"{at}.mlp.W_{ending}"] = blocks["mlp"][part]["kernel"][i]
            arrays[f"{at}.mlp.b_{ending}"] = blocks["mlp"][part]["bias"][i]
        for norm, part in (("ln1", "attn_norm"), ("ln2", "mlp_norm")):
            arrays[f"{at}.{norm}.w"] = blocks[part]["scale"][i]
            arrays[f"{at}.{norm}.b"] = blocks[part]["bias"][i]
    return {name: np.array(array) for name, array in arrays.items()}


class PlainTorch:
    """Functions and fused projections, no modules or hooks; two logits at the last position."""

    def __init__(self, model: Model, prompts: Prompts) -> None:
        import torch

        torch.set_grad_enabled(False)
        config, blocks = model.config, model.params["blocks"]
        self.heads, self.dim = config.heads, config.head_dim

        def move(array: Any) -> Any:
            return torch.tensor(np.array(array), device=_device())

        def flat(part: str, i: int, rows: int) -> tuple[Any, Any]:
            kernel, bias = (np.asarray(blocks["attn"][part][k][i]) for k in ("kernel", "bias"))
            return kernel.reshape(rows, -1), bias.reshape(-1)

        self.layers = []
        for i in range(config.layers):
            qkv = [flat(part, i, config.width) for part in ("query", "key", "value")]
            layer = {
                "qkv": (
                    move(np.concatenate([k for k, _ in qkv], 1)),
                    move(np.concatenate([b for _, b in qkv])),
                ),
                "out": tuple(move(x) for x in flat("output", i, self.heads * self.dim)),
            }
            for part in ("up", "down"):
                weights = blocks["mlp"][part]
                layer[part] = (move(weights["kernel"][i]), move(weights["bias"][i]))
            for part in ("attn_norm", "mlp_norm"):
                layer[part] = (move(blocks[part]["scale"][i]), move(blocks[part]["bias"][i]))
            self.layers.append(layer)
        norm = model.params["head"]["final_norm"]
        self.norm = (move(norm["scale"]), move(norm["bias"]))
        table = model.params["embed"]["tokens"]
        tokens = np.asarray(prompts.tokens)
        positions = model.params["embed"]["positions"][: tokens.shape[1]]
        self.x = move(np.asarray(table)[tokens] + np.asarray(positions)[None])
        answers = np.concatenate([np.asarray(prompts.correct), np.asarray(prompts.wrong)], 1)
        self.answers = move(np.asarray(table)[answers])
        self.clean = self._forward(None)

    def _forward(self, unit: tuple[int, int] | None) -> Any:
        from torch.nn import functional as F  # noqa: N812

        batch, length, width = self.x.shape
        x = self.x.reshape(-1, width)
        for i, layer in enumerate(self.layers):
            h = F.layer_norm(x, (width,), *layer["attn_norm"])
            qkv = (h @ layer["qkv"][0]).add_(layer["qkv"][1])
            q, k, v = qkv.view(batch, length, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            if unit is not None and unit[0] == i:
                z[:, unit[1]] = 0
            z = z.transpose(1, 2).reshape(-1, width)
            x = x.addmm(z, layer["out"][0]).add_(layer["out"][1])
            h = F.layer_norm(x, (width,), *layer["mlp_norm"])
            h = F.gelu((h @ layer["up"][0]).add_(layer["up"][1]), approximate="tanh")
            x = x.addmm(h, layer["down"][0]).add_(layer["down"][1])
        last = F.layer_norm(x.view(batch, length, width)[:, -1], (width,), *self.norm)
        logits = (self.answers @ last[:, :, None])[..., 0]
        return logits[:, 0] - logits[:, 1]

    def ablate(self, unit: tuple[int, int]) -> np.ndarray:
        """(batch,) effect of zeroing one head."""
        return (self._forward(unit) - self.clean).cpu().numpy()


def main(args: Args) -> None:
    """Runs the benchmark and prints one JSON object as the last line."""
    if args.quick:
        args = dataclasses.replace(
            args,
            layers=3,
            heads=4,
            width=64,
            vocab=101,
            prompts=4,
            length=8,
            rounds=1,
            growth=False,
        )
    model, prompts = build(args)
    effects, patched = heads(model, prompts), cells(model, prompts)
    peak = peak_gib()  # before PyTorch is imported
    places = [(layer, t) for layer in range(args.layers) for t in range(args.length)]
    units = [(layer, head) for layer in range(args.layers) for head in range(args.heads)]
    lens, plain = TransformerLens(model, prompts), PlainTorch(model, prompts)
    print(f"{args.prompts} prompts x {args.length} tokens on {jax.devices()[0].device_kind}")
    some = [units[0], units[-1], units[len(units) // 2]]
    for name, peer in (("TransformerLens", lens.ablate), ("plain PyTorch", plain.ablate)):
        agree(name, np.stack([effects[u] for u in some]), np.stack([peer(u) for u in some]))
    some = [places[0], places[-1], places[len(places) // 2 + 3]]
    agree("TransformerLens patch", np.stack([patched[p].mean() for p in some]), lens.patch(some))

    rates = [matmul_rate(args.quick)]
    peers = {"TransformerLens": lens.ablate, "plain PyTorch": plain.ablate}
    sweeps = race(lambda: heads(model, prompts), peers, units, args)
    rates.append(matmul_rate(args.quick))
    patches = race(
        lambda: cells(model, prompts), {"TransformerLens": lambda p: lens.patch([p])}, places, args
    )
    rates.append(matmul_rate(args.quick))
    by_head = report("zero ablation of every head", sweeps, len(units))
    by_cell = report("patching every (layer, position)", patches, len(places))
    work, rate = gflop_sweep(model.config, args.prompts, args.length), statistics.median(rates)
    reached = work / statistics.median(sweeps["ours"])
    print(f"\nsweep: {work:,.0f} GFLOP at {reached:.0f} GFLOP/s; large matmul {rate:.0f} GFLOP/s")
    print(f"floor at the matmul rate: {work / rate:.1f} s; peak memory {peak:.2f} GiB")
    if args.growth:
        growth(args)
    result = {
        "speedup_vs_transformerlens": round(by_head["TransformerLens"], 2),
        "speedup_vs_torch": round(by_head["plain PyTorch"], 2),
        "patch_speedup_vs_transformerlens": round(by_cell["TransformerLens"], 2),
        "fraction_of_matmul_rate": round(reached / rate, 3),
        "peak_gib": round(peak, 2),
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    xla.set_flags()
    main(tyro.cli(Args))
