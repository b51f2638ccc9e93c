"""Training and measuring models of one shape side by side."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, train, tree
from jaxcompress.data.curriculum import Curriculum
from jaxcompress.distill import losses
from jaxcompress.models import Model
from jaxcompress.narrowing.settings import Narrowing, Texts
from jaxcompress.prune.regularizers import group_norm
from jaxcompress.train import population

__all__ = ["fit", "folder", "held_out", "measurements", "nats", "spaced"]

# The settings by which all training runs are found again.
_OF_ALL = (
    "teacher", "context", "batch", "precision", "teacher_steps", "teacher_rate", "points",
    "measured", "layers", "heads", "width", "neurons", "mixture",
)  # fmt: skip

_WARMUP = 0.1  # share of the steps over which the rate rises
_NEURONS = {"mlp/gate/kernel": 1, "mlp/up/kernel": 1, "mlp/down/kernel": 0}


def fit(
    models: list[Model],
    config: Narrowing,
    rows: list[np.ndarray],
    *,
    rates: list[float],
    steps: int,
    seeds: list[int],
    measured: Mapping[str, Any],
    teacher: Model | None = None,
    penalty: float = 0.0,
    curriculum: Curriculum | None = None,
    checkpoints: str | Path | None = None,
    name: str = "train",
    progress: bool = True,
) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Trains models of one shape, `config.together` side by side; those of one seed see the same.

    Args:
      models: of one configuration.
      config: batch, points, precision and the like.
      rows: (row, position) tokens of one or several domains.
      rates: learning rate of each model.
      steps: of each, a multiple of `config.points`.
      seeds: of each.
      measured: rows by name that losses are measured on.
      teacher: for distillation.
      penalty: weight of the sum of the neurons' norms.
      curriculum: when each domain is shown, and how often; left out, all are in equal parts in
        every step.
      checkpoints: folder.
      name: for the progress bar.
      progress: whether to show one.

    Returns:
      The parameters of each model, on the host, and the history of `population.train`.

    Raises:
      ValueError: for `together` below 1, a batch that the parts and the domains do not divide, and
        steps that the points do not divide.

    Example:
      >>> from jaxcompress.io import load
      >>> fit([load("builtin:student")], Narrowing(batch=3, parts=2), [np.zeros((4, 8))],
      ...     rates=[1e-3], steps=2, seeds=[0], measured={})
      Traceback (most recent call last):
      ...
      ValueError: batch: expected a multiple of 2 parts times 1 domains, got 3
    """
    # Without parameters, which are arguments: what is compiled stays for as long as the process.
    model, word = models[0].replace(params=None), teacher and teacher.replace(params=None)
    if config.batch % (config.parts * len(rows)):
        expected = f"a multiple of {config.parts} parts times {len(rows)} domains"
        raise check.fail("batch", expected, config.batch)
    if config.together is not None:
        check.integer("together", config.together, 1)
    every = check.multiple("steps", steps, config.points, "points") // config.points
    warmup = min(max(1, round(_WARMUP * steps)), steps - 1)
    base = train.optimizer(train.OptimizerConfig(rate=1.0, warmup=warmup, weight_decay=0.0), steps)

    def measure(params: Any, key: Any, hyper: Any) -> dict[str, Any]:
        # In one program, as it is compiled for every shape of a model.
        every = _nats(model.apply, params, jnp.concatenate([*measured.values()]))
        ends = np.cumsum([len(rows) for rows in measured.values()])
        parts = jnp.split(every, ends[:-1])
        return {name: part.mean() for name, part in zip(measured, parts, strict=True)}

    options: dict[str, Any] = {"steps": steps, "every": every, "name": name}
    options |= {"parts": config.parts, "measure": measure, "progress": progress}
    loss = functools.partial(_loss, model, word, config, penalty)
    shared = {"rows": rows, "teacher": teacher.params if teacher is not None else {}}
    if curriculum is not None:
        shared, options = shared | {"plan": curriculum}, options | {"schedule": _planned}
    tool = functools.partial(_at_rate, base)
    size, found, histories = config.together or len(models), [], []
    for first in range(0, len(models), size):
        group = slice(first, first + size)
        params, history = population.train(
            loss,
            tree.stack([one.params for one in models[group]]),
            tool,
            keys=jax.vmap(jax.random.key)(jnp.array(seeds[group])),
            hyper=_repeated(shared, len(models[group])) | {"rate": np.array(rates[group], "f4")},
            checkpoints=f"{checkpoints}-{first}" if checkpoints and first else checkpoints,
            **options,
        )
        # On the host: there may be many networks, and only those of a group are being trained.
        found += tree.unstack(jax.device_get(params))
        histories.append(history)
    step = {"step": histories[0].pop("step")}
    joined = {k: np.concatenate([one[k] for one in histories], axis=1) for k in histories[0]}
    return found, step | joined


def _at_rate(base: Any, hyper: Any) -> Any:
    def update(gradient: Any, state: Any, params: Any) -> Any:
        # After the whole chain, which is the same as another learning rate.
        updates, state = base.update(gradient, state, params)
        return jax.tree.map(lambda leaf: hyper["rate"] * leaf, updates), state

    return base._replace(update=update)


def _repeated(shared: Any, count: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), shared)


