"""The layers, fences and sizes of the house hold; and the checker sees what breaks them."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests import layering
from tests.conftest import ROOT

SOURCES = layering.read(ROOT)

# Enough of the package for the synthetic sources to resolve against.
BASE = dict.fromkeys(
    (
        "jaxcompress.__init__",
        "jaxcompress.check",
        "jaxcompress.models.__init__",
        "jaxcompress.models.config",
        "jaxcompress.models.gates",
        "jaxcompress.models.build",
        "jaxcompress.tasks.prompts",
        "jaxcompress.ablate.sweep",
        "jaxcompress.circuits.graph",
        "jaxcompress.align.score",
        "jaxcompress.prune.select",
        "jaxcompress.io.checkpoint",
        "jaxcompress.compare",
        "experiments.grok",
        "experiments.quanta",
        "scripts.golden",
    ),
    "",
)


def test_the_repository_is_read():
    assert {"jaxcompress.check", "jaxcompress.config", "tests.conftest"} <= set(SOURCES)
    found = {(item.module, item.target) for item in layering.imports(SOURCES)}
    assert ("jaxcompress.runs", "jaxcompress.config") in found


@pytest.mark.parametrize(
    "rule", ["layers", "fences", "cycles", "depth", "sizes", "medians"], ids=str
)
def test_the_repository_keeps(rule):
    assert getattr(layering, rule)(SOURCES) == []


def test_imports_are_declared_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # Extras that a user may choose are imported where they are asked for, with a clear error.
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["logging"], *extras["datasets"]]
    names = {re.split(r"[<>=\[; ]", line)[0] for line in lines}
    assert layering.undeclared(SOURCES, names) == []
    assert layering.undeclared({"jaxcompress.check": "import pandas"}, names) != []


WRONG_LAYERS = {
    "up": ("check", "from jaxcompress.models import gates", "layer 0 imports layer 1"),
    "up, to layer 3": (
        "prune.select",
        "import jaxcompress.io.checkpoint",
        "layer 2 imports layer 3",
    ),
    "up, relative": ("models.gates", "from ..prune import select", "layer 1 imports layer 2"),
    "to the root": ("compare", "import jaxcompress", "layer 4 imports layer 5"),
    "to a name of the root": ("io.checkpoint", "from jaxcompress import load", "imports layer 5"),
    "inside a function": ("check", "def f():\n  import jaxcompress.compare", "imports layer 4"),
    "for types only": (
        "check",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import jaxcompress.compare",
        "layer 0 imports layer 4",
    ),
    "by name": ("check", "importlib.import_module('jaxcompress.compare')", "imports layer 4"),
    "tasks to models": ("tasks.prompts", "from jaxcompress.models import config", "do not know"),
    "models to tasks": ("models.build", "from jaxcompress.tasks import prompts", "do not know"),
    "layer 2 to a model": ("ablate.sweep", "from jaxcompress.models import build", "only through"),
    "layer 2 to models' door": ("ablate.sweep", "from jaxcompress.models import X", "only through"),
    "sideways": ("prune.select", "from jaxcompress.ablate import sweep", "sideways"),
    "sideways, backwards": ("ablate.sweep", "import jaxcompress.circuits.graph", "sideways"),
    "to experiments": ("io.checkpoint", "from experiments import grok", "knows nothing"),
    "to tests": ("io.checkpoint", "import tests.conftest", "knows nothing"),
    "to nothing": ("io.checkpoint", "import jaxcompress.nonsense.x", "imports layer 5"),
    "in no layer": ("nonsense.x", "", "in no layer"),
}


@pytest.mark.parametrize("case", WRONG_LAYERS)
def test_wrong_layers_are_seen(case):
    module, source, expected = WRONG_LAYERS[case]
    found = layering.layers(BASE | {f"jaxcompress.{module}": source})
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("experiments.grok", "import experiments.quanta"),
        ("experiments.grok", "import quanta"),
        ("experiments.grok", "from scripts import golden"),
        ("scripts.golden", "from experiments.grok import run"),
        ("scripts.golden", "from tests import conftest"),
    ],
)
def test_experiments_and_scripts_stay_alone(module, source):
    (found,) = layering.layers(BASE | {module: source})
    assert "import the package only" in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxcompress.__init__", "from jaxcompress.compare import compare"),
        ("jaxcompress.compare", "from jaxcompress.io import checkpoint\nimport numpy"),
        ("jaxcompress.prune.select", "from jaxcompress.models.gates import Gates"),
        ("jaxcompress.prune.select", "from jaxcompress.models import config, gates"),
        ("jaxcompress.circuits.graph", "from jaxcompress.ablate.sweep import sweep"),
        ("jaxcompress.align.score", "from jaxcompress.ablate import sweep"),
        ("jaxcompress.models.build", "from . import gates\nfrom .config import ModelConfig"),
        ("experiments.grok", "import jaxcompress as jc\nfrom jaxcompress import compare"),
        ("tests.test_x", "import experiments.grok, scripts.golden, torch"),
    ],
)
def test_allowed_imports_pass(module, source):
    sources = BASE | {module: source}
    assert layering.layers(sources) == []
    assert layering.fences(sources) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxcompress.check", "import flax"),
        ("jaxcompress.prune.select", "import optax"),
        ("jaxcompress.prune.select", "from optax import losses"),
        ("jaxcompress.models.build", "def f():\n  from safetensors.flax import load_file"),
        ("jaxcompress.compare", "import orbax.checkpoint as ocp"),
        ("jaxcompress.tasks.prompts", "from transformers import AutoTokenizer"),
        ("jaxcompress.models.build", "import tokenizers, huggingface_hub.utils"),
        ("jaxcompress.compare", "import matplotlib.pyplot as plt"),
        ("jaxcompress.compare", "import jinja2"),
        ("jaxcompress.io.checkpoint", "import torch"),
        ("experiments.grok", "import flax.linen as nn"),
        ("experiments.grok", "import torch"),
    ],
)
def test_wrong_fences_are_seen(module, source):
    assert layering.fences(BASE | {module: source}) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.build", "import flax.linen"),
        ("train.step", "import optax"),
        ("prune.masks", "import optax"),
        ("io.checkpoint", "import orbax.checkpoint, safetensors, transformers"),
        ("data.text", "import tokenizers"),
        ("report.plots", "import matplotlib"),
    ],
)
def test_fences_have_gates(module, source):
    assert layering.fences(BASE | {f"jaxcompress.{module}": source}) == []


def test_cycles_are_seen():
    gates, build = "jaxcompress.models.gates", "jaxcompress.models.build"
    there, back = "from jaxcompress.models import build", "def f():\n  from . import gates"
    assert layering.cycles(BASE | {gates: there}) == []
    (found,) = layering.cycles(BASE | {gates: there, build: back})
    assert found == f"cycle: {build} -> {gates} -> {build}"
    door = {"jaxcompress.models.__init__": "from .build import X", build: "from . import X"}
    assert len(layering.cycles(BASE | door)) == 1


def test_subpackages_that_import_each_other_are_seen():
    wrong = {
        "jaxcompress.train.loop": "from jaxcompress.io import checkpoint",
        "jaxcompress.train.state": "",
        "jaxcompress.io.peft": "from jaxcompress.train import state",
    }
    assert layering.cycles(BASE | wrong) == ["io and train import each other"]


def _chain(length: int) -> dict[str, str]:
    return {f"jaxcompress.io.m{i}": f"from jaxcompress.io import m{i + 1}" for i in range(length)}


def test_depth_is_counted_without_doors():
    last = {f"jaxcompress.io.m{layering.MAX_DEPTH}": ""}
    allowed = _chain(layering.MAX_DEPTH) | last
    assert layering.depth(allowed) == []
    door = {"jaxcompress.__init__": "import jaxcompress.io.m0"}
    assert layering.depth(allowed | door) == []
    above = {"jaxcompress.compare": "import jaxcompress.io.m0"}
    (found,) = layering.depth(allowed | above)
    assert found.startswith("8 imports deep: jaxcompress.compare -> jaxcompress.io.m0 ->")


@pytest.mark.parametrize(
    ("module", "lines"),
    [("jaxcompress.check", 401), ("experiments.grok", 151), ("tests.test_x", 501)],
)
def test_long_files_are_seen(module, lines):
    (found,) = layering.sizes({module: "x = 1\n" * lines})
    assert f"{lines} lines" in found
    assert layering.sizes({module: "x = 1\n" * (lines - 1)}) == []


def test_long_functions_are_seen_and_docstrings_are_free():
    source = 'def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 59
    assert layering.functions(source) == [("f", 1, 60)]
    assert layering.sizes({"jaxcompress.check": source}) == []
    (found,) = layering.sizes({"jaxcompress.check": source + "    x = 1\n"})
    assert "jaxcompress.check:1 f: 61 lines" in found


def test_high_medians_are_seen():
    small, large = "def f():\n  return 1\n", "def g():\n" + "  x = 1\n" * 200
    package = {"jaxcompress.a": small, "jaxcompress.b": small, "jaxcompress.c": large}
    assert layering.medians(package) == []
    found = layering.medians(package | {"jaxcompress.d": large, "jaxcompress.e": large})
    assert [line.split(":")[0] for line in found] == ["median file", "median function"]
