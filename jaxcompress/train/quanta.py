"""Many sparse-parity tasks with Zipf frequencies: loss by parameters, by data and by steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check
from jaxcompress.data import parity as data
from jaxcompress.models import MLPConfig
from jaxcompress.narrow.parity import BIT
from jaxcompress.narrow.scaling import reached
from jaxcompress.train import parity as lab
from jaxcompress.train import population

__all__ = ["LEARNED", "Mixture", "train_quanta"]

LEARNED = 0.1
"""Bits of loss below which a task is learned."""

# Folded into a member's key for its data set; no step has this number, whose key draws the batch.
_DATA = np.uint32(2**32 - 2)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Tasks, and how networks of one hidden layer are trained on them; as published by default.

    Attributes:
      bits: random bits of an example.
      tasks: how many.
      size: bits of each task.
      width: hidden neurons.
      steps: updates, a multiple of `every`.
      batch: examples of a step.
      every: steps between measurements.
      rate: of Adam.
    """

    bits: int = 100
    tasks: int = 500
    size: int = 3
    width: int = 300
    steps: int = 100_000
    batch: int = 20_000
    every: int = 500
    rate: float = 1e-3


def train_quanta(
    mixture: Mixture,
    by: str,
    *,
    alphas: Sequence[float],
    sizes: Sequence[int] = (),
    seeds: int = 1,
    checkpoints: str | Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Trains networks of all sizes, exponents and seeds in one program.

    Args:
      mixture: the tasks and the training.
      by: what differs: the width (`parameters`), the examples of a data set that is gone through
        again and again (`data`), or nothing: fresh examples, measured all the time (`steps`).
      alphas: Zipf exponents of the frequencies, less 1.
      sizes: hidden neurons, or examples; none by steps.
      seeds: networks of each kind.
      checkpoints: folder with which an interrupted run goes on.
      progress: whether to show a progress bar.

    Returns:
      Rows with `by`, `alpha`, `seed`, `tasks`, `x` (parameters, examples or steps), `loss` (mean in
      bits by frequency; with a data set the lowest on the way) and `learned`, how many tasks are
      below `LEARNED`. By steps also a row `by` "task" for each: `x` is its number, `frequency`, the
      `curve` of its loss, and the `step` at which it was learned (NaN: never).

    Raises:
      ValueError: for an unknown `by`, and sizes that are missing or no whole numbers.

    Example:
      >>> tiny = Mixture(bits=6, tasks=2, size=1, width=4, steps=2, batch=8, every=1)
      >>> rows = train_quanta(tiny, "steps", alphas=[0.4], progress=False)
      >>> [(row["by"], row["x"]) for row in rows]
      [('steps', 1), ('steps', 2), ('task', 0), ('task', 1)]

    Reference: Michaud et al. 2023 (arXiv 2303.13506), section 3.
    """
    check.known("by", by, ("parameters", "data", "steps"))
    if not sizes and by != "steps":
        raise check.fail("sizes", "at least one", "none")
    for size in sizes:
        check.integer("sizes", size, 1)
    parity = data.multitask(mixture.bits, mixture.tasks, mixture.size)
    width = max(sizes) if by == "parameters" else mixture.width
    shape = MLPConfig(parity.inputs, width, 2)
    members = population.grid(alpha=alphas, size=sizes or (width,), seed=range(seeds))
    keys = jax.vmap(jax.random.key)(members["seed"])
    widths = members["size"] if by == "parameters" else None
    params, gates = lab.initial(shape, keys, widths)
    often = np.stack([data.zipf(mixture.tasks, 1 + alpha) for alpha in members["alpha"]])
    hyper = {"gates": gates, "weights": often}
    if by == "data":
        of_data = jax.vmap(lambda key: jax.random.fold_in(key, _DATA))(keys)
        hyper |= {"examples": members["size"], "data": of_data}
    _, history = lab.train(
        parity, shape, params=params, keys=keys, hyper=hyper, steps=mixture.steps,
        batch=mixture.batch, every=mixture.every, rate=mixture.rate, eps=1e-8, stratified=False,
        test=100, checkpoints=checkpoints, name=by, progress=progress,
    )  # fmt: skip
    by_task = history["test_loss"] / BIT
    losses, rows = (by_task * often).sum(axis=-1), []
    for i, (alpha, size, seed) in enumerate(zip(*members.values(), strict=True)):
        label = {"alpha": float(alpha), "seed": int(seed), "tasks": mixture.tasks}
        times = range(len(losses)) if by == "steps" else [len(losses) - 1]
        if by == "data":
            times = [int(losses[:, i].argmin())]
        for time in times:
            x = {
                "parameters": int(size) * (parity.inputs + 3) + 2,
                "data": int(size),
                "steps": int(history["step"][time]),
            }[by]
            learned = int((by_task[time, i] < LEARNED).sum())
            row = {"by": by, "x": x, "loss": float(losses[time, i]), "learned": learned}
            rows.append(label | row)
        if by == "steps":
            rows += _tasks(label, history["step"], by_task[:, i], often[i])
    return rows


def _tasks(label: dict[str, Any], steps: Any, losses: Any, often: Any) -> list[dict[str, Any]]:
    """A row for each task of one network."""
    when, rows = reached(steps, losses, LEARNED), []
    for task, curve in enumerate(losses.T):
        row = {"by": "task", "x": task, "frequency": float(often[task]), "step": float(when[task])}
        rows.append(label | row | {"curve": [round(float(value), 4) for value in curve]})
    return rows
