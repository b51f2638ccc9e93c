"""Pruning of sparse-parity networks down to one skill: many networks and sizes in one program."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.data.parity import Parity
from jaxcompress.models import mlp
from jaxcompress.narrow import skills
from jaxcompress.narrow.parity import score
from jaxcompress.train.parity import measuring, train

__all__ = ["as_rows", "locality", "pull"]


def pull(
    parity: Parity,
    shape: mlp.MLPConfig,
    params: Any,
    gates: Any,
    *,
    kept: Any,
    task: int,
    measured: Sequence[int],
    criterion: str,
    keys: Any,
    scored: int = 2000,
    test: int = 5000,
    recovery: int = 0,
    batch: int = 5000,
    rate: float = 1e-3,
    checkpoints: Path | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Prunes networks down to one skill, to many numbers of neurons at once.

    Neurons are scored once, on the skill. Recovery trains every pruned network on each measured
    task by itself, so that it says whether that skill is left, or is soon learned again.

    Args:
      parity: the tasks.
      shape: of the networks.
      params: with a member axis.
      gates: (member, layer, neuron) of the networks as they are.
      kept: (choice,) numbers of neurons that stay, at least one for each hidden layer. Which ones
        do is a matter of their scores: a layer can be left empty all the same, see `as_rows`.
      task: number of the task to keep.
      measured: numbers of the tasks to measure and recover.
      criterion: from `narrow.parity.CRITERIA`.
      keys: (member,) typed PRNG keys.
      scored: examples that neurons are scored on.
      test: fresh examples of each task that accuracies are measured on.
      recovery: steps of Adam.
      batch: examples of such a step.
      rate: of them.
      checkpoints: folder with which an interrupted recovery goes on.
      progress: whether to show a progress bar.

    Returns:
      `gates` (member, choice, layer, neuron), `pruned` and, with recovery, `recovered`: accuracies
      (member, choice, measured).

    Raises:
      ValueError: for fewer neurons than layers or more than there are, and unknown tasks.

    Example:
      >>> from jaxcompress.data.parity import compositional
      >>> from jaxcompress.train.parity import initial
      >>> parity, keys = compositional(4, 2, 1, [[0], [1]]), jax.random.split(jax.random.key(0), 2)
      >>> shape = mlp.MLPConfig(parity.inputs, 8, 2)
      >>> found = pull(parity, shape, *initial(shape, keys), kept=[2, 4], task=0, measured=[0, 1],
      ...              criterion="random", keys=keys, progress=False)
      >>> found["gates"].sum(axis=(2, 3)).tolist(), found["pruned"].shape
      ([[2.0, 4.0], [2.0, 4.0]], (2, 2, 2))

    Reference: Michaud et al. 2025 (arXiv 2505.15811), section 3.
    """
    for number in kept:
        check.integer("kept", number, gates.shape[1], int(np.prod(gates.shape[1:])))
    for number in measured:
        check.integer("measured", number, 0, len(parity.codes) - 1)
    choices = _choices(params, gates, keys, jnp.asarray(kept), parity=parity, shape=shape,
                       task=task, criterion=criterion, size=scored)  # fmt: skip
    count = len(kept)
    params = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), params)
    hyper = {"gates": choices.reshape(-1, *choices.shape[2:])}
    keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)

    def accuracies(params: Any, tasks: Sequence[int]) -> np.ndarray:
        found = _accuracy(params, keys, hyper, parity=parity, shape=shape, size=test, tasks=tasks)
        return np.asarray(found).reshape(-1, count, len(tasks))

    found = {"gates": np.asarray(choices), "pruned": accuracies(params, tuple(measured))}
    recovered = []
    for other in measured if recovery else ():
        share, name = jax.nn.one_hot(other, len(parity.codes)), f"recover {parity.names[other]}"
        trained, _ = train(
            parity, shape, params=params, keys=keys, steps=recovery, every=recovery, batch=batch,
            rate=rate, eps=1e-8, name=name, progress=progress,
            hyper=hyper | {"weights": jnp.tile(share[None], (len(keys), 1))},
            checkpoints=checkpoints / name if checkpoints else None,
        )  # fmt: skip
        # Free of the mesh that they were trained on.
        recovered.append(accuracies(jax.device_get(trained), (other,)))
    return found | ({"recovered": np.concatenate(recovered, axis=-1)} if recovered else {})


