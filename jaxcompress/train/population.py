"""Many networks at once: whole training runs scanned on the device, one vmap over the members.

A member is a seed, a width (by a mask), a learning rate or a mixture of data; its numbers are one
row of `hyper`. Data are made inside the loss from a key, so nothing crosses to the device between
measurements.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcompress import check, tree
from jaxcompress.io import checkpoint
from jaxcompress.train import signals

__all__ = ["MEMBER", "PART", "folder", "grid", "train"]

MEMBER = "member"
"""Mesh axis over which the members are spread."""

PART = "part"
"""Mesh axis over which the parts of a step are spread if there are more devices than members."""

# Folded into the key for measurements; no step has this number, whose key the loss draws with.
_MEASURE = np.uint32(2**32 - 1)

Loss = Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]]
Measure = Callable[[Any, Any, Any], dict[str, Any]]
Schedule = Callable[[Any, Any], Any]
Optimizer = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


def grid(**axes: Sequence[Any]) -> dict[str, np.ndarray]:
    """Every combination of some values, as rows of `hyper`: the last axis runs fastest.

    Args:
      **axes: the values of each name.

    Returns:
      For every name an array (member,).

    Example:
      >>> {name: rows.tolist() for name, rows in grid(rate=[0.1, 0.2], seed=[0, 1]).items()}
      {'rate': [0.1, 0.1, 0.2, 0.2], 'seed': [0, 1, 0, 1]}
    """
    rows = list(itertools.product(*axes.values()))
    return {name: np.array([row[i] for row in rows]) for i, name in enumerate(axes)}


def folder(root: str | Path, settings: Any, name: str) -> Path | None:
    """Where a part of an experiment keeps its checkpoints: other settings have another folder.

    Args:
      root: folder for the checkpoints of experiments; empty for none.
      settings: all that the part depends on, with a `repr` that says it, such as a config.
      name: of the part.

    Example:
      >>> first, second = (folder("runs", {"rate": rate}, "broad") for rate in (0.1, 0.2))
      >>> first.name, first == second, folder("", {}, "broad")
      ('broad', False, None)
    """
    identity = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    return Path(root) / identity / name if root else None


def train(
    loss: Loss,
    params: Any,
    optimizer: Optimizer,
    *,
    keys: Any,
    steps: int,
    every: int,
    hyper: Any = None,
    schedule: Schedule | None = None,
    measure: Measure | None = None,
    parts: int = 1,
    together: int | None = None,
    devices: Sequence[Any] | None = None,
    checkpoints: str | Path | None = None,
    save_every: int | None = None,
    about: Mapping[str, Any] | None = None,
    name: str = "train",
    progress: bool = True,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Trains all members, and measures them every so many steps.

    Every step of a member gets its own key, folded from the member's and the number of the step.
    A run that was stopped and is called again with the same arguments goes on from its last
    checkpoint and ends in the same numbers, bit for bit; with checkpoints, SIGTERM is obeyed at the
    next measurement: save, and exit with status 0. A member whose loss becomes infinite stays so
    and harms no other. A checkpoint of another run (another start, keys, `hyper`, `parts`, `every`
    or `about`) is refused.

    Args:
      loss: `loss(params, key, hyper) -> (scalar, metrics)` of one member, the metrics a dict.
      params: pytree whose leaves have a leading member axis; it can be used again afterwards.
      optimizer: an optax transformation, or a function of one member's `hyper` that returns one,
        such as `lambda hyper: optax.adam(hyper["rate"])`.
      keys: (member,) typed PRNG keys.
      steps: updates in all, a multiple of `every`.
      every: updates in one compiled call, and between measurements.
      hyper: pytree whose leaves have a leading member axis, or `None`.
      schedule: `schedule(hyper, step)`, what the loss gets in place of one member's `hyper` at a
        step, for curricula.
      measure: `measure(params, key, hyper) -> dict` of arrays, of one member after each call.
      parts: of a step, each with its own key and its own call of the loss, one after the other;
        losses, metrics and gradients are means over them. Parts that fit into a cache are faster
        than one whole on a CPU.
      together: members in one vmap; groups of so many run one after the other. All by default.
      devices: what the members are spread over in equal shares and, where there are fewer members
        than devices, the parts; by default as many of `jax.devices()` as can be used so.
      checkpoints: folder for checkpoints, of which the last two are kept; `None` for none.
      save_every: steps between checkpoints, a multiple of `every`; by default `every`.
      about: what else the numbers depend on, in values that JSON has, such as the settings of the
        loss and of the optimizer: `train` cannot look into functions.
      name: for the progress bar.
      progress: whether to show a progress bar.

    Returns:
      The parameters after the last step, and the history: `step` (time,), for `loss` and every
      metric (time, member, ...) means over the steps since the last measurement, and what `measure`
      returns likewise, as NumPy arrays.

    Raises:
      ValueError: for arguments out of range, leaves without the member axis, a name that the loss
        and the measure both use, and checkpoints that cannot be written, are of another run or
        beyond `steps`.
      SystemExit: with status 0, after SIGTERM.

    Example:
      >>> def loss(w, key, hyper):
      ...     return ((w - jax.random.normal(key)) ** 2).mean(), {}
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> rates = grid(rate=[0.0, 0.1])
      >>> w, history = train(loss, jnp.ones((2, 3)), lambda hyper: optax.sgd(hyper["rate"]),
      ...                    keys=keys, hyper=rates, steps=20, every=10, progress=False)
      >>> history["step"].tolist(), history["loss"].shape, w[0].tolist()
      ([10, 20], (2, 2), [1.0, 1.0, 1.0])
    """
    members = _members(params, keys, hyper)
    save_every = _check(steps, every, save_every, parts, together)
    mesh = _mesh(devices, members, parts)
    program = _Program(loss, optimizer, schedule, measure, every, parts, together, mesh)
    here = NamedSharding(program.mesh, PartitionSpec(MEMBER))
    # The compiled call overwrites the state it is given; the caller's must survive that.
    params, keys, hyper = jax.device_put(jax.tree.map(jnp.array, (params, keys, hyper)), here)
    # Programs that differ in other things than the optimizer start alike, in one compilation.
    alike = _Program(None, optimizer, None, None, 1, 1, together, mesh)
    state = (params, _start(params, hyper, program=alike))
    known: dict[str, Any] = {}
    if checkpoints is not None:
        known = {"start": checkpoint.fingerprint((params, keys, hyper)), "parts": parts}
        known |= {"every": every, **(about or {})}
    (state, history), saved = _resume(state, keys, hyper, program, checkpoints, known)
    done = saved or 0
    if done > steps:
        where = Path(str(checkpoints)) / str(done)
        raise check.fail("steps", f"at least {done}, those of {where}", steps)
    nothing_to_save = contextlib.nullcontext(lambda: False)
    with (
        nothing_to_save if checkpoints is None else signals.held() as terminated,
        tqdm.tqdm(total=steps, initial=done, desc=name, disable=not progress) as bar,
    ):
        while done < steps:
            state, seen = _chunk(state, keys, hyper, np.int32(done), program=program)
            seen = {key: np.asarray(value) for key, value in seen.items()}
            done += every
            for key, rows in history.items():
                rows.append(np.int32(done) if key == "step" else seen[key])
            bar.update(every)
            bar.set_postfix(loss=f"{np.median(seen['loss']):.3g}")
            stop = terminated()
            if checkpoints is not None and (stop or done % save_every == 0 or done == steps):
                checkpoint.save(checkpoints, done, (state, _stacked(history)), about=known)
            if stop:
                raise SystemExit(0)
    return state[0], _stacked(history)


