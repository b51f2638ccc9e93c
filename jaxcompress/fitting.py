"""From settings to a fit: optimiser, precision, checkpoints, the run folder and the loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from jaxcompress import check, runs, train
from jaxcompress import config as configs
from jaxcompress.data.curriculum import Curriculum
from jaxcompress.io import checkpoint
from jaxcompress.models import Model
from jaxcompress.train.loggers import Logger

__all__ = ["LoggerName", "fitted"]

LoggerName = Literal["tensorboard", "wandb"]

_ELSEWHERE = ("checkpoints", "form", "loggers", "merged", "run")  # on which no number depends


def fitted(
    start: Any,
    loss: Any,
    data: Any,
    config: Any,
    name: str,
    constant: Model,
    known: Mapping[str, Any] | None = None,
    *,
    curriculum: Curriculum | None = None,
    sizes: Sequence[int] | None = None,
    progress: bool = True,
) -> Any:
    """Trained parameters.

    Args:
      start: the parameters before.
      loss: as for `train.make_step`.
      data: as for `train.fit`.
      config: a `finetune.DistillConfig` or `LoraConfig`.
      name: of what is trained.
      constant: the model that the loss looks at and that stays as it is.
      known: what else the loss depends on, see `train.fit`.
      curriculum: see `train.fit`.
      sizes: likewise; without a curriculum they change nothing.
      progress: whether to show a progress bar.

    Raises:
      ValueError: for loggers without a run folder, more devices than there are, and as `train.fit`.

    Example:
      >>> from jaxcompress.finetune import LoraConfig
      >>> from jaxcompress.io.huggingface import load
      >>> settings = LoraConfig(steps=21, batch=1)
      >>> loss = lambda params, batch, key: ((params - batch.mean()) ** 2, {"count": 1})
      >>> model, zero = load("builtin:student"), jax.numpy.zeros(())
      >>> rows = jax.numpy.ones(4)
      >>> float(fitted(zero, loss, rows, settings, "toy", model, progress=False)) > 0
      True
    """
    optimizer = train.optimizer(config.optimizer, config.steps)
    if getattr(config, "precision", "float32") != "float32":
        loss = train.mixed_precision(loss)
    if getattr(config, "ratio", 1) != 1:
        optimizer = train.lora_plus(optimizer, ratio=config.ratio)
    step = train.make_step(loss, optimizer, accumulate=getattr(config, "accumulate", 1))
    state = train.create(start, optimizer, jax.random.key(config.seed))
    mesh = None if config.mesh == (1, 1) else train.make_mesh(*config.mesh)
    about = dict(known or {})
    if config.checkpoints is not None:
        recipe = configs.to_dict(config).items()
        about |= {key: value for key, value in recipe if key not in _ELSEWHERE}
        about["teacher"] = checkpoint.fingerprint(constant.params)
    run = None
    if config.run is not None:
        empty = not runs.rows(config.run)  # one that was stopped before it logged anything may go
        run = runs.start(config.run, config, config.seed, overwrite=empty, resume=True)
    sizes = None if curriculum is None else sizes  # which are those of its tasks
    state = train.fit(
        state, step, data, config.steps, batch=config.batch, checkpoints=config.checkpoints,
        about=about, run=run, loggers=_loggers(config.loggers, run), mesh=mesh, name=name,
        curriculum=curriculum, sizes=sizes, progress=progress,
    )  # fmt: skip
    return state.params


def _loggers(names: tuple[LoggerName, ...], run: runs.Run | None) -> list[Logger]:
    if not names:
        return []
    if run is None:
        raise check.fail("run", "a folder for what is logged", "none")
    folder: Path = run.directory
    made = {
        "tensorboard": lambda: train.tensorboard(folder / "events"),
        "wandb": lambda: train.wandb(project="jaxcompress", dir=str(folder)),
    }
    return [made[name]() for name in names]
