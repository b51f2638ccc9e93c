"""`adapter_config.json` of PEFT: what it says of ranks and scales; unknown options are refused."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxcompress import check
from jaxcompress.models.config import ModelConfig

__all__ = ["Options", "read", "write"]

_READ = {"alpha_pattern", "lora_alpha", "r", "rank_pattern", "use_dora", "use_rslora"}
# Options that change no forward, or that the names of the tensors make superfluous.
# fmt: off
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout",
    "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "target_modules", "task_type",
}
# fmt: on
_FIXED = {
    "bias": ("none",),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
    "peft_type": ("LORA",),
}
_CONVERT = (
    "the base weights were changed with the adapter: convert it where PEFT is installed, "
    "save_pretrained(directory, path_initial_model_for_weight_conversion=...)"
)


class Options(NamedTuple):
    """What a configuration says of ranks and scales.

    Attributes:
      rank: of modules without their own.
      alpha: likewise.
      ranks: by regular expression for the end of a module's name.
      alphas: likewise.
      dora: whether there are magnitudes.
      rslora: whether alpha is divided by the root of the rank.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    dora: bool
    rslora: bool

    @property
    def variant(self) -> str:
        """Ours; of DoRA with the scale of rsLoRA it is DoRA, with another alpha."""
        return "dora" if self.dora else "rslora" if self.rslora else "lora"

    def of(self, module: str) -> tuple[int, float]:
        """Rank and alpha of a module."""
        rank = int(_matched(self.ranks, module, self.rank))
        alpha = float(_matched(self.alphas, module, self.alpha))
        return rank, alpha * rank**0.5 if self.dora and self.rslora else alpha


def _matched(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    found = (v for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", module))
    return next(found, default)


def read(path: Path) -> Options:
    """Reads a configuration.

    Args:
      path: of the file.

    Raises:
      ValueError: for a file that is missing or not JSON, and for an option that could change the
        forward and is not implemented, by name.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "adapter_config.json"
      >>> _ = path.write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": true}')
      >>> read(path).variant
      'dora'
    """
    if not path.is_file():
        raise check.fail(str(path), "an adapter's configuration", "no such file")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise check.fail(str(path), "JSON", error) from None
    if not isinstance(raw, dict) or "peft_type" not in raw:
        raise check.fail(str(path), "a JSON object with a peft_type", repr(raw)[:80])
    for name, value in raw.items():
        if name in _FIXED and value not in _FIXED[name]:
            hint = _CONVERT if name == "init_lora_weights" else ""
            raise check.fail(f"{path}: {name}", f"one of {_FIXED[name]}", repr(value), hint)
        known = name in _READ | _HARMLESS | _FIXED.keys()
        if not known and value not in (None, False, [], {}):
            raise check.fail(f"{path}: {name}", "an option that is implemented", repr(value))
    rank, ranks = raw.get("r", 8), _pattern(raw, "rank_pattern", path)
    alpha, alphas = raw.get("lora_alpha", 8), _pattern(raw, "alpha_pattern", path)
    for name, value in (("r", rank), *ranks.items()):
        check.integer(f"{path}: {name}", value, 1)
    for name, value in (("lora_alpha", alpha), *alphas.items()):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and 0 < value < math.inf):
            raise check.fail(f"{path}: {name}", "a finite number above 0", repr(value))
    return Options(
        rank=rank,
        alpha=alpha,
        ranks=ranks,
        alphas=alphas,
        dora=bool(raw.get("use_dora")),
        rslora=bool(raw.get("use_rslora")),
    )


def _pattern(raw: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = raw.get(name) or {}
    if not isinstance(found, dict):
        raise check.fail(f"{path}: {name}", "a JSON object", repr(found))
    return found


def write(
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
    variant: str,
    config: ModelConfig,
    name: str,
) -> dict[str, Any]:
    """The contents of a configuration.

    Args:
      ranks: by full name of the module.
      alphas: likewise.
      variant: all but "pissa", which PEFT knows only together with its base.
      config: of the base.
      name: of the base.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> raw = write({"h.0.a": 2, "h.1.a": 2, "b": 4}, {"h.0.a": 1.0, "h.1.a": 1.0, "b": 1.0},
      ...             "lora", config, "gpt2")
      >>> raw["r"], raw["rank_pattern"]
      (2, {'b': 4})
    """
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if config.head == "linear" else None,
        "base_model_name_or_path": name or None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _number(alpha),
        "rank_pattern": {k: v for k, v in ranks.items() if v != rank},
        "alpha_pattern": {k: _number(v) for k, v in alphas.items() if v != alpha},
        "target_modules": sorted(ranks),
        "modules_to_save": None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": config.family == "gpt2",
        "init_lora_weights": True,
        "use_rslora": variant == "rslora",
        "use_dora": variant == "dora",
    }


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
