"""Networks for some digits only, by five methods, all sizes, rates and seeds in one program."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcompress import check
from jaxcompress.data.digits import Digits
from jaxcompress.io import checkpoint
from jaxcompress.models.gates import Gates
from jaxcompress.models.mlp import MLPConfig, create_mlp, init
from jaxcompress.narrow import recovery, skills
from jaxcompress.narrow.parity import narrower
from jaxcompress.prune.regularizers import group_norm
from jaxcompress.train import population
from jaxcompress.train.thresholded import alive, thresholded

__all__ = ["GROUPS", "METHODS", "apart", "compare"]

METHODS = ("attribution", "random", "group lasso", "distil", "scratch")

GROUPS: dict[str, dict[str, tuple[int, ...]]] = {
    "first": {"first/kernel": (1,), "hidden/kernel": (1,)},
    "second": {"hidden/kernel": (2,), "last/kernel": (0,)},
}
"""The weights into and out of a neuron of each hidden layer; biases are left out ("tied_l2")."""

Parts = Sequence[tuple[Digits, ...]]


def compare(
    parts: Parts,
    classes: Sequence[int],
    *,
    width: int,
    sizes: Sequence[int],
    rates: Sequence[float],
    target: float,
    teacher_steps: int,
    steps: int,
    every: int,
    batch: int = 16,
    betas: Sequence[float] = (0.005,),
    limit: float = 0.05,
    temperature: float = 20.0,
    alpha: float = 0.9,
    methods: Sequence[str] = METHODS,
    together: int | None = None,
    checkpoints: Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Images that each method needs until it knows some classes, by size, rate and seed.

    A teacher of two hidden layers learns all classes. Then, on images of `classes` alone:
    `attribution` and `random` keep so many of its neurons, the same in each layer, and train on;
    `group lasso` trains it whole until few enough neurons are left, then without the penalty;
    `distil` and `scratch` start anew, with and without the teacher's answers. Adam, gradients
    clipped to norm 1. Attribution is computed on images that were trained on.

    Args:
      parts: images of each seed: to train on, to choose rates by, to test on.
      classes: what is kept.
      width: neurons of each hidden layer of the teacher.
      sizes: hidden neurons, both layers together; even numbers.
      rates: learning rates.
      target: accuracy that counts as known.
      teacher_steps: updates of the teachers, a multiple of `every`.
      steps: most updates of the others, a multiple of `every`.
      every: updates between measurements.
      batch: images of an update.
      betas: weights of the group lasso; other methods have none, and no repeats for it.
      limit: norm at which it lets a neuron go.
      temperature: of the distillation.
      alpha: share of the teacher in it.
      methods: from `METHODS`.
      together: see `population.train`; each has the images of its seed at hand.
      checkpoints: folder with which an interrupted run goes on.
      progress: whether to show progress bars.

    Returns:
      Rows with method, neurons, rate, beta, seed; `in_use` at the end, `validation` and `test`,
        samples until the target (infinite if it was not reached), and the final `accuracy` on test
        images.

    Raises:
      ValueError: for a size that does not fit, an unknown method, classes that are no digits,
        steps that are no multiples of `every`, and whatever there is none of.

    Example:
      >>> from jaxcompress.data.digits import digits
      >>> rows = compare([digits()], (0, 2), width=4, sizes=(4,), rates=(0.01,), target=0.9,
      ...                teacher_steps=2, steps=2, every=2, methods=["scratch"], progress=False)
      >>> rows[0]["in_use"], rows[0]["test"]
      (4.0, inf)

    Reference: Michaud et al. 2025 (arXiv 2505.15811), section 4 and figure 4.
    """
    _check(classes, methods, sizes, width, parts=parts, rates=rates, betas=betas)
    _multiples(every, teacher_steps=teacher_steps, steps=steps)
    config = MLPConfig(inputs=parts[0][0].images.shape[1], width=width, depth=3, outputs=10)
    net = create_mlp(config, key=jax.random.key(0))
    every_digit = _stacked([part[0] for part in parts])
    kept = [_stacked([part[i].only(tuple(classes)) for part in parts]) for i in range(3)]
    seeds = np.arange(len(parts))
    keys = jax.vmap(jax.random.key)(seeds)
    ones = np.ones((len(parts), 2, width), np.float32)
    nobody = jnp.zeros((*every_digit[1].shape, 10))
    about = {"batch": batch, "temperature": temperature, "teacher_steps": teacher_steps}
    about |= {"images": checkpoint.fingerprint([every_digit, kept])}
    train = functools.partial(
        population.train, every=every, together=together, about=about, progress=progress
    )
    teachers, _ = train(
        recovery.objective(net.apply, *every_digit, nobody, batch=batch),
        jax.vmap(functools.partial(init, config))(keys), optax.adam(2e-3), keys=keys,
        hyper={"seed": seeds, "gates": ones, "alpha": 0.0 * seeds}, steps=teacher_steps,
        name="teachers", checkpoints=checkpoints and checkpoints / "teachers",
    )  # fmt: skip
    teachers = jax.device_get(teachers)  # free of the mesh that they were trained on
    answers = jax.vmap(lambda params, x: net.apply(params, x).logits)(teachers, kept[0][0])
    scores = jax.vmap(functools.partial(_attribution, net.apply))(teachers, *kept[0])
    grid = _grid(methods, betas, neurons=sizes, rate=rates, seed=seeds.tolist())
    params, gates = _starts(config, grid, teachers, scores)
    hyper = _hyper(grid, alpha, limit) | {"gates": gates}
    loss = recovery.objective(
        net.apply, *kept[0], answers,
        batch=batch, temperature=temperature, penalty=apart, alive=_alive,
    )  # fmt: skip
    measure = recovery.evaluation(net.apply, {"validation": kept[1], "test": kept[2]}, alive=_alive)
    _, history = train(
        loss, params, _optimizer, keys=jax.vmap(jax.random.key)(grid["seed"] + 1000), hyper=hyper,
        steps=steps, measure=measure, name="networks",
        checkpoints=checkpoints and checkpoints / "networks",
    )  # fmt: skip
    return _rows(grid, history, batch=batch, target=target)


