"""From scores to gates: which components stay.

Scores are a `Gates` whose fields hold numbers instead of gates: the higher, the more a component
matters. Ties are broken by place: of two components with equal scores the earlier one stays. A
score of infinity marks a slot at the end of a layer that is smaller than the largest: it is neither
shut nor counted (`scores.marked`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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
    groups: int | Sequence[int] | None = None,
    equal: bool = False,
    start: Gates | None = None,
) -> Gates:
    """Shuts the share `sparsity` of the components of every field that has scores.

    Args:
      scores: a field that is `None` is left alone.
      sparsity: in [0, 1): the share of all components there are that is shut afterwards, those
        shut in `start` included; `round(sparsity * count)` of them.
      scope: rank the components of all layers together, or those of each layer by themselves.
      at_least: heads and neurons that every layer keeps, however low their scores; all it has, if
        these are fewer.
      groups: the number of key/value heads of the model or of each layer, to remove heads by whole
        groups, ranked by the mean of their scores; `None` removes single heads.
      equal: remove no whole groups, but equally many heads of every group of a layer: the lowest of
        each together, ranked by the mean of their scores. Keys and values then stay shared.
      start: gates of an earlier round; what is shut stays shut.

    Returns:
      Gates of 0 and 1.

    Raises:
      ValueError: for a sparsity outside [0, 1), scores of the wrong shape or NaN, a minimum that
        cannot be kept at this sparsity, and a `start` in which more is shut than may be.

    Example:
      >>> scores = Gates(heads=np.array([[4.0, 1.0], [3.0, 2.0]]))
      >>> select(scores, 0.5).heads.tolist()
      [[1.0, 0.0], [1.0, 0.0]]
    """
    if not 0 <= sparsity < 1:
        raise check.fail("sparsity", "a number in [0, 1)", sparsity)
    check.known("scope", scope, ("global", "layer"))
    if equal and groups is None:
        raise check.fail("groups", "how many there are, to lose equally many heads", "none")
    found = {}
    for name, values in _fields(scores).items():
        before = None if start is None else getattr(start, name)
        shut = np.zeros(values.shape, bool) if before is None else np.asarray(before) == 0
        shut &= values < np.inf
        values = np.where(shut, -np.inf, values)
        least = at_least if name in _LAYERED else 0
        if groups is None or name != "heads":
            found[name] = _shut_lowest(name, values, scope, sparsity, least)
        else:
            found[name] = _shut_groups(values, groups, equal, scope, sparsity, least)
        if opened := int((found[name] > 0)[shut].sum()):
            expected = f"nothing shut that stays open at {sparsity} with this scope and minimum"
            raise check.fail(f"start.{name}", expected, f"{opened} components")
    return Gates(**found)


def _shut_groups(
    heads: np.ndarray, groups: int | Sequence[int], equal: bool, scope: str, sparsity: float,
    least: int,
) -> np.ndarray:  # fmt: skip
    """Gates of heads, shut by whole groups or equally many of every group."""
    owner = _ranks(heads, groups) if equal else _owners(heads, groups)
    units = _means(heads, owner)
    if equal and units.shape[1] == 1 < heads.shape[1]:
        raise check.fail("groups", "fewer than heads, to lose equally many", groups)
    size = np.maximum([(row == 0).sum() for row in owner], 1)
    gate = _shut_lowest("heads", units, scope, sparsity, -(-least // size))
    return np.where(heads < np.inf, np.take_along_axis(gate, np.maximum(owner, 0), axis=1), 1)


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
    must be in one unit (nats saved, say). Every step removes one, and the first model that fits is
    taken. A single head may cost more than it saves on the way, where key/value heads are shared:
    see `shrink`.

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
    there = size.existing(config)
    fields |= {
        name: np.where(getattr(there, name), fields[name], np.inf)
        for name in _LAYERED
        if name in fields
    }
    turns, count = _turns(fields, cost, at_least)
    first = _first_that_fits(lambda removed: cost(_without(turns, removed)), turns, count, limit)
    return _without(turns, first)


def _first_that_fits(
    cost: Callable[[int], int], turns: dict[str, np.ndarray], count: int, limit: int
) -> int:
    """The smallest number of removals with which the cost is within the limit."""
    heads = turns.get("heads", np.zeros(0, int))
    # Until the next head goes the cost only falls, so there the first that fits is found by
    # halving. The removal of a head can raise it: others may then no longer share their keys.
    low = 0
    for high in [*sorted(int(turn) for turn in heads.ravel() if turn < count), count]:
        if cost(high) <= limit:
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if cost(middle) <= limit else (middle + 1, high)
            return low
        low = high + 1
    got = f"{cost(count)} with everything removed"
    raise check.fail("budget", f"within reach, at most {limit}", got)


def grouped(heads: Any, groups: int | Sequence[int]) -> np.ndarray:
    """Scores of key/value groups: means over their query heads.

    Args:
      heads: (layer, head) scores.
      groups: number of key/value heads, of all layers or of each.

    Returns:
      (layer, group), infinity where a layer has fewer groups.

    Raises:
      ValueError: if the heads do not divide into so many groups.

    Example:
      >>> grouped(np.array([[1.0, 3.0, 0.0, 4.0]]), 2).tolist()
      [[2.0, 2.0]]
    """
    heads = np.asarray(heads)
    return _means(heads, _owners(heads, groups))


def _owners(heads: np.ndarray, groups: int | Sequence[int]) -> np.ndarray:
    """(layer, head) number of each head's key/value group; -1 where a layer lacks the head."""
    each = np.maximum(_each(heads, groups), 1)[:, None]
    return np.where(heads < np.inf, np.arange(heads.shape[1]) // each, -1)


def _ranks(heads: np.ndarray, groups: int | Sequence[int]) -> np.ndarray:
    """(layer, head) place of each head in its group, the highest score first; -1 as `_owners`."""
    owners, ranks = _owners(heads, groups), np.full(heads.shape, -1)
    for row, own, rank in zip(heads, owners, ranks, strict=True):
        for group in np.unique(own[own >= 0]):
            members = np.flatnonzero(own == group)
            rank[members[np.argsort(-row[members], kind="stable")]] = np.arange(len(members))
    return ranks


def _means(heads: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(layer, unit) means over the heads of each unit, infinity where a layer has fewer units."""
    found = np.full((len(heads), max(int(owner.max()), 0) + 1), np.inf)
    for row, own, unit in zip(heads, owner, found, strict=True):
        for number in np.unique(own[own >= 0]):
            unit[number] = row[own == number].mean()
    return found


def _each(heads: np.ndarray, groups: int | Sequence[int]) -> np.ndarray:
    """(layer,) query heads of a group; 0 for a layer without heads."""
    counts = (heads < np.inf).sum(axis=1)
    shared = np.broadcast_to(groups, counts.shape)
    for count, own in zip(counts, shared, strict=True):
        if count and (own < 1 or count % own):
            raise check.fail("groups", f"a divisor of {count} heads", own)
    return counts // np.maximum(shared, 1)


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
    name: str, values: np.ndarray, scope: str, sparsity: float, least: Any
) -> np.ndarray:
    """Gates in which all scores together, or each layer's, have lost their share, lowest first."""
    rows = values.reshape(1, -1) if scope == "global" or values.ndim == 1 else values
    gate = np.ones(rows.shape, np.float32)
    safe = _safe(values, least).reshape(rows.shape)
    for row, own, keep in zip(gate, rows, safe, strict=True):
        there = own < np.inf
        count = round(sparsity * int(there.sum()))
        # From the lowest; of equal ones the last first.
        order = np.lexsort((-np.arange(len(own)), own))
        order = order[(there & ~keep)[order]]
        if count > len(order):
            got = f"{count} of {there.sum()} to shut and {(there & keep).sum()} to keep"
            raise check.fail(f"at_least ({name})", "a minimum that leaves enough to shut", got)
        row[order[:count]] = 0
    return gate.reshape(values.shape)


def _safe(values: np.ndarray, least: Any) -> np.ndarray:
    """Marks the `least` highest of every layer; a number for all layers or one for each."""
    if values.ndim == 1:
        return np.zeros(values.shape, bool)
    least = np.broadcast_to(least, len(values))
    check.integer("at_least", int(least.max()), 0)
    order = np.argsort(np.where(values < np.inf, -values, np.inf), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable")
    return ranks < least[:, None]


def _turns(fields: Any, cost: Any, at_least: int) -> tuple[dict[str, np.ndarray], int]:
    """When each component goes, least score for its cost first; and how many do go."""
    whole = cost(Gates())
    found = []
    for name, values in fields.items():
        # A layer's heads share the cost of their keys and values; neurons cost the same each.
        each = np.zeros(len(values))
        for i, own in enumerate(values):
            shut = np.ones(values.shape, np.float32)
            shut[i] = 0
            together = max(int((own < np.inf).sum()), 1)
            each[i] = max((whole - cost(Gates(**{name: shut}))) / together, 1e-9)
        safe = _safe(values, at_least if name in _LAYERED else 0)
        for place in np.ndindex(values.shape):
            if not safe[place] and values[place] < np.inf:
                # Of equal ones the last goes first.
                found.append((values[place] / each[place[0]], name, tuple(-i for i in place)))
    turns = {name: np.full(values.shape, len(found)) for name, values in fields.items()}
    for turn, (_, name, place) in enumerate(sorted(found)):
        turns[name][tuple(-i for i in place)] = turn
    return turns, len(found)


def _without(turns: dict[str, np.ndarray], removed: int) -> Gates:
    return Gates(**{name: (turn >= removed).astype(np.float32) for name, turn in turns.items()})
