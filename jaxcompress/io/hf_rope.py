"""Rotary positions in `config.json`, as every version of transformers has written them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxcompress import check
from jaxcompress.models.config import ModelConfig, RopeScaling

__all__ = ["KEYS", "read", "write"]

_SHARE = ("rotary_pct", "partial_rotary_factor")
_BASE = ("rotary_emb_base", "rope_theta")
# Version 5 of transformers has rope_parameters, version 4 had the others.
KEYS = {
    "llama": {"rope_parameters", "rope_scaling", "rope_theta"},
    "gpt_neox": {"rope_parameters", "rope_scaling", *_SHARE, *_BASE},
}
"""The keys of each family that has rotary positions."""

_LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original": "original_max_position_embeddings",
}


def read(raw: Mapping[str, Any], head_dim: int, where: str = "config.json") -> dict[str, Any]:
    """The fields of a `ModelConfig` that say how positions turn queries and keys.

    Args:
      raw: the parsed JSON of a family in `KEYS`.
      head_dim: of its heads.
      where: the file, for messages.

    Raises:
      ValueError: for a kind of scaling, a key or a value that is not implemented, naming it.

    Example:
      >>> read({"model_type": "gpt_neox", "rotary_pct": 0.5}, 64)["rotary_dim"]
      32
    """
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}  # the order of version 5
    if not isinstance(rope, Mapping):
        raise check.fail(f"{where}: rope_scaling", "a JSON object", repr(rope))
    rope, found = dict(rope), {}
    if raw.get("model_type") == "gpt_neox":
        found["rotary_dim"] = _turned(_take(_SHARE, 0.25, raw, rope, where), head_dim, where)
    found["rope_theta"] = _take(_BASE, 10000.0, raw, rope, where)
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    rope.pop("type", None)
    if kind not in ("default", "llama3"):
        raise check.fail(f"{where}: rope_type", "'default' or 'llama3'", repr(kind))
    found["rope_scaling"] = _llama3(rope, where) if kind == "llama3" else None
    if rope:
        raise check.fail(f"{where}: rope_scaling", "only keys that are implemented", sorted(rope))
    return found


def _take(
    names: tuple[str, ...], default: float, raw: Mapping[str, Any], rope: dict[str, Any], where: str
) -> float:
    """A number that goes by several names, within the rotary parameters or beside them."""
    inner = {name: rope.pop(name) for name in names if name in rope}
    said = {name: raw[name] for name in names if raw.get(name) is not None} | inner
    values = {name: _number(value, name, where) for name, value in said.items()}
    if len(set(values.values())) > 1:
        raise check.fail(f"{where}: {' and '.join(values)}", "one value", list(values.values()))
    return next(iter(values.values()), default)


def _turned(share: float, head_dim: int, where: str) -> int:
    """How many numbers of a head turn; 0 for all."""
    turned = int(head_dim * share)
    if not 0 < turned <= head_dim:
        expected = f"a share that turns 1 to {head_dim} numbers of a head"
        raise check.fail(f"{where}: rotary_pct", expected, share)
    return 0 if turned == head_dim else turned


def _llama3(rope: dict[str, Any], where: str) -> RopeScaling:
    missing = [theirs for theirs in _LLAMA3.values() if theirs not in rope]
    if missing:
        raise check.fail(f"{where}: rope_scaling", ", ".join(missing), "no such keys")
    values = {ours: rope.pop(name) for ours, name in _LLAMA3.items()}
    original = check.integer(f"{where}: {_LLAMA3['original']}", values.pop("original"), 1)
    numbers = {ours: _number(value, _LLAMA3[ours], where) for ours, value in values.items()}
    return RopeScaling(**numbers, original=original)


def _number(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise check.fail(f"{where}: {key}", "a positive number", repr(value))
    return float(value)


def write(config: ModelConfig) -> dict[str, Any]:
    """The keys with which stock transformers, 4 or 5, turns queries and keys the same way.

    Example:
      >>> config = ModelConfig(family="llama", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5, positions="rope")
      >>> write(config)["rope_parameters"]
      {'rope_theta': 10000.0, 'rope_type': 'default'}
    """
    rope: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_type": "default"}
    scaling = None
    if config.rope_scaling is not None:
        values = {theirs: getattr(config.rope_scaling, ours) for ours, theirs in _LLAMA3.items()}
        scaling = {"rope_type": "llama3"} | values
        rope |= scaling
    found = {"rope_parameters": rope, "rope_scaling": scaling}
    if config.family != "gpt_neox":
        return found | {"rope_theta": config.rope_theta}
    share = config.rotated / config.head_dim
    if int(config.head_dim * share) != config.rotated:  # they round down
        share = math.nextafter(share, 1)
    rope["partial_rotary_factor"] = share
    return found | {"rotary_emb_base": config.rope_theta, "rotary_pct": share}