def _check(
    classes: Sequence[int], methods: Sequence[str], sizes: Sequence[int], width: int, **some: Any
) -> None:
    for name, values in {"classes": classes, "methods": methods, "sizes": sizes, **some}.items():
        if not len(values):
            raise check.fail(name, "at least one", "none")
    for one in classes:
        check.integer("classes", one, 0, 9)
    for method in methods:
        check.known("methods", method, METHODS)
    for size in sizes:
        if size % 2 or not 2 <= size <= 2 * width:
            raise check.fail("sizes", f"even numbers in [2, {2 * width}]", size)


def _optimizer(hyper: Any) -> optax.GradientTransformation:
    plain = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(hyper["rate"]))
    return thresholded(plain, GROUPS, hyper["limit"])


def _multiples(every: int, **steps: int) -> None:
    check.integer("every", every, 1)
    for name, value in steps.items():
        check.multiple(name, check.integer(name, value, 1), every, "every")


def _grid(methods: Sequence[str], betas: Sequence[float], **axes: Any) -> dict[str, np.ndarray]:
    """All members; only the lasso has several betas."""
    each = [
        population.grid(method=[one], beta=betas if one == "group lasso" else [0.0], **axes)
        for one in methods
    ]
    return {name: np.concatenate([some[name] for some in each]) for name in each[0]}


def apart(params: Any) -> jax.Array:
    """Sum over hidden neurons of the norm of all weights into and out of each.

    Example:
      >>> zeros = {"first": {"kernel": jnp.zeros((2, 3))}, "last": {"kernel": jnp.zeros((3, 2))},
      ...          "hidden": {"kernel": jnp.ones((1, 3, 3))}}
      >>> round(float(apart(zeros)), 4)  # six groups of three ones
      10.3923
    """
    return jnp.stack([group_norm(params, groups).sum() for groups in GROUPS.values()]).sum()


def _alive(params: Any) -> jax.Array:
    return jnp.stack([alive(params, groups) for groups in GROUPS.values()])


def _stacked(found: Sequence[Digits]) -> tuple[jax.Array, jax.Array]:
    """(seed, image, pixel) and (seed, image), cut to the smallest number of images."""
    count = min(len(one.labels) for one in found)
    images = jnp.stack([jnp.asarray(one.images[:count]) for one in found])
    return images, jnp.stack([jnp.asarray(one.labels[:count]) for one in found])


def _attribution(apply: Any, params: Any, images: Any, labels: Any) -> jax.Array:
    """(layer, neuron) |gate * d loss / d gate| on the kept classes, summed over images."""

    def loss(gates: jax.Array, image: Any, label: Any) -> jax.Array:
        logits = apply(params, image[None], gates=Gates(neurons=gates)).logits
        return -jax.nn.log_softmax(logits)[0, label]

    def one(image: Any, label: Any) -> jax.Array:
        ones = jnp.ones((2, params["last"]["kernel"].shape[0]))
        return skills.attribution(lambda gates: loss(gates, image, label), ones)

    return jax.vmap(one)(images[:128], labels[:128]).sum(axis=0)


def _starts(config: MLPConfig, grid: Mapping[str, Any], teachers: Any, scores: Any) -> Any:
    """Parameters and gates with a leading member axis."""
    seeds, half = np.asarray(grid["seed"]), np.asarray(grid["neurons"]) // 2
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), 7))(seeds)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf)[seeds], teachers)
    gates = jnp.ones((len(seeds), 2, config.width))
    fresh = np.flatnonzero(np.isin(grid["method"], ("distil", "scratch")))
    if len(fresh):
        begin = jax.vmap(lambda key, half: narrower(init(config, key), half))
        drawn = begin(keys[fresh], half[fresh])
        params, gates = jax.tree.map(lambda a, b: a.at[fresh].set(b), (params, gates), drawn)
    for i, method in enumerate(grid["method"]):
        if method in ("attribution", "random"):
            order = scores[seeds[i]]
            if method == "random":
                order = jax.random.uniform(keys[i], order.shape)
            gates = gates.at[i].set(recovery.per_layer(order, int(half[i])))
    return params, gates


def _hyper(grid: Mapping[str, Any], alpha: float, limit: float) -> dict[str, Any]:
    """What the loss and the optimizer read of each member, but for its gates."""
    hyper = {name: grid[name] for name in ("seed", "rate", "neurons", "beta")}
    hyper["alpha"] = np.where(grid["method"] == "distil", alpha, 0.0)
    hyper["limit"] = np.where(grid["method"] == "group lasso", limit, -1.0)
    return hyper


def _rows(grid: Any, history: Any, *, batch: int, target: float) -> list[dict[str, Any]]:
    ready = history["in_use"] <= np.asarray(grid["neurons"], float)[None]
    # A group lasso that never lets enough neurons go has made no network of this size.
    until = functools.partial(recovery.samples, history["step"], batch=batch, target=target)
    counts = {name: until(history[name], ready=ready) for name in ("validation", "test")}
    rows = []
    for i, method in enumerate(grid["method"]):
        row = {name: grid[name][i].item() for name in ("neurons", "rate", "beta", "seed")}
        row |= {"method": str(method), "in_use": float(history["in_use"][-1, i])}
        row |= {name: float(value[i]) for name, value in counts.items()}
        rows.append(row | {"accuracy": float(history["test"][-1, i])})
    return rows