def as_rows(
    found: Mapping[str, np.ndarray],
    members: Mapping[str, Any],
    *,
    names: Sequence[str],
    **labels: Any,
) -> list[dict[str, Any]]:
    """What `pull` measured, one row for each network, number of neurons, skill and stage.

    Args:
      found: of `pull`.
      members: by name a value (member,) that tells the networks apart, such as their width.
      names: (measured,) of the skills.
      **labels: go into every row.

    Returns:
      The rows; `kept` is how many neurons stayed, which a narrow network has fewer of than asked,
      and `empty` whether a layer has none of them, so that every answer is the same.

    Example:
      >>> found = {"gates": np.ones((1, 1, 1, 4)), "pruned": np.array([[[0.75]]])}
      >>> [row] = as_rows(found, {"seed": [7]}, names=["first"])
      >>> row["seed"], row["kept"], row["empty"], row["accuracy"]
      (7, 4, False, 0.75)
    """
    rows, kept = [], found["gates"].sum(axis=(2, 3)).astype(int)
    empty = (found["gates"].sum(axis=3) == 0).any(axis=2)
    for stage in (name for name in ("pruned", "recovered") if name in found):
        for (i, j, k), accuracy in np.ndenumerate(found[stage]):
            row = labels | {"stage": stage} | {key: int(of[i]) for key, of in members.items()}
            row |= {"kept": int(kept[i, j]), "empty": bool(empty[i, j])}
            rows.append(row | {"skill": names[k], "accuracy": float(accuracy)})
    return rows


def locality(
    parity: Parity,
    shape: mlp.MLPConfig,
    params: Any,
    gates: Any,
    *,
    tasks: Sequence[int],
    keys: Any,
    threshold: float = 0.98,
    choices: int = 64,
    scored: int = 2000,
    test: int = 5000,
) -> list[dict[str, Any]]:
    """How far two skills live in the same neurons: the fewest that do each one without recovery.

    Args:
      parity: the tasks.
      shape: of the networks.
      params: with a member axis.
      gates: (member, layer, neuron) of the networks as they are.
      tasks: numbers of two tasks.
      keys: (member,) typed PRNG keys.
      threshold: accuracy at which a skill is there.
      choices: how many numbers of neurons are tried, evenly spread up to all.
      scored: examples that neurons are scored on.
      test: fresh examples of each task that accuracies are measured on.

    Returns:
      For each member `sizes` of both sets, their `overlap` (Jaccard) and that `chance` of random
      sets of these sizes; NaN where not even the whole network has both skills.

    Example:
      >>> from jaxcompress.data.parity import compositional
      >>> from jaxcompress.train.parity import initial
      >>> parity, keys = compositional(4, 2, 1, [[0], [1]]), jax.random.split(jax.random.key(0), 1)
      >>> shape = mlp.MLPConfig(parity.inputs, 8, 2)
      >>> found = locality(parity, shape, *initial(shape, keys), keys=keys, tasks=[0, 1],
      ...                  threshold=0.0)
      >>> found[0]["sizes"]
      (1, 1)
    """
    kept = np.unique(np.linspace(gates.shape[1], gates[0].size, choices).astype(int))
    sets, there = [], np.ones(len(keys), bool)
    for task in tasks:
        found = pull(
            parity, shape, params, gates, kept=kept, task=task, measured=(task,),
            criterion="ablation", keys=keys, scored=scored, test=test, progress=False,
        )  # fmt: skip
        enough = found["pruned"][..., 0] >= threshold
        sets.append(found["gates"][np.arange(len(keys)), enough.argmax(axis=1)] > 0)
        there &= enough.any(axis=1)
    rows = []
    for pair, both in zip(np.stack(sets, axis=1), there, strict=True):
        row: dict[str, Any] = {"sizes": tuple(int(one.sum()) for one in pair)}
        for name, how in (("overlap", skills.overlap), ("chance", skills.overlap_by_chance)):
            row[name] = float(how(jnp.asarray(pair))[0, 1]) if both else float("nan")
        rows.append(row)
    return rows


@functools.partial(jax.jit, static_argnames=("parity", "shape", "task", "criterion", "size"))
def _choices(
    params: Any,
    gates: Any,
    keys: Any,
    kept: Any,
    *,
    parity: Parity,
    shape: mlp.MLPConfig,
    task: int,
    criterion: str,
    size: int,
) -> jax.Array:
    """(member, choice, layer, neuron) nested gates."""
    forward = functools.partial(mlp.apply, shape)

    def one(row: Any) -> Any:
        params, gates, key = row
        scores = score(forward, parity, params, gates, key, task=task, criterion=criterion,
                       size=size)  # fmt: skip
        return skills.nested(scores, kept) * gates[None]

    return jax.lax.map(one, (params, gates, keys))


@functools.partial(jax.jit, static_argnames=("parity", "shape", "size", "tasks"))
def _accuracy(
    params: Any,
    keys: Any,
    hyper: Any,
    *,
    parity: Parity,
    shape: mlp.MLPConfig,
    size: int,
    tasks: tuple[int, ...],
) -> jax.Array:
    measure = measuring(parity, shape, size, tasks)
    return jax.lax.map(lambda row: measure(*row)["accuracy"], (params, keys, hyper), batch_size=16)
