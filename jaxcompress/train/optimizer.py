"""AdamW with warm-up, cosine decay and clipping, put together from optax."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import optax

from jaxcompress import check

__all__ = ["OptimizerConfig", "decayed", "optimizer", "schedule"]

_NOT_DECAYED = ("bias", "scale")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Values of `optimizer`.

    Attributes:
      rate: highest learning rate, reached after the warm-up.
      warmup: steps over which the rate rises from 0.
      final: the rate at the end, as a fraction of the highest.
      weight_decay: of every array but biases and norm scales, per step and unit of rate.
      clip: largest global norm of the gradient.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
    """

    rate: float = 1e-3
    warmup: int = 100
    final: float = 0.01
    weight_decay: float = 0.1
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.98


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: up in a line, down in half a cosine.

    Args:
      config: see `OptimizerConfig`.
      steps: of the whole run, warm-up included.

    Raises:
      ValueError: if the warm-up is not shorter than the run, or a value is out of range.

    Example:
      >>> rate = schedule(OptimizerConfig(rate=1.0, warmup=10, final=0.0), 110)
      >>> [round(float(rate(step)), 2) for step in (0, 5, 10, 60, 110)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check.integer("steps", steps, 1)
    if not 0 <= config.warmup < steps:
        expected = f"a whole number of at least 0 and below steps ({steps})"
        raise check.fail("optimizer.warmup", expected, config.warmup)
    for name, allowed, expected in (
        ("rate", 0 < config.rate < math.inf, "a number above 0"),
        ("final", 0 <= config.final <= 1, "a number in [0, 1]"),
        ("weight_decay", 0 <= config.weight_decay < math.inf, "a number of at least 0"),
        ("clip", config.clip > 0, "a number above 0"),
        ("beta1", 0 <= config.beta1 < 1, "a number in [0, 1)"),
        ("beta2", 0 <= config.beta2 < 1, "a number in [0, 1)"),
    ):
        if not allowed:
            raise check.fail(name, expected, getattr(config, name))
    end = config.rate * config.final
    return optax.warmup_cosine_decay_schedule(0.0, config.rate, config.warmup, steps, end)


def decayed(params: Any) -> Any:
    """True for the leaves that weight decay pulls to zero: all but those called bias or scale.

    By name, not by rank: biases that are stacked over layers have two axes.

    Example:
      >>> decayed({"kernel": 1, "bias": 2})
      {'bias': False, 'kernel': True}
    """

    def matrix(path: Any, _: Any) -> bool:
        return jax.tree_util.keystr(path[-1:], simple=True) not in _NOT_DECAYED

    return jax.tree_util.tree_map_with_path(matrix, params)


def optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW on the schedule.

    Args:
      config: see `OptimizerConfig`.
      steps: of the whole run, which the schedule is spread over.

    Raises:
      ValueError: as `schedule`.

    Example:
      >>> state = optimizer(OptimizerConfig(), 1000).init({"kernel": jax.numpy.ones(2)})
      >>> len(state)
      2

    Reference: Loshchilov and Hutter 2019 (arXiv 1711.05101).
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )
