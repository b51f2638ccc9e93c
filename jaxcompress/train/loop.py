"""The loop: many steps in one compiled call, logged, and resumable to the bit."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Mesh

from jaxcompress import check, runs, tree
from jaxcompress.data.curriculum import Curriculum
from jaxcompress.io import checkpoint
from jaxcompress.train import signals
from jaxcompress.train.loggers import Logger
from jaxcompress.train.sharding import DATA, shardings, spread
from jaxcompress.train.state import State
from jaxcompress.train.step import Step

__all__ = ["fit"]

# Folded into the key for the choice of rows. Step 1 has the same key: its part n, if it is cut into
# parts, draws with the key that chooses the rows of step n. Another number would change every run.
_DATA = 1


def fit(
    state: State,
    step: Step,
    data: Any,
    steps: int,
    *,
    batch: int,
    chunk: int = 50,
    run: runs.Run | None = None,
    loggers: Sequence[Logger] = (),
    checkpoints: str | Path | None = None,
    every: int | None = None,
    about: Mapping[str, Any] | None = None,
    curriculum: Curriculum | None = None,
    sizes: Sequence[int] | None = None,
    mesh: Mesh | None = None,
    name: str = "train",
    progress: bool = True,
) -> State:
    """Trains until `state.step` is `steps`.

    Each step takes `batch` rows of the data at random, with replacement, which depends on the key
    of the state and the number of the step only. A run that was stopped and is called again with
    the same arguments goes on from its last checkpoint and ends in the same numbers, bit for bit.
    A checkpoint of another run (another start, data, batch or `about`) is refused. The compiled
    program is let go at the end, so that calling again with the same step compiles again.
    With checkpoints, SIGTERM is obeyed at the end of the chunk: save, and exit with status 0.

    Args:
      state: where to start, if there is no checkpoint; it can be used again afterwards.
      step: made by `make_step`.
      data: pytree of arrays with a common leading axis of rows; put on the device whole, but for
        memory-mapped ones, of which only the rows in use are read.
      steps: updates in all, those before a resumption included.
      batch: rows of a step.
      chunk: steps in one compiled call. Metrics are means over a chunk.
      run: run folder that a row of metrics is logged to for every chunk; what was logged there
        after the checkpoint that is gone on from is forgotten.
      loggers: see `loggers`; they get the same rows.
      checkpoints: folder for checkpoints, of which the last two are kept; `None` for none.
      every: steps between checkpoints, a multiple of `chunk`; by default `chunk`.
      about: what else the numbers depend on, in values that JSON has, such as the settings of the
        loss and of the optimiser: `fit` cannot look into functions.
      curriculum: in which order the tasks are shown that the rows are of, those of each one after
        those of the other; by default all rows are drawn alike.
      sizes: rows of each of its tasks; left out, as many of each.
      mesh: devices to spread the rows of a batch and the parameters over, see `shardings`; by
        default one device.
      name: what is trained, for the progress bar and the rows.
      progress: whether to show a progress bar.

    Returns:
      The state after the last step.

    Raises:
      ValueError: if the loss, the gradient or a parameter is no longer finite, if a checkpoint
        cannot be written, is of another run or beyond `steps`, or for arguments out of range.
      SystemExit: with status 0, after SIGTERM.

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
    count, every = _check(data, steps, batch, chunk, every, mesh)
    parts = _parts(curriculum, sizes, count)
    data = jax.tree.map(lambda leaf: leaf if _mapped(leaf) else jnp.asarray(leaf), data)
    known = {} if checkpoints is None else _known_by(state, data, batch, about, parts)
    state, saved = _begin(state, checkpoints, known, mesh)
    done = int(state.step)
    if run is not None:
        runs.forget(run, lambda row: row.get("name") == name and row.get("step", 0) > done)
    if saved is not None and done > steps:
        raise check.fail("steps", f"at least {done}, those of {_where(checkpoints, saved)}", steps)
    # A function of this call alone: its compiled program goes when the call ends. Kept for every
    # step there was, programs would fill the memory of a process that trains many models.
    run_chunk = jax.jit(functools.partial(_chunk, step=step), donate_argnums=0)
    with _held(checkpoints) as terminated, _bar(name, done, steps, progress) as bar:
        while done < steps:
            length = min(chunk - done % chunk, steps - done)
            rows = _rows(state.key, done, parts, batch=batch, length=length, count=count)
            rows = np.asarray(rows)
            state, seen, finite = run_chunk(state, _batches(data, rows, mesh))
            seen = {key: np.asarray(value) for key, value in seen.items()}
            _refuse_infinite(name, seen, bool(finite), done, rows, _where(checkpoints, saved))
            done += length
            row = {key: float(value.mean()) for key, value in seen.items()}
            _log(row, done, name, run, loggers)
            bar.update(length)
            bar.set_postfix({key: f"{value:.3g}" for key, value in row.items()})
            if checkpoints is not None and (done % every == 0 or done == steps):
                checkpoint.save(checkpoints, done, state, about=known)
                saved = done
            if checkpoints is not None and terminated():
                if saved != done:
                    checkpoint.save(checkpoints, done, state, about=known)
                _exit(name, _where(checkpoints, done))
    return state


def _check(
    data: Any, steps: int, batch: int, chunk: int, every: int | None, mesh: Mesh | None
) -> tuple[int, int]:
    """Rows of the data, and steps between checkpoints."""
    check.integer("steps", steps, 0)
    check.integer("batch", batch, 1)
    check.integer("chunk", chunk, 1)
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        raise check.fail("data", "arrays with one common number of rows", sorted(sizes))
    every = chunk if every is None else check.integer("every", every, 1)
    if every % chunk:
        raise check.fail("every", f"a multiple of chunk ({chunk})", every)
    parts = 1 if mesh is None else mesh.shape.get(DATA, 1)
    if batch % parts:
        raise check.fail("batch", f"a multiple of the mesh's axis {DATA!r} ({parts})", batch)
    return sizes.pop()[0], every


def _known_by(
    start: State,
    data: Any,
    batch: int,
    about: Mapping[str, Any] | None,
    parts: Any,
) -> dict[str, Any]:
    """What the checkpoints of a run have in common, and those of another have not."""
    prints = {"start": checkpoint.fingerprint(start), "data": checkpoint.fingerprint(data)}
    if parts is not None:
        curriculum, _, sizes = parts
        prints["curriculum"] = checkpoint.fingerprint({**vars(curriculum), "sizes": sizes})
    return {**prints, "batch": batch, **(about or {})}


def _begin(
    state: State, checkpoints: str | Path | None, known: dict[str, Any], mesh: Mesh | None
) -> tuple[State, int | None]:
    """The state to go on from, where it belongs, and the step of its checkpoint."""
    if mesh is not None:
        state = jax.device_put(state, shardings(state, mesh))
    saved = None
    if checkpoints is not None:
        checkpoint.prepare(checkpoints, tree.nbytes(state))
        saved = checkpoint.latest(checkpoints)
    if saved is not None:
        state = checkpoint.restore(str(checkpoints), state, saved, about=known)
    # The compiled call overwrites the state it is given; the caller's must survive that.
    return jax.tree.map(jnp.copy, state), saved


def _held(checkpoints: str | Path | None) -> Any:
    nothing_to_save = contextlib.nullcontext(lambda: False)
    return nothing_to_save if checkpoints is None else signals.held()


def _bar(name: str, done: int, steps: int, progress: bool) -> tqdm.tqdm:
    return tqdm.tqdm(total=steps, initial=done, desc=name, disable=not progress)


def _mapped(leaf: Any) -> bool:
    return isinstance(leaf, np.memmap)


def _parts(
    curriculum: Curriculum | None, sizes: Sequence[int] | None, count: int
) -> tuple[Curriculum, np.ndarray, np.ndarray] | None:
    """With the curriculum, where the rows of each task begin and how many there are."""
    if curriculum is None:
        if sizes is not None:
            raise check.fail(
                "sizes", "nothing without a curriculum, whose tasks they are of", sizes
            )
        return None
    tasks = len(curriculum.opens)
    if sizes is None:
        if count % tasks:
            raise check.fail("data", f"as many rows of {tasks} tasks", f"{count} rows")
        sizes = [count // tasks] * tasks
    if len(sizes) != tasks or min(sizes) < 1 or sum(sizes) != count:
        expected = f"for each of {tasks} tasks a number of rows, {count} in all"
        raise check.fail("sizes", expected, list(sizes))
    return curriculum, np.cumsum([0, *sizes[:-1]]), np.array(sizes)


@functools.partial(jax.jit, static_argnames=("batch", "length", "count"))
def _rows(key: Any, first: Any, parts: Any, *, batch: int, length: int, count: int) -> jax.Array:
    """(step, row) numbers of the rows that `length` steps take."""
    key = jax.random.fold_in(key, _DATA)

    def of_step(step: Any) -> jax.Array:
        own = jax.random.fold_in(key, step)
        if parts is None:
            return jax.random.randint(own, (batch,), 0, count)
        curriculum, starts, sizes = parts
        which, where = jax.random.split(own)
        shares = jnp.log(curriculum.weights(step))
        task = jax.random.categorical(which, shares, shape=(batch,))
        return starts[task] + jax.random.randint(where, (batch,), 0, sizes[task])

    return jax.vmap(of_step)(first + jnp.arange(length))


def _batches(data: Any, rows: np.ndarray, mesh: Mesh | None) -> Any:
    batches = jax.tree.map(lambda leaf: leaf[rows], data)
    return batches if mesh is None else spread(batches, mesh)


def _chunk(state: State, batches: Any, *, step: Step) -> tuple[State, dict[str, Any], jax.Array]:
    """One step for each of the batches, the metrics of each, and whether what is left is finite."""
    state, seen = jax.lax.scan(step, state, batches)
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]
    return state, seen, jnp.array(finite).all()


def _refuse_infinite(
    name: str, seen: dict[str, np.ndarray], finite: bool, done: int, rows: np.ndarray, where: str
) -> None:
    """Raises for the first step whose loss or gradient is not finite, or parameters after all."""
    last = f"the last good checkpoint is {where}. Lower the learning rate or the clipping norm"
    for metric in ("loss", "grad_norm"):
        bad = np.flatnonzero(~np.isfinite(seen.get(metric, np.zeros(1))))
        if not bad.size:
            continue
        first = int(bad[0])
        hint = f"Its batch was rows {rows[first].tolist()}; {last}"
        step, value = done + first + 1, float(seen[metric][first])
        raise check.fail(f"{metric} of {name}", f"finite at step {step}", value, hint)
    if not finite:  # the loss and the gradient of a step are those of the parameters before it
        expected = f"finite after step {done + len(rows)}"
        raise check.fail(f"parameters of {name}", expected, "NaN or infinite ones", f"T{last[1:]}")


def _where(checkpoints: str | Path | None, saved: int | None) -> str:
    return "none" if checkpoints is None or saved is None else str(Path(checkpoints) / str(saved))


def _exit(name: str, where: str) -> None:
    tqdm.tqdm.write(f"{name}: stopped by SIGTERM, {where} saved", file=sys.stderr)
    raise SystemExit(0)


def _log(
    row: dict[str, float], step: int, name: str, run: runs.Run | None, loggers: Sequence[Logger]
) -> None:
    if run is not None:
        runs.log(run, name=name, step=step, **row)
    for log in loggers:
        log(name, step, row)
