"""Criteria by name: what each collects from data, and the scores it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from jaxcompress import check
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.gates import Gates
from jaxcompress.prune import scores
from jaxcompress.prune.calibrate import Loss, calibrate, next_token
from jaxcompress.types import Model

__all__ = ["CRITERIA", "from_sums", "score"]

CRITERIA: Mapping[str, tuple[str, ...]] = {
    "activation": ("activations",),
    "angular_distance": ("activations",),
    "block_influence": ("activations",),
    "fisher": ("gradients",),
    "magnitude": (),
    "michel": ("gradients",),
    "parameter_attribution": ("parameters",),
    "random": (),
    "taylor_batch": ("gradients",),
    "taylor_example": ("gradients",),
    "taylor_token": ("gradients",),
}
"""What `score` knows, and what each has to collect."""


def score(
    model: Model,
    batches: Iterable[Any],
    criterion: str,
    *,
    loss: Loss = next_token,
    key: jax.Array | None = None,
    layers: int = 1,
    progress: bool = True,
) -> Gates:
    """Collects what a criterion needs and scores every component with it.

    To compare criteria call `calibrate` once, and `from_sums` with what it found.

    Args:
      model: with `config`, `params` and `apply`.
      batches: see `calibrate`; not looked at by `magnitude` and `random`.
      criterion: one of `CRITERIA`.
      loss: that the gradients are of.
      key: for `random`.
      layers: for `angular_distance`, how many neighbours are to go together.
      progress: whether to show a progress bar.

    Raises:
      ValueError: for an unknown criterion, or `random` without a key.

    Example:
      >>> from jaxcompress.io import load
      >>> score(load("builtin:student"), [], "magnitude").heads.shape
      (2, 8)
    """
    check.known("criterion", criterion, CRITERIA)
    wanted = CRITERIA[criterion]
    sums = calibrate(model, batches, loss, wanted=wanted, progress=progress) if wanted else {}
    return from_sums(model, sums, criterion, key=key, layers=layers)


def from_sums(
    model: Model,
    sums: scores.Statistics,
    criterion: str,
    *,
    key: jax.Array | None = None,
    layers: int = 1,
) -> Gates:
    """Scores by a criterion, from sums that were collected before; see `scores.marked`.

    Args:
      model: with `config` and `params`.
      sums: of `calibrate`, with what the criterion wants: `CRITERIA[criterion]`.
      criterion: one of `CRITERIA`.
      key: for `random`.
      layers: for `angular_distance`, how many neighbours are to go together.

    Raises:
      ValueError: for an unknown criterion, `random` without a key, or sums that lack something.

    Example:
      >>> from jaxcompress.io import load
      >>> from_sums(load("builtin:student"), {}, "random", key=jax.random.key(0)).heads.shape
      (2, 8)
    """
    check.known("criterion", criterion, CRITERIA)
    config = model.config  # pyright: ignore[reportAttributeAccessIssue]
    if criterion == "angular_distance":
        return scores.layer_runs(sums, layers)
    return scores.marked(config, _from_sums(config, model.params, sums, criterion, key))


def _from_sums(
    config: ModelConfig, params: Any, sums: scores.Statistics, criterion: str, key: Any
) -> Gates:
    if criterion == "magnitude":
        return scores.magnitude(config, params)
    if criterion == "random":
        if key is None:
            raise check.fail("key", "a PRNG key for random scores", "none")
        return scores.random(config, key)
    if criterion == "parameter_attribution":
        return scores.parameter_attribution(config, params, sums)
    if criterion.startswith("taylor_"):
        return scores.taylor(sums, criterion.removeprefix("taylor_"))  # pyright: ignore[reportArgumentType]
    simple = {
        "activation": scores.activation,
        "block_influence": scores.block_influence,
        "fisher": scores.fisher,
        "michel": scores.michel,
    }
    return simple[criterion](sums)
