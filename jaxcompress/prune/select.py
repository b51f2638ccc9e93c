"""From scores to gates: which components stay.

Scores are a `Gates` whose fields hold numbers instead of gates: the higher, the more a component
matters. Ties are broken by place: of two components with equal scores the earlier one stays.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from jaxcompress import check
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.gates import Gates
from jaxcompress.prune import size

__all__ = ["budget", "grouped", "select"]

_LAYERED = ("heads", "neurons")


def select(
    scores: Gates,
    sparsity: float,
    *,
    scope: Literal["global", "layer"] = "global",
    at_least: int = 0,
    groups: int | None = None,
    start: Gates | None = None,
) -> Gates:
    """Shuts the share `sparsity` of the components of every field that has scores.

    Args:
      scores: a field that is `None` is left alone.
      sparsity: in [0, 1): the share of all components that is shut afterwards, those shut in
        `start` included; `round(sparsity * count)` of them.
      scope: rank the components of all layers together, or those of each layer by themselves.
      at_least: heads and neurons that every layer keeps, however low their scores.
      groups: the model's number of key/value heads, to remove heads by whole groups, ranked by the
        mean of their scores; `None` removes single heads.
      start: gates of an earlier round; what is shut stays shut.

    Returns:
      Gates of 0 and 1.

    Raises:
      ValueError: for a sparsity outside [0, 1), scores of the wrong shape or NaN, and a minimum
        that cannot be kept at this sparsity.

    Example:
      >>> scores = Gates(heads=np.array([[4.0, 1.0], [3.0, 2.0]]))
      >>> select(scores, 0.5).heads.tolist()
      [[1.0, 0.0], [1.0, 0.0]]
    """
    if not 0 <= sparsity < 1:
        raise check.fail("sparsity", "a number in [0, 1)", sparsity)
    check.known("scope", scope, ("global", "layer"))
    found = {}
    for name, values in _fields(scores).items():
        shut = None if start is None else getattr(start, name)
        values = values if shut is None else np.where(np.asarray(shut) == 0, -np.inf, values)
        least, each = at_least if name in _LAYERED else 0, 1
        if groups is not None and name == "heads":
            each = values.shape[1] // groups
            values, least = grouped(values, groups), -(-least // each)
        rows = values.reshape(1, -1) if scope == "global" or values.ndim == 1 else values
        gate = _shut_lowest(name, rows, values.shape, sparsity, least)
        found[name] = gate if each == 1 else np.repeat(gate, each, axis=1)
    return Gates(**found)


def budget(
    config: ModelConfig,
    scores: Gates,
    *,
    parameters: int | None = None,
    flops_per_token: int | None = None,
    length: int | None = None,
    at_least: int = 0,
) -> Gates:
    """Shuts the components of least score for what they cost, until a budget is met.

    Components of all fields are ranked together by score / cost, so scores of different fields
    must be in one unit (nats saved, say). Every step removes one; the last one that is removed is
    the first with which the model fits.

    Args:
      config: of the model.
      scores: a field that is `None` is left alone; width is not ranked with the others.
      parameters: most parameters that the shrunk model may have; or
      flops_per_token: most FLOPs of its forward, for each token.
      length: tokens of a prompt, for the FLOPs of attention.
      at_least: heads and neurons that every layer keeps.

    Raises:
      ValueError: if neither or both budgets are given, or removing everything is not enough.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> gates = budget(config, Gates(neurons=np.arange(32.0).reshape(2, 16)), parameters=1200)
      >>> gates.neurons.sum(axis=1).tolist(), size.parameters(config, gates)
      ([7.0, 16.0], 1191)
    """
    if (parameters is None) == (flops_per_token is None):
        raise check.fail("budget", "parameters or flops_per_token", "both or neither")
    limit = parameters or flops_per_token or 0

    def cost(gates: Gates) -> int:
        if parameters is not None:
            return size.parameters(config, gates)
        return size.flops_per_token(config, gates, length=length)

    fields = {name: values for name, values in _fields(scores).items() if name != "width"}
    for name, values in fields.items():
        check.shape(f"scores.{name}", values, [getattr(Gates.ones(config), name).shape])
    ranked = _ranking(config, fields, cost, at_least)
    # The cost falls with every removal, so the first that fits is found by halving.
    low, high = 0, len(ranked)
    if cost(_without(fields, ranked)) > limit:
        got = f"{cost(_without(fields, ranked))} with everything removed"
        raise check.fail("budget", f"within reach, at most {limit}", got)
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if cost(_without(fields, ranked[:middle])) <= limit
            else (middle + 1, high)
        )
    return _without(fields, ranked[:low])


def grouped(heads: Any, groups: int) -> np.ndarray:
    """Scores of key/value groups: means over their query heads.

    Args:
      heads: (layer, head) scores.
      groups: number of key/value heads.

    Returns:
      (layer, group).

    Raises:
      ValueError: if the heads do not divide into so many groups.

    Example:
      >>> grouped(np.array([[1.0, 3.0, 0.0, 4.0]]), 2).tolist()
      [[2.0, 2.0]]
    """
    heads = np.asarray(heads)
    check.integer("groups", groups, 1)
    if heads.shape[1] % groups:
        raise check.fail("groups", f"a divisor of {heads.shape[1]} heads", groups)
    return heads.reshape(len(heads), groups, -1).mean(axis=-1)


def _fields(scores: Gates) -> dict[str, np.ndarray]:
    """The scores there are, as numbers that can be ranked."""
    values = {field.name: getattr(scores, field.name) for field in dataclasses.fields(Gates)}
    found = {k: np.asarray(v, np.float64) for k, v in values.items() if v is not None}
    if not found:
        raise check.fail("scores", "at least one field", "none")
    for name, value in found.items():
        if value.ndim != (2 if name in _LAYERED else 1):
            axes = "(layer, component)" if name in _LAYERED else "(component,)"
            raise check.fail(f"scores.{name}", f"shape {axes}", f"shape {value.shape}")
        if np.isnan(value).any():
            raise check.fail(f"scores.{name}", "numbers", "NaN")
    return found


def _shut_lowest(
    name: str, rows: np.ndarray, shape: tuple[int, ...], sparsity: float, least: int
) -> np.ndarray:
    """Gates of `shape` in which each row of scores has lost its share, lowest first."""
    gate = np.ones(rows.shape, np.float32)
    count = round(sparsity * rows.shape[1])
    safe = _safe(rows.reshape(shape), least).reshape(rows.shape)
    for row, values, keep in zip(gate, rows, safe, strict=True):
        # From the lowest; of equal ones the last first.
        order = np.lexsort((-np.arange(len(values)), values))
        order = order[~keep[order]]
        if count > len(order):
            got = f"{count} of {len(values)} to shut and {int(keep.sum())} to keep"
            raise check.fail(f"at_least ({name})", "a minimum that leaves enough to shut", got)
        row[order[:count]] = 0
    return gate.reshape(shape)


def _safe(values: np.ndarray, least: int) -> np.ndarray:
    """Marks the `least` highest of every layer."""
    safe = np.zeros(values.shape, bool)
    if least and values.ndim == 2:
        check.integer("at_least", least, 0, values.shape[1])
        order = np.argsort(-values, axis=1, kind="stable")[:, :least]
        np.put_along_axis(safe, order, True, axis=1)
    return safe


def _ranking(config: ModelConfig, fields: Any, cost: Any, at_least: int) -> list[Any]:
    """Components in the order of their removal: least score for its cost first."""
    whole = cost(Gates())
    found = []
    for name, values in fields.items():
        # A layer's heads share the cost of their keys and values; neurons cost the same each.
        shut = np.ones(values.shape, np.float32)
        shut[0] = 0
        together = values.shape[1] if name in _LAYERED else 1
        each = (whole - cost(Gates(**{name: shut}))) / together
        safe = _safe(values, at_least if name in _LAYERED else 0)
        for place in np.ndindex(values.shape):
            if not safe[place]:
                # Of equal ones the last goes first.
                found.append((values[place] / max(each, 1e-9), name, tuple(-i for i in place)))
    return [(name, tuple(-i for i in place)) for _, name, place in sorted(found)]


def _without(fields: Any, removed: list[Any]) -> Gates:
    gates = {name: np.ones(values.shape, np.float32) for name, values in fields.items()}
    for name, place in removed:
        gates[name][place] = 0
    return Gates(**gates)
