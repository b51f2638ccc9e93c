"""The cost of one forward on this device: counted where it can be counted, else timed."""

from __future__ import annotations

import dataclasses
import math
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, tree
from jaxcompress.measure.energy import POWERCAP, find_counter, measure_energy
from jaxcompress.models.build import Model

__all__ = ["Cost", "cost", "flops", "nonembedding"]

WARMUP = 2
ENERGY_SECONDS = 2.0  # Twenty steps of NVML's counter, the coarser of the two.
_EMBEDDINGS = re.compile(r"embed/(tokens|positions|types)|head/(kernel|bias)|pooler/.*")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a model costs; `dataclasses.asdict` makes it plain data.

    Attributes:
      parameters: count, all of them.
      parameters_nonembedding: count, without token, position and type embeddings and unembedding.
      bytes: of the parameters, in their types.
      flops_per_token: of one forward, divided by its tokens; `None` if XLA does not say. A
        multiply and an add are two; exponentials and the like are not counted.
      latency_seconds: of one forward, median over the repeats, after warm-up.
      latency_spread_seconds: between the first and the third quartile of the repeats.
      tokens_per_second: batch * length / latency.
      joules_per_token: of the whole device, idle power included; `None` without a counter.
      joules_source: "NVML", "RAPL package-0", ..., or "unavailable: " and the reason.
      device: what it ran on.
      batch: prompts of the forward.
      length: tokens of each prompt.
      repeats: forwards that were timed.
    """

    parameters: int
    parameters_nonembedding: int
    bytes: int
    flops_per_token: float | None
    latency_seconds: float
    latency_spread_seconds: float
    tokens_per_second: float
    joules_per_token: float | None
    joules_source: str
    device: str
    batch: int
    length: int
    repeats: int


def cost(
    model: Model,
    *,
    batch: int = 1,
    length: int | None = None,
    repeats: int = 20,
    powercap: str | Path = POWERCAP,
) -> Cost:
    """Measures one forward of a model, logits at every position, on the device of its parameters.

    Args:
      model: as it would be used: its own type, scanned or not.
      batch: prompts per forward.
      length: tokens per prompt; by default 64, or the context if that is shorter.
      repeats: forwards to time.
      powercap: the folder of RAPL's files.

    Returns:
      The cost. Times hold for this device, this batch and this length only.

    Raises:
      ValueError: for sizes below 1, or prompts longer than the context.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> measured = cost(create(config, key=jax.random.key(0)), repeats=3)
      >>> measured.parameters, measured.bytes, measured.length
      (1344, 5376, 5)
    """
    batch = check.integer("batch", batch, 1)
    length = min(model.config.context, 64) if length is None else length
    length = check.integer("length", length, 1, model.config.context)
    repeats = check.integer("repeats", repeats, 1)
    device = _device_of(model.params)
    forward = _forward(model, batch, length, device)
    seconds = _time(forward, repeats)
    low, median, high = np.percentile(seconds, [25, 50, 75]).tolist()
    joules, source = _energy(forward, median, device, powercap)
    tokens = batch * length
    return Cost(
        parameters=tree.count(model.params),
        parameters_nonembedding=nonembedding(model.params),
        bytes=tree.nbytes(model.params),
        flops_per_token=flops(model, batch=batch, length=length),
        latency_seconds=median,
        latency_spread_seconds=high - low,
        tokens_per_second=tokens / median,
        joules_per_token=None if joules is None else joules / tokens,
        joules_source=source,
        device=_describe(device),
        batch=batch,
        length=length,
        repeats=repeats,
    )


def nonembedding(params: Any) -> int:
    """Parameters without the embeddings (token, position, type) and without the unembedding.

    The count that the compute of a forward follows; Kaplan et al. 2020 (arXiv 2001.08361),
    section 2.1. BERT's pooler, which no forward here uses, is left out too.

    Example:
      >>> nonembedding({"embed": {"tokens": jnp.ones((11, 8))}, "blocks": {"w": jnp.ones((2, 3))}})
      6
    """
    leaves = tree.paths(params).items()
    return sum(leaf.size for path, leaf in leaves if not _EMBEDDINGS.fullmatch(path))


def flops(model: Model, *, batch: int = 1, length: int) -> float | None:
    """Floating-point operations of one forward per token, as XLA counts them.

    Close to `2 * nonembedding + 4 * layers * length * heads * head_dim + 2 * width * vocab`, where
    the second term is attention, masked positions included.

    Args:
      model: only shapes and types of its parameters are looked at; nothing is compiled or run.
      batch: prompts per forward.
      length: tokens per prompt.

    Returns:
      FLOPs per token, or `None` if this version or backend of XLA does not count them.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> flops(create(config, key=jax.random.key(0)), length=5) > 2 * 1168
      True
    """
    # XLA counts the body of a scan once, however often it runs: the layers have to be unrolled.
    unrolled = model.replace(config=dataclasses.replace(model.config, scan=False))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.params)
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    # Of the program as written: compiled ones call libraries for matrix products, which count 0.
    analysis: Any = jax.jit(_program(unrolled)).lower(shapes, tokens).cost_analysis()
    # A mapping, or one per device in other versions of JAX, or nothing at all.
    analysis = analysis[0] if isinstance(analysis, list | tuple) and analysis else analysis
    total = float((analysis or {}).get("flops", 0.0))
    return total / (batch * length) if math.isfinite(total) and total > 0 else None


def _program(model: Model) -> Callable[..., Any]:
    """The forward; an encoder's last residual stream stands in for logits, or XLA drops it all."""
    taps = ("resid",) if model.config.head == "none" else ()
    return lambda params, tokens: model.apply(params, tokens, taps=taps)


def _forward(model: Model, batch: int, length: int, device: Any) -> Callable[[], Any]:
    tokens = np.arange(batch * length, dtype=np.int32).reshape(batch, length) % model.config.vocab
    tokens = jax.device_put(tokens, device)
    program = jax.jit(_program(model))
    return lambda: jax.block_until_ready(program(model.params, tokens))


def _time(forward: Callable[[], Any], repeats: int) -> list[float]:
    for _ in range(WARMUP):
        forward()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - start)
    return seconds


def _energy(
    forward: Callable[[], Any], latency: float, device: Any, powercap: str | Path
) -> tuple[float | None, str]:
    """Joules per forward, averaged over about `ENERGY_SECONDS`."""
    counter = find_counter(device, powercap=powercap)
    if isinstance(counter, str):
        return None, counter
    count = max(1, math.ceil(ENERGY_SECONDS / max(latency, 1e-6)))

    def run() -> None:
        for _ in range(count):
            forward()

    energy = measure_energy(run, device=device, powercap=powercap)
    return (None if energy.joules is None else energy.joules / count), energy.source


def _device_of(params: Any) -> Any:
    arrays = [leaf for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array)]
    return min(arrays[0].devices(), key=lambda device: device.id) if arrays else jax.devices()[0]


def _describe(device: Any) -> str:
    """What a reader needs to know of the device; XLA calls every processor "cpu"."""
    if device.platform != "cpu":
        return f"{device.platform}: {device.device_kind}"
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"cpu: {found[1].strip() if found else platform.machine()}"
