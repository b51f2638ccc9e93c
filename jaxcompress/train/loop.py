"""The loop: many steps in one compiled call, logged, and resumable to the bit."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxcompress import check, runs
from jaxcompress.io import checkpoint
from jaxcompress.train.state import State
from jaxcompress.train.step import Step

__all__ = ["fit"]

_DATA = 1  # folded into the key for the choice of rows, apart from what the loss draws with it


def fit(
    state: State,
    step: Step,
    data: Any,
    steps: int,
    *,
    batch: int,
    chunk: int = 50,
    run: runs.Run | None = None,
    checkpoints: str | Path | None = None,
    every: int | None = None,
    name: str = "train",
    progress: bool = True,
) -> State:
    """Trains until `state.step` is `steps`.

    Each step takes `batch` rows of the data at random, with replacement, which depends on the key
    of the state and the number of the step only. A run that was stopped and is called again with
    the same arguments goes on from its last checkpoint and ends in the same numbers, bit for bit.

    Args:
      state: where to start, if there is no checkpoint; it can be used again afterwards.
      step: made by `make_step`.
      data: pytree of arrays with a common leading axis of rows; put on the device whole.
      steps: updates in all, those before a resumption included.
      batch: rows of a step.
      chunk: steps in one compiled call. Metrics are means over a chunk.
      run: run folder that a row of metrics is logged to for every chunk.
      checkpoints: folder for checkpoints, of which the last two are kept; `None` for none.
      every: steps between checkpoints, a multiple of `chunk`; by default `chunk`.
      name: what is trained, for the progress bar and the rows.
      progress: whether to show a progress bar.

    Returns:
      The state after the last step.

    Raises:
      ValueError: if the loss is no longer finite, if a checkpoint is of another kind of state, or
        for arguments out of range.

    Example:
      >>> import optax
      >>> from jaxcompress.train import create, make_step
      >>> optimizer = optax.sgd(0.1)
      >>> step = make_step(lambda w, x, key: (((w - x) ** 2).mean(), {}), optimizer)
      >>> state = create(jnp.ones(()), optimizer, jax.random.key(0))
      >>> state = fit(state, step, jnp.zeros(8), 100, batch=4, progress=False)
      >>> int(state.step), float(state.params) < 1e-6
      (100, True)
    """
    every = _check(data, steps, batch, chunk, every)
    if checkpoints is not None and checkpoint.latest(checkpoints) is not None:
        state = checkpoint.restore(checkpoints, state)
    # The compiled call overwrites the state it is given; the caller's must survive that.
    state = jax.tree.map(jnp.copy, state)
    data = jax.tree.map(jnp.asarray, data)
    done = int(state.step)
    with tqdm.tqdm(total=steps, initial=done, desc=name, disable=not progress) as bar:
        while done < steps:
            length = min(chunk - done % chunk, steps - done)
            state, metrics = _chunk(state, data, step=step, batch=batch, length=length)
            done += length
            row = {key: float(value) for key, value in metrics.items()}
            if not np.isfinite(row["loss"]):
                hint = "Lower the learning rate or the clipping norm"
                raise check.fail(f"loss of {name}", f"finite at step {done}", row["loss"], hint)
            bar.update(length)
            bar.set_postfix({key: f"{value:.3g}" for key, value in row.items()})
            if run is not None:
                runs.log(run, name=name, step=done, **row)
            if checkpoints is not None and (done % every == 0 or done == steps):
                checkpoint.save(checkpoints, done, state)
    return state


def _check(data: Any, steps: int, batch: int, chunk: int, every: int | None) -> int:
    check.integer("steps", steps, 0)
    check.integer("batch", batch, 1)
    check.integer("chunk", chunk, 1)
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        raise check.fail("data", "arrays with one common number of rows", sorted(sizes))
    every = chunk if every is None else check.integer("every", every, 1)
    if every % chunk:
        raise check.fail("every", f"a multiple of chunk ({chunk})", every)
    return every


@functools.partial(jax.jit, static_argnames=("step", "batch", "length"), donate_argnums=0)
def _chunk(
    state: State, data: Any, *, step: Step, batch: int, length: int
) -> tuple[State, dict[str, Any]]:
    """`length` steps and the means of their metrics."""
    rows = jax.tree.leaves(data)[0].shape[0]

    def body(state: State, _: None) -> tuple[State, dict[str, Any]]:
        key = jax.random.fold_in(jax.random.fold_in(state.key, _DATA), state.step)
        chosen = jax.random.randint(key, (batch,), 0, rows)
        return step(state, jax.tree.map(lambda leaf: leaf[chosen], data))

    state, metrics = jax.lax.scan(body, state, None, length=length)
    return state, jax.tree.map(lambda value: value.mean(), metrics)
