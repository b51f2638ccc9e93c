"""Training of sparse-parity networks: seeds, widths, mixtures and penalties in one program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcompress import check
from jaxcompress.data.parity import Parity
from jaxcompress.models import mlp
from jaxcompress.narrow.parity import evaluate, narrower, objective
from jaxcompress.train import population

__all__ = ["initial", "measuring", "train"]

_HYPER = ("gates", "weights", "penalty", "examples", "data", "plan", "rate")


def initial(shape: mlp.MLPConfig, keys: Any, widths: Any = None) -> tuple[Any, Any]:
    """Fresh parameters and gates of networks of some widths, see `narrow.parity.narrower`.

    Args:
      shape: of the widest.
      keys: (member,) typed PRNG keys.
      widths: (member,) neurons of a hidden layer; by default all.

    Raises:
      ValueError: for widths below 1 or above that of the shape.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> params, gates = initial(mlp.MLPConfig(4, 8, 2), keys, [2, 4, 8])
      >>> params["first"]["kernel"].shape, gates.sum(axis=(1, 2)).tolist()
      ((3, 4, 8), [2.0, 4.0, 8.0])
    """
    widths = np.full(len(keys), shape.width) if widths is None else np.asarray(widths)
    check.shape("widths", widths, [(len(keys),)], "(member,)")
    for width in widths:
        check.integer("widths", width, 1, shape.width)
    return _initial(keys, jnp.asarray(widths), shape=shape)


@functools.partial(jax.jit, static_argnames="shape")
def _initial(keys: Any, widths: Any, *, shape: mlp.MLPConfig) -> tuple[Any, Any]:
    return jax.vmap(lambda key, width: narrower(mlp.init(shape, key), width))(keys, widths)


def train(
    parity: Parity,
    shape: mlp.MLPConfig,
    *,
    keys: Any,
    steps: int,
    batch: int,
    every: int,
    rate: float = 1e-3,
    eps: float = 1e-5,
    parts: int = 1,
    params: Any = None,
    hyper: Mapping[str, Any] | None = None,
    penalty: Callable[[Any], Any] | None = None,
    stratified: bool = True,
    test: int = 0,
    checkpoints: str | Path | None = None,
    name: str = "train",
    progress: bool = True,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Trains networks with Adam on fresh examples in every step.

    Args:
      parity: the tasks.
      shape: of the networks.
      keys: (member,) typed PRNG keys.
      steps: updates, a multiple of `every`.
      batch: examples of a step.
      every: steps between points of the history.
      rate: learning rate; `hyper["rate"]`, one for each member, comes before it.
      eps: of Adam.
      parts: of a step, one after the other; see `population.train`.
      params: to start from, with a member axis; by default fresh ones.
      hyper: with a member axis, what `narrow.parity.objective` reads, `rate`, and `plan`, a
        `Curriculum` that makes the weights of every step.
      penalty: of the parameters, weighted by `hyper["penalty"]`.
      stratified: give every task its exact share of the examples, instead of drawing tasks.
      test: fresh examples of each task to measure on at every point; 0 for none.
      checkpoints: folder with which an interrupted run goes on; at most ten checkpoints.
      name: for the progress bar.
      progress: whether to show one.

    Returns:
      Parameters and history, as `population.train` does, with (time, member, task) `task_loss` (NaN
      where it was not shown) and `shown`, and, with `test`, `test_loss` and `accuracy`.

    Raises:
      ValueError: for names in `hyper` that nothing reads, a batch that the parts do not divide, a
        stratified part with fewer examples than tasks, and checkpoints of another run.

    Example:
      >>> from jaxcompress.data.parity import compositional
      >>> parity, keys = compositional(4, 2, 1, [[0], [1]]), jax.random.split(jax.random.key(0), 2)
      >>> _, history = train(parity, mlp.MLPConfig(parity.inputs, 8, 2), keys=keys, steps=200,
      ...                    batch=20, every=200, rate=0.03, test=50, progress=False)
      >>> history["accuracy"].shape, bool((history["accuracy"] > 0.9).all())
      ((1, 2, 2), True)
    """
    hyper = {"rate": np.full(len(keys), rate, np.float32)} | dict(hyper or {})
    for key in hyper:
        check.known("hyper", key, _HYPER)
    check.integer("parts", parts, 1)
    if check.integer("batch", batch, 1) % parts:
        raise check.fail("batch", f"a multiple of parts ({parts})", batch)
    if stratified and batch // parts < len(parity.codes):
        expected = f"at least one example of each of {len(parity.codes)} tasks in every part"
        raise check.fail("batch", expected, f"{batch} in {parts} parts")
    params, history = population.train(
        _objective(parity, shape, batch // parts, penalty, stratified),
        initial(shape, keys)[0] if params is None else params,
        _adam(eps),
        keys=keys,
        steps=steps,
        every=every,
        hyper=hyper,
        schedule=_planned if "plan" in hyper else None,
        measure=measuring(parity, shape, test) if test else None,
        parts=parts,
        checkpoints=checkpoints,
        save_every=max(1, -(-steps // (10 * every))) * every,
        about={
            "parity": dataclasses.asdict(parity), "shape": dataclasses.asdict(shape),
            "batch": batch, "eps": eps, "stratified": stratified, "test": test,
            "penalty": getattr(penalty, "__qualname__", type(penalty).__name__),
        },
        name=name, progress=progress,
    )  # fmt: skip
    # Steps without an example of a task say nothing of its loss.
    present = history.pop("present")
    mean = history["task_loss"] / np.maximum(present, 1e-9)
    return params, history | {"task_loss": np.where(present > 0, mean, np.nan)}


# Equal arguments give the same function, for which there is a compiled program already.
@functools.cache
def _objective(
    parity: Parity, shape: mlp.MLPConfig, size: int, penalty: Any, stratified: bool
) -> Any:
    forward = functools.partial(mlp.apply, shape)
    return objective(forward, parity, size, penalty=penalty, stratified=stratified)


@functools.cache
def measuring(
    parity: Parity, shape: mlp.MLPConfig, size: int, tasks: tuple[int, ...] | None = None
) -> Callable[[Any, Any, Any], Any]:
    """`narrow.parity.evaluate` of networks of a shape; the same function for equal arguments.

    Example:
      >>> from jaxcompress.data.parity import compositional
      >>> parity = compositional(4, 2, 1, [[0], [1]])
      >>> shape = mlp.MLPConfig(parity.inputs, 8, 2)
      >>> measure = measuring(parity, shape, 10)
      >>> measure(mlp.init(shape, jax.random.key(0)), jax.random.key(1), {})["accuracy"].shape
      (2,)
    """
    return evaluate(functools.partial(mlp.apply, shape), parity, size, tasks)


@functools.cache
def _adam(eps: float) -> Callable[[Any], optax.GradientTransformation]:
    return lambda hyper: optax.adam(hyper["rate"], eps=eps)


def _planned(hyper: dict[str, Any], step: Any) -> dict[str, Any]:
    return hyper | {"weights": hyper["plan"].weights(step)}