@dataclasses.dataclass(frozen=True)
class _Program:
    """What one compiled program is made of; it is its key in the cache of compiled programs."""

    loss: Any
    optimizer: Any
    schedule: Schedule | None
    measure: Measure | None
    every: int
    parts: int
    together: int | None
    mesh: Mesh

    def transformation(self, hyper: Any) -> optax.GradientTransformation:
        """The optimizer of one member."""
        given = self.optimizer
        return given if isinstance(given, optax.GradientTransformation) else given(hyper)

    def gradient(self, params: Any, key: Any, hyper: Any) -> Any:
        """Loss, metrics and gradient of a step: means over its parts, wherever they are."""
        of_part = jax.value_and_grad(self.loss, has_aux=True)
        if self.parts == 1:
            return of_part(params, key, hyper)
        here = self.parts // self.mesh.shape[PART]

        def part(number: Any) -> Any:
            return of_part(params, jax.random.fold_in(key, number), hyper)

        def add(total: Any, number: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, part(number)), None

        first = jax.lax.axis_index(PART) * here
        numbers = first + jnp.arange(1, here)
        total, _ = jax.lax.scan(add, part(first), numbers)
        return jax.tree.map(lambda leaf: jax.lax.psum(leaf, PART) / self.parts, total)

    def over(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function` of each member, the members spread over the devices."""

        def local(*arguments: Any) -> Any:
            if self.together is None:
                return jax.vmap(function)(*arguments)
            return jax.lax.map(lambda row: function(*row), arguments, batch_size=self.together)

        spec = PartitionSpec(MEMBER)
        # What a loss does inside is its own affair; nothing is shared between members.
        apart = jax.shard_map(local, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)
        return apart(*arguments)


@functools.partial(jax.jit, static_argnames="program")
def _start(params: Any, hyper: Any, *, program: _Program) -> Any:
    def init(params: Any, hyper: Any) -> Any:
        return program.transformation(hyper).init(params)

    return program.over(init, params, hyper)


@functools.partial(jax.jit, static_argnames="program", donate_argnums=0)
def _chunk(
    state: Any, keys: Any, hyper: Any, first: Any, *, program: _Program
) -> tuple[Any, dict[str, Any]]:
    """`every` steps of all members, and what was seen in them and after them."""

    def member(state: Any, key: Any, hyper: Any, first: Any) -> tuple[Any, dict[str, Any]]:
        optimizer = program.transformation(hyper)

        def step(state: Any, number: Any) -> tuple[Any, dict[str, Any]]:
            params, opt_state = state
            now = hyper if program.schedule is None else program.schedule(hyper, number)
            key_of_step = jax.random.fold_in(key, number)
            (value, metrics), slope = program.gradient(params, key_of_step, now)
            updates, opt_state = optimizer.update(slope, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), metrics | {"loss": value}

        state, seen = jax.lax.scan(step, state, first + jnp.arange(program.every))
        seen = jax.tree.map(lambda leaf: leaf.mean(axis=0), seen)
        if program.measure is not None:
            last = jax.random.fold_in(jax.random.fold_in(key, _MEASURE), first + program.every)
            measured = program.measure(state[0], last, hyper)
            twice = sorted(set(measured) & (set(seen) | {"step"}))
            if twice:
                raise check.fail("measure", "names that the loss does not use", twice)
            seen = seen | measured
        return state, seen

    return program.over(member, state, keys, hyper, jnp.full(keys.shape, first))


def _resume(
    state: Any,
    keys: Any,
    hyper: Any,
    program: _Program,
    checkpoints: str | Path | None,
    about: Mapping[str, Any],
) -> tuple[tuple[Any, dict[str, list[Any]]], int | None]:
    """State and history to go on from, and the step of their checkpoint."""
    first = np.int32(0)
    _, seen = jax.eval_shape(functools.partial(_chunk, program=program), state, keys, hyper, first)
    history: dict[str, list[Any]] = {"step": [], **{name: [] for name in sorted(seen)}}
    if checkpoints is None:
        return (state, history), None
    checkpoint.prepare(checkpoints, tree.nbytes(state))
    saved = checkpoint.latest(checkpoints)
    if saved is None:
        return (state, history), None
    times = saved // program.every
    blank = {k: jnp.zeros((times, *leaf.shape), leaf.dtype) for k, leaf in seen.items()}
    blank["step"] = jnp.zeros(times, jnp.int32)
    state, past = checkpoint.restore(checkpoints, (state, blank), saved, about=about)
    return (state, {name: list(np.asarray(past[name])) for name in history}), saved


def _stacked(history: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack(rows) if rows else np.zeros(0) for name, rows in history.items()}


def _mesh(devices: Sequence[Any] | None, members: int, parts: int) -> Mesh:
    def split(count: int) -> tuple[int, int]:
        """Devices along the members, and along the parts."""
        along = math.gcd(members, count)
        return along, count // along

    if devices is None:
        found = jax.devices()
        # One device is always possible.
        usable = [n for n in range(1, len(found) + 1) if parts % split(n)[1] == 0]
        devices = found[: max(usable)]
    elif not devices or parts % split(len(devices))[1]:
        expected = f"a number that divides {members} members times {parts} parts"
        raise check.fail("devices", expected, len(devices))
    kinds = (AxisType.Auto, AxisType.Auto)
    shape = split(len(devices))
    return jax.make_mesh(shape, (MEMBER, PART), axis_types=kinds, devices=devices)


def _members(params: Any, keys: Any, hyper: Any) -> int:
    """How many there are; all leaves must agree."""
    typed = jnp.issubdtype(getattr(keys, "dtype", float), jax.dtypes.prng_key)
    if not typed or keys.ndim != 1 or not len(keys):
        got = getattr(keys, "shape", type(keys).__name__)
        raise check.fail("keys", "typed PRNG keys of shape (member,)", got)
    for name, given in (("params", params), ("hyper", hyper)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(given):
            if np.shape(leaf)[:1] != keys.shape:
                where, got = name + jax.tree_util.keystr(path), f"shape {np.shape(leaf)}"
                raise check.fail(where, f"a leading axis of {len(keys)} members", got)
    return len(keys)


def _check(steps: int, every: int, save_every: int | None, parts: int, together: int | None) -> int:
    """Steps between checkpoints."""
    check.integer("every", every, 1)
    check.integer("steps", steps, 0)
    check.integer("parts", parts, 1)
    check.multiple("steps", steps, every, "every")
    if together is not None:
        check.integer("together", together, 1)
    save_every = every if save_every is None else check.integer("save_every", save_every, 1)
    return check.multiple("save_every", save_every, every, "every")
