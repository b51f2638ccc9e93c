"""TensorBoard and Weights & Biases: where the metrics of `fit` can go besides the run folder.

A logger is a function of the name of what is trained, the step and the metrics. Both packages are
optional and are imported when they are asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxcompress import check

__all__ = ["Logger", "tensorboard", "wandb"]

Logger = Callable[[str, int, Mapping[str, float]], None]
"""`log(name, step, metrics)`."""


def tensorboard(directory: str | Path) -> Logger:
    """A logger that writes event files for TensorBoard; tags are `name/metric`.

    Args:
      directory: for the event files.

    Raises:
      ValueError: if `tensorboardX` is not installed.

    Example:
      >>> log = tensorboard("runs/student/events")  # doctest: +SKIP
      >>> state = fit(state, step, data, 100, batch=8, loggers=[log])  # doctest: +SKIP
    """
    writer = _optional("tensorboardX").SummaryWriter(str(directory))

    def log(name: str, step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            writer.add_scalar(f"{name}/{key}", value, step)
        # Every time, as a run may be killed; this is once for a chunk of steps.
        writer.flush()

    return log


def wandb(**options: Any) -> Logger:
    """A logger for Weights & Biases; metrics are `name/metric` over `name/step`.

    Args:
      **options: of `wandb.init`.

    Raises:
      ValueError: if `wandb` is not installed.

    Example:
      >>> log = wandb(project="distil", mode="offline")  # doctest: +SKIP
    """
    run = _optional("wandb").init(**options)

    def log(name: str, step: int, metrics: Mapping[str, float]) -> None:
        # A step axis for every name: that of wandb may never go back.
        run.define_metric(f"{name}/*", step_metric=f"{name}/step")
        run.log({f"{name}/step": step} | {f"{name}/{key}": v for key, v in metrics.items()})

    return log


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        hint = "Install it with pip install 'jaxcompress[logging]'"
        raise check.fail(package, "an installed package", "none of that name", hint) from None
