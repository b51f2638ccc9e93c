"""The objective and the measurement of sparse-parity networks, of one member of a population.

Both take the forward as `apply(params, x, gates=...)` and return functions of parameters, key and
`hyper`, a dict that may hold `gates` (layer, neuron), `weights` (task,), `penalty`, and, for a
fixed data set, its key `data` and its number of `examples`: widths, mixtures, strengths and amounts
of data can differ from member to member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcompress import check
from jaxcompress.data import parity as data
from jaxcompress.models.gates import Gates
from jaxcompress.narrow import skills

__all__ = ["BIT", "CRITERIA", "cross_entropy", "evaluate", "narrower", "objective", "score"]

BIT = 0.6931471805599453
"""Nats in a bit: the loss of guessing a parity."""

CRITERIA = ("attribution", "ablation", "weight_norm", "random")

Apply = Callable[..., Any]
Penalty = Callable[[Any], Any]


def cross_entropy(
    logits: Float[Array, "example 2"], label: Int[Array, "example"]
) -> Float[Array, "example"]:
    """Losses of two-way answers, in nats; no sum over the two logits is needed.

    Example:
      >>> round(float(cross_entropy(jnp.zeros((1, 2)), jnp.array([1]))[0]), 4)
      0.6931
    """
    toward = (1 - 2 * label).astype(logits.dtype)
    return jax.nn.softplus(toward * (logits[:, 1] - logits[:, 0]))


def objective(
    apply: Apply,
    parity: data.Parity,
    size: int,
    *,
    penalty: Penalty | None = None,
    stratified: bool = True,
) -> Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]]:
    """The loss on fresh examples, for `train.population`.

    Args:
      apply: forward of the network.
      parity: the tasks.
      size: examples of a step.
      penalty: of the parameters; it counts `hyper["penalty"]` times.
      stratified: give every task its exact share of the examples, instead of drawing tasks.

    Returns:
      `loss(params, key, hyper)`, in nats; the tasks share the examples by `hyper["weights"]`, or
      equally. Its metrics are of every task: `task_loss`, 0 where a step has no example of it,
      `present`, 1 where it has one, and `shown`, the share of the examples.

    Example:
      >>> parity = data.compositional(4, 1, 2, [[0]])
      >>> class Out:
      ...     logits = jnp.zeros((6, 2))
      >>> loss = objective(lambda params, x, gates: Out, parity, 6)
      >>> round(float(loss(None, jax.random.key(0), {})[0]), 4)
      0.6931
    """
    check.integer("size", size, 1)
    tasks = len(parity.codes)

    def loss(params: Any, key: Any, hyper: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        bits_key, task_key = jax.random.split(key)
        weights = hyper.get("weights", jnp.full(tasks, 1.0 / tasks))
        if "examples" in hyper:
            row = jax.random.randint(bits_key, (size,), 0, hyper["examples"])
            batch = data.recall(parity, hyper["data"], row, weights)
        else:
            task = data.choose(weights, size, None if stratified else task_key)
            batch = data.sample(parity, bits_key, task)
        logits = apply(params, data.inputs(parity, batch), gates=_gates(hyper)).logits
        losses = cross_entropy(logits, batch.label)
        total = losses.mean()
        if penalty is not None:
            total = total + hyper["penalty"] * penalty(params)
        member = jax.nn.one_hot(batch.task, tasks, axis=0)
        shown = member.sum(axis=1)
        by_task = jax.lax.stop_gradient(member @ losses) / jnp.maximum(shown, 1)
        present = (shown > 0).astype(jnp.float32)
        return total, {"task_loss": by_task, "present": present, "shown": shown / size}

    return loss


def evaluate(
    apply: Apply, parity: data.Parity, size: int, tasks: Sequence[int] | None = None
) -> Callable[[Any, Any, Any], dict[str, Any]]:
    """Loss and accuracy of every task on fresh examples, for `train.population`.

    Args:
      apply: forward of the network.
      parity: the tasks.
      size: examples of each task.
      tasks: numbers of those that are measured; by default all.

    Returns:
      `measure(params, key, hyper)`, a dict of `test_loss` (task,) in nats and `accuracy` (task,).

    Example:
      >>> parity = data.compositional(4, 1, 2, [[0]])
      >>> class Out:
      ...     logits = jnp.zeros((5, 2))
      >>> measure = evaluate(lambda params, x, gates: Out, parity, 5)
      >>> round(float(measure(None, jax.random.key(0), {})["test_loss"][0]), 4)
      0.6931
    """
    check.integer("size", size, 1)
    chosen = range(len(parity.codes)) if tasks is None else tasks
    for task in chosen:
        check.integer("tasks", task, 0, len(parity.codes) - 1)

    def measure(params: Any, key: Any, hyper: Mapping[str, Any]) -> dict[str, Any]:
        task = jnp.repeat(jnp.asarray(chosen), size)
        batch = data.sample(parity, key, task)
        logits = apply(params, data.inputs(parity, batch), gates=_gates(hyper)).logits
        right = (logits[:, 1] > logits[:, 0]) == (batch.label == 1)
        losses = cross_entropy(logits, batch.label)
        return {
            "test_loss": losses.reshape(-1, size).mean(axis=1),
            "accuracy": right.astype(jnp.float32).reshape(-1, size).mean(axis=1),
        }

    return measure


def score(
    apply: Apply,
    parity: data.Parity,
    params: Any,
    gates: Float[Array, "layer neuron"],
    key: Any,
    *,
    task: int,
    criterion: str,
    size: int,
) -> Float[Array, "layer neuron"]:
    """What each hidden neuron is worth to one task, on one fixed batch.

    Args:
      apply: forward of the network.
      parity: the tasks.
      params: of a plain ReLU network.
      gates: where to start from; neurons that are shut score below all others.
      key: typed PRNG key, of the batch and of `random`.
      task: number of the task.
      criterion: from `CRITERIA`.
      size: examples of the batch.

    Example:
      >>> parity = data.compositional(4, 1, 2, [[0]])
      >>> ones = jnp.ones((2, 3))
      >>> score(lambda params, x, gates: None, parity, None, ones, jax.random.key(0), task=0,
      ...       criterion="random", size=5).shape
      (2, 3)

    Reference: Michaud et al. 2025 (arXiv 2505.15811), section 3 (ablation).
    """
    check.known("criterion", criterion, CRITERIA)
    check.integer("task", task, 0, len(parity.codes) - 1)
    batch = data.sample(parity, key, jnp.full(size, task, jnp.int32))

    def loss(gates: Any) -> Any:
        logits = apply(params, data.inputs(parity, batch), gates=Gates(neurons=gates)).logits
        return cross_entropy(logits, batch.label).mean()

    if criterion == "random":
        found = jax.random.uniform(key, gates.shape)
    elif criterion == "weight_norm":
        found = skills.group_norms(_behind(params, gates))
    else:
        found = {"attribution": skills.attribution, "ablation": skills.ablation}[criterion](
            loss, gates
        )
    return jnp.where(gates > 0, found, -1.0)


def _behind(params: Any, gates: Float[Array, "layer neuron"]) -> Any:
    """The weights that there are: those out of and into neurons that are shut do nothing."""
    inner, last = params["hidden"], params["last"]
    open_ = gates[:-1, :, None] * gates[1:, None, :]
    hidden = inner | {"kernel": open_ * inner["kernel"]}
    return params | {
        "hidden": hidden,
        "last": last | {"kernel": gates[-1][:, None] * last["kernel"]},
    }


def narrower(params: Any, width: Any) -> tuple[Any, Float[Array, "layer neuron"]]:
    """A wide ReLU network as a narrower one, freshly initialised, behind a mask.

    Kernels behind hidden neurons are scaled up, as uniform initialisation by fan-in has them; with
    the gates the network is then distributed as one of that width, and its masked weights get no
    gradient.

    Args:
      params: of a plain ReLU network, `{"first", "hidden", "last"}`, just initialised.
      width: neurons of each hidden layer; may be traced.

    Returns:
      Parameters and gates of 0 and 1.

    Example:
      >>> params = {"first": {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)},
      ...           "hidden": {"kernel": jnp.ones((0, 4, 4)), "bias": jnp.ones((0, 4))},
      ...           "last": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}
      >>> small, gates = narrower(params, 1)
      >>> gates.tolist(), small["last"]["bias"].tolist()
      ([[1.0, 0.0, 0.0, 0.0]], [2.0, 2.0])
    """
    full = params["first"]["kernel"].shape[1]
    scale = jnp.sqrt(full / jnp.asarray(width, jnp.float32))
    behind = {name: jax.tree.map(lambda w: scale * w, params[name]) for name in ("hidden", "last")}
    row = (jnp.arange(full) < width).astype(jnp.float32)
    gates = jnp.tile(row[None], (len(params["hidden"]["bias"]) + 1, 1))
    return {"first": params["first"], **behind}, gates


def _gates(hyper: Mapping[str, Any]) -> Gates | None:
    return Gates(neurons=hyper["gates"]) if "gates" in hyper else None
