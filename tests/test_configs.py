"""Every file under configs/ has its header, parses into its dataclass, and has a quick overlay."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
import yaml

from jaxcompress import config
from tests.conftest import ROOT

# configs/<experiment>/ belongs to `Config` of experiments/<experiment>.py, except for these.
ELSEWHERE = {
    "builtin": "scripts.train_builtin:Config",
    "circuit": "jaxcompress.mechanism:CircuitConfig",
    "compare": "jaxcompress.compare:CompareConfig",
    "distill": "jaxcompress.finetune:DistillConfig",
    "lora": "jaxcompress.finetune:LoraConfig",
    "prune": "jaxcompress.compress:PruneConfig",
    "sae": "jaxcompress.dictionary:SaeConfig",
}

# Lines of the header comment that every file starts with, such as `# Minutes: 3 on 2 CPU cores`.
HEADER = ("Paper", "Command", "Minutes", "Expect")
MAX_LINES = 40


def config_class(experiment: str) -> type:
    name = ELSEWHERE.get(experiment, f"experiments.{experiment}:Config")
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def problems(path: Path, cls: type) -> list[str]:
    """What is wrong with one config file."""
    found, text = [], path.read_text(encoding="utf-8")
    lines = text.splitlines()
    header = [line for line in lines[: _first_value(lines)] if line.startswith("#")]
    for label in HEADER:
        if not any(line.startswith(f"# {label}: ") for line in header):
            found.append(f"no line '# {label}: ...' in the header comment")
    if len(lines) > MAX_LINES:
        found.append(f"{len(lines)} lines, at most {MAX_LINES}")
    try:
        full = config.load(cls, path)
        if "quick" not in (yaml.safe_load(text) or {}):
            found.append("no quick: overlay")
        elif config.load(cls, path, quick=True) == full:
            found.append("the quick: overlay changes nothing")
    except ValueError as error:
        found.append(str(error))
    return [f"{path.parent.name}/{path.name}: {line}" for line in found]


def _first_value(lines: list[str]) -> int:
    values = [i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    return values[0] if values else len(lines)


def test_every_config():
    # One test for all, not one for each: no file must not look like a test that was skipped.
    found = []
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        assert path.parent.parent == ROOT / "configs", f"{path} is not configs/<experiment>/<name>"
        found += problems(path, config_class(path.parent.name))
    assert found == []


def test_configs_hold_nothing_but_yaml():
    strays = [path for path in (ROOT / "configs").rglob("*") if path.is_file()]
    assert [path for path in strays if path.suffix != ".yaml"] == []


def test_every_experiment_has_a_default():
    names = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"__init__"}
    without = [name for name in names if not (ROOT / "configs" / name / "default.yaml").exists()]
    assert without == []


@dataclasses.dataclass(frozen=True)
class Train:
    steps: int = 100


GOOD = """\
# Paper: Michel et al. 2019 (arXiv 1905.10650), section 4
# Command: python experiments/heads.py
# Minutes: 3 on 2 CPU cores
# Expect: accuracy 0.83
steps: 1000
quick:
  steps: 2
"""


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("# Minutes: 3", "# 3 minutes", "no line '# Minutes: ...' in the header"),
        ("# Paper", "other: 1\n# Paper", "no line '# Paper"),
        ("steps: 1000", "stps: 1000", "stps: expected a key of Train"),
        ("  steps: 2", "  stps: 2", "stps: expected a key of Train"),
        ("steps: 1000", "steps: many", "steps: expected a valid integer"),
        ("quick:\n  steps: 2\n", "", "no quick: overlay"),
        ("steps: 2", "steps: 1000", "the quick: overlay changes nothing"),
        ("quick:", "#\n" * 40 + "quick:", "47 lines, at most 40"),
    ],
)
def test_wrong_configs_are_seen(tmp_path, before, after, expected):
    path = tmp_path / "default.yaml"
    path.write_text(GOOD)
    assert problems(path, Train) == []
    assert before in GOOD
    path.write_text(GOOD.replace(before, after))
    assert any(expected in line for line in problems(path, Train))


def test_classes_are_found_by_name(monkeypatch):
    monkeypatch.setitem(ELSEWHERE, "here", f"{__name__}:Train")
    assert config_class("here") is Train
    with pytest.raises(ModuleNotFoundError, match=r"experiments"):
        config_class("no_such_experiment")
