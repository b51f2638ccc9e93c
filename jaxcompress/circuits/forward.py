"""Both runs of a batch of prompts, and the metric of runs in between, edge by edge."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxcompress import check, tree
from jaxcompress.ablate.forward import checked, narrowed
from jaxcompress.tasks.metrics import Metric, logit_difference
from jaxcompress.tasks.prompts import Prompts
from jaxcompress.types import Senders

__all__ = ["MEMORY", "Pair", "Pairs", "measure", "size"]

_TOGETHER = (2, 8, 32)  # masks in a program: a circuit and the empty one, some, a curve
MEMORY = 1 << 30
"""Bytes that one step may take where nothing else is said."""


class Pair(NamedTuple):
    """A batch of prompts with its clean and its corrupted run.

    Attributes:
      prompts: checked, on the device.
      view: the prompts as the metric sees them: answers index `tokens`, if these are given.
      tokens: (batch, answer) the only logits that are formed, or `None`: all.
      logits: (batch, answer or vocab) of the clean run.
      clean: (batch,) the metric of the clean run.
      corrupted: (batch,) the metric of the corrupted run.
      now: what the senders write in the clean run.
      base: what they write instead: in the corrupted run, or its mean over all prompts.
    """

    prompts: Prompts
    view: Prompts
    tokens: Any
    logits: Any
    clean: Any
    corrupted: Any
    now: Senders
    base: Senders

    @property
    def options(self) -> dict[str, Any]:
        """What every forward on these prompts is given."""
        return {
            "attention_mask": self.prompts.attention_mask,
            "answer_position": self.prompts.answer_position,
            "answer_tokens": self.tokens,
        }


class Pairs:
    """Both runs of all prompts, a batch at a time; kept where they are small, else run again.

    Args:
      model: with `params`, `config` and `edges`.
      prompts: clean and corrupted.
      metric: from `tasks.metrics`.
      replacement: `resample` (the corrupted twin), or `mean` over the corrupted prompts, for each
        position by itself, counted in real tokens; padding is left out.
      batch: prompts at a time; 0: all.

    Raises:
      ValueError: for a model without edges, prompts that do not fit it, unknown names.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=1, heads=1, kv_heads=1, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> ones = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(ones, 2 * ones, ones, 4 * ones[:, 0], ones[:, :1], 2 * ones[:, :1])
      >>> [len(pair.clean) for pair in Pairs(model, prompts, logit_difference, batch=1)]
      [1, 1, 1]
    """

    def __init__(
        self,
        model: Any,
        prompts: Prompts,
        metric: Metric,
        *,
        replacement: str = "resample",
        batch: int = 0,
    ) -> None:
        if not hasattr(model, "edges"):
            raise check.fail("model", "one with `edges`, as those of jaxcompress.models", "none")
        check.known("replacement", replacement, ("resample", "mean"))
        self.prompts = checked(model.config, prompts)
        self.length = self.prompts.tokens.shape[1]
        self._model, self._metric = model, metric
        self._batch = batch or len(self.prompts)
        self._kept: dict[int, Pair] = {}
        self._values: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._mean = _mean(self._run(i) for i in self._starts) if replacement == "mean" else None

    @property
    def _starts(self) -> range:
        return range(0, len(self.prompts), self._batch)

    def _run(self, start: int) -> Pair:
        rows = self.prompts[start : start + self._batch]
        return _both(self._model.params, rows, edges=self._model.edges, metric=self._metric)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Pair]:
        for start in self._starts:
            pair = self._kept.get(start)
            if pair is None:
                pair = self._run(start)
                self._values[start] = np.asarray(pair.clean), np.asarray(pair.corrupted)
                pair = pair if self._mean is None else pair._replace(base=self._mean)
                if tree.nbytes((pair.now, pair.base)) * len(self) <= MEMORY:
                    self._kept[start] = pair
            yield pair

    @property
    def clean(self) -> np.ndarray:
        """(prompt,) metric of the clean run."""
        return self._metrics(0)

    @property
    def corrupted(self) -> np.ndarray:
        """(prompt,) metric of the corrupted run."""
        return self._metrics(1)

    def _metrics(self, which: int) -> np.ndarray:
        if len(self._values) < len(self):
            for _ in self:
                pass
        return np.concatenate([self._values[start][which] for start in self._starts])


@functools.partial(jax.jit, static_argnames=("edges", "metric"))
def _both(params: Any, prompts: Prompts, *, edges: Any, metric: Metric) -> Pair:
    view, tokens = narrowed(prompts) if metric is logit_difference else (prompts, None)
    empty: Any = None
    pair = Pair(prompts, view, tokens, empty, empty, empty, empty, empty)
    now, logits = edges.record(params, prompts.tokens, **pair.options)
    base, other = edges.record(params, prompts.corrupted, **pair.options)
    return pair._replace(
        logits=logits,
        clean=metric(logits, view, logits),
        corrupted=metric(other, view, logits),
        now=now,
        base=base,
    )


def _mean(found: Iterable[Pair]) -> Senders:
    """Means over all prompts, batch axis of size 1."""
    sums: Any = None
    count: Any = 0
    for pair in found:
        mask = pair.prompts.attention_mask
        weight = (
            jnp.ones(pair.prompts.tokens.shape) if mask is None else jnp.asarray(mask, jnp.float32)
        )

        base = pair.base
        part = Senders(
            _total(base.embed, 0, weight),
            _total(base.heads, 1, weight),
            _total(base.mlps, 1, weight),
        )
        sums = part if sums is None else jax.tree.map(jnp.add, sums, part)
        count = count + weight.sum(0)
    count = jnp.maximum(count, 1)
    return jax.tree.map(
        lambda leaf, t: leaf / count.reshape((1,) * t + (-1,) + (1,) * (leaf.ndim - t - 1)),
        sums,
        Senders(1, 2, 2),
    )


def _total(leaf: jax.Array, axis: int, weight: jax.Array) -> jax.Array:
    """Sum over the batch at `axis`, weighted by (batch, position)."""
    spread = weight.reshape((1,) * axis + weight.shape + (1,) * (leaf.ndim - axis - 2))
    return (leaf * spread).sum(axis, keepdims=True)


def size(config: Any, length: int, memory: int | None, *, backward: bool = False) -> int:
    """How many prompts of `length` positions fit into `memory` bytes of one step, at least 1.

    A run by edges holds, per position, what every sender writes and what the receivers of one layer
    read: 4 * width * (2 * senders + 3 * receivers of a layer) bytes. A gradient holds the
    activations of all layers instead.

    Args:
      config: of the model.
      length: positions of a prompt.
      memory: bytes; `None`: 1 GiB, or half of what the accelerator has free.
      backward: of the gradient, not of a run.

    Raises:
      ValueError: if not even one prompt fits.

    Example:
      >>> from jaxcompress.models.config import ModelConfig
      >>> config = ModelConfig(family="gpt2", layers=12, heads=12, kv_heads=12, head_dim=64,
      ...                      width=768, neurons=3072, vocab=50257, context=1024)
      >>> size(config, 32, 1 << 30) >= 16
      True
      >>> size(config, 32, 1 << 20)
      Traceback (most recent call last):
      ...
      ValueError: memory: expected at least ... bytes, for the edges of one prompt of 32...
    """
    if memory is None:
        stats = jax.devices()[0].memory_stats() or {}
        free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
        memory = free // 2 if stats.get("bytes_limit") else MEMORY
    inner = config.heads * config.head_dim
    reads = config.heads + 2 * config.kv_heads + 1
    layer = 8 * config.width + 4 * inner + 3 * config.neurons + 3 * config.heads * length
    if backward:
        each = config.layers * layer + 3 * config.layers * (inner + config.width)
    else:
        senders = 1 + config.layers * (config.heads + 1)
        each = config.width * (2 * senders + 3 * reads) + layer
    need = 4 * length * each
    if need > memory:
        hint = "pass a larger memory=, or shorter prompts"
        what = f"at least {need} bytes, for the edges of one prompt of {length} positions"
        raise check.fail("memory", what, memory, hint)
    return memory // need


def measure(
    model: Any,
    found: Pairs,
    masks: Any,
    *,
    metric: Metric,
    memory: int | None = None,
    progress: bool | None = False,
) -> np.ndarray:
    """The metric of runs in which only the edges of a mask are clean.

    Args:
      model: as in `Pairs`.
      found: of that model.
      masks: (mask, receiver, sender), or (mask, position, receiver, sender); 1 is clean, 0 carries
        what the pair's `base` wrote.
      metric: the one that `found` was made with.
      memory: bytes of one step, see `size`.
      progress: show a bar; `None`: on a terminal.

    Returns:
      (mask, prompt) float32.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=1, heads=1, kv_heads=1, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> ones = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(ones, 2 * ones, ones, 4 * ones[:, 0], ones[:, :1], 2 * ones[:, :1])
      >>> found = Pairs(model, prompts, logit_difference)
      >>> on = measure(model, found, np.ones((1, *model.edges.shape)), metric=logit_difference)
      >>> np.allclose(on, found.clean, atol=1e-5)
      True
    """
    masks = np.asarray(masks, np.float32)
    room = size(model.config, found.length, memory)
    columns = []
    bar = tqdm(
        total=len(masks) * len(found), desc="edges", unit="run", delay=1,
        disable=None if progress is None else not progress,
    )  # fmt: skip
    with bar:
        for pair in found:
            # Few sizes: to run some masks too many takes less time than to compile again.
            wanted = next((n for n in _TOGETHER if len(masks) <= n), _TOGETHER[-1])
            together = int(min(max(room // len(pair.clean), 1), wanted))
            rows = []
            for start in range(0, len(masks), together):
                part = masks[start : start + together]
                # All parts have one size, so that they share a program: the last is filled up.
                full = np.concatenate([part, np.repeat(part[-1:], together - len(part), axis=0)])
                out = _run(model.params, pair, full, edges=model.edges, metric=metric)
                rows.append(np.asarray(out)[: len(part)])
                bar.update(len(part))
            columns.append(np.concatenate(rows))
    return np.concatenate(columns, axis=1)


@functools.partial(jax.jit, static_argnames=("edges", "metric"))
def _run(params: Any, pair: Pair, masks: Any, *, edges: Any, metric: Metric) -> jax.Array:
    def one(mask: jax.Array) -> jax.Array:
        logits = edges.run(params, pair.prompts.tokens, mask, pair.base, **pair.options)
        return metric(logits, pair.view, pair.logits)

    return jax.vmap(one)(masks)