def _planned(hyper: dict[str, Any], step: Any) -> dict[str, Any]:
    return hyper | {"shares": hyper["plan"].weights(step)}


def _drawn(batch: int, key: Any, hyper: Any) -> jax.Array:
    """Rows at random: as many of each domain, or of domains at random in the shares of the step."""
    domains = hyper["rows"]

    def draw(key: Any, count: int) -> list[jax.Array]:
        keys = jax.random.split(key, len(domains))
        places = [
            jax.random.randint(k, (count,), 0, len(rows))
            for k, rows in zip(keys, domains, strict=True)
        ]
        return [rows[at] for rows, at in zip(domains, places, strict=True)]

    if "shares" not in hyper:
        return jnp.concatenate(draw(key, batch // len(domains)))
    which, where = jax.random.split(key)
    domain = jax.random.categorical(which, jnp.log(hyper["shares"]), shape=(batch,))
    return jnp.stack(draw(where, batch))[domain, jnp.arange(batch)]


def _loss(
    model: Model, teacher: Model | None, config: Narrowing, penalty: float,
    params: Any, key: Any, hyper: Any,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """Nats per token of rows drawn at random, with a teacher's word or a penalty if asked."""
    tokens = _drawn(config.batch // config.parts, key, hyper)
    logits = model.apply(params, tokens).logits[:, :-1]
    if teacher is None:
        value, _ = losses.cross_entropy(logits, tokens[:, 1:])
    else:
        said = teacher.apply(hyper["teacher"], tokens).logits[:, :-1]
        soft = functools.partial(losses.forward_kl, temperature=config.temperature)
        value, _ = losses.mixed(
            logits, said, None, tokens[:, 1:], alpha=config.alpha, distillation=soft
        )
    if penalty:
        # Layers of one size, as the general model's are, are stacked on the first axis.
        groups = {f"blocks/{path}": (0, axis + 1) for path, axis in _NEURONS.items()}
        value = value + penalty * group_norm(params, _there(params, groups)).sum()
    return value, {}


def _there(params: Any, groups: Mapping[str, Any]) -> dict[str, Any]:
    """The groups of arrays that this family has: not all have a gate."""
    found = params["blocks"]["mlp"]
    return {path: axes for path, axes in groups.items() if path.split("/")[2] in found}


def _nats(apply: Callable[..., Any], params: Any, rows: jax.Array) -> jax.Array:
    """(row,) mean nats per token."""

    def one(row: jax.Array) -> jax.Array:
        logits = apply(params, row[None]).logits[:, :-1]
        return losses.cross_entropy(logits, row[None, 1:])[0]

    return jax.lax.map(one, rows, batch_size=min(16, len(rows)))


_nats_of = jax.jit(_nats, static_argnums=0)


def nats(model: Model, rows: Any) -> float:
    """Nats per token of a model on rows.

    Example:
      >>> from jaxcompress.io import load
      >>> model = load("builtin:student")
      >>> zeros = model.replace(params=jax.tree.map(jnp.zeros_like, model.params))
      >>> bool(np.isclose(nats(zeros, np.zeros((2, 4), int)), np.log(model.config.vocab)))
      True
    """
    return float(_nats_of(model.apply, model.params, jnp.asarray(rows)).mean())


def measurements(history: Any, i: int, config: Narrowing, before: float) -> list[dict[str, float]]:
    """The history of one model as rows of `tokens` and of what was measured.

    Args:
      history: of `fit`.
      i: which model.
      config: as it was trained with.
      before: tokens that it had seen already.

    Example:
      >>> history = {"step": np.array([1]), "loss": np.ones((1, 1)), "code": np.ones((1, 1))}
      >>> measurements(history, 0, Narrowing(batch=2, context=8), 100.0)
      [{'tokens': 116.0, 'code': 1.0}]
    """
    names = [name for name in history if name not in ("step", "loss")]
    return [
        {"tokens": before + float(step) * config.batch * config.context}
        | {name: float(history[name][t, i]) for name in names}
        for t, step in enumerate(history["step"])
    ]


def folder(config: Narrowing, texts: Texts) -> Path:
    """Where the training runs on some texts are kept, found again by what is in the texts.

    Example:
      >>> folder(Narrowing(work="runs"), Texts({}, None, "")).parent.name
      'runs'
    """
    content = hashlib.sha256()
    for splits in texts.rows.values():
        for rows in splits.values():
            content.update(np.ascontiguousarray(rows).data)
    content.update(repr([getattr(config, name) for name in _OF_ALL]).encode())
    return Path(config.work) / content.hexdigest()[:16]


def held_out(config: Narrowing, texts: Texts) -> dict[str, jax.Array]:
    """The rows of the test split that are measured on, by domain.

    Example:
      >>> texts = Texts({"code": {"test": np.zeros((3, 4), int)}}, None, "")
      >>> held_out(Narrowing(measured=2), texts)["code"].shape
      (2, 4)
    """
    return {
        domain: jnp.asarray(spaced(splits["test"], config.measured))
        for domain, splits in texts.rows.items()
    }


def spaced(rows: np.ndarray, count: int) -> np.ndarray:
    """So many rows, evenly from the first to the last: from all files, as they follow each other.

    Example:
      >>> spaced(np.arange(10), 4).tolist()
      [0, 3, 6, 9]
    """
    places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    return np.asarray(rows)[places.round().astype(int)]
