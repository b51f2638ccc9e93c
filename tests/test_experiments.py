"""Every experiment runs, as its quick overlay says, and leaves rows, figures and a page."""

from __future__ import annotations

import importlib
import sys

import pytest

from jaxcompress import io, runs
from jaxcompress.train import population
from jaxcompress.train.addition import Addition
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_quick(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--quick", f"run={tmp_path / 'run'}"])
    importlib.import_module(f"experiments.{name}").main()
    assert str(tmp_path / "run" / "report.html") in capsys.readouterr().out
    assert runs.rows(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/png;base64," in page and "<table>" in page
    assert list((tmp_path / "run").glob("*.png"))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("parity_prune", {"drawn": 41}, "drawn: expected one of kept"),
        ("parity_broad", {"opening": 1.5}, "opening: expected a share"),
        ("parity_broad", {"frequencies": (1.0,) * 5}, "frequencies: expected different ones"),
        ("relearning", {"size": 3}, r"size: expected a whole number in \[0, 2\]"),
        ("relearning", {"rows": ("prune",)}, "rows: expected one of"),
        ("relearning", {"steps": 41}, r"steps: expected a multiple of narrowing.points \(8\)"),
    ],
)
def test_settings_are_refused_before_training(name, changes, message, monkeypatch):
    monkeypatch.setattr(population, "train", None)
    experiment = importlib.import_module(f"experiments.{name}")
    with pytest.raises(ValueError, match=message):
        experiment.run(experiment.Config(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["sweep_steps=930"], r"sweep_steps: expected a multiple of sweep_every \(20\), got 930"),
        (["sweep_fractions=[0.3, 1.0]"], r"fraction: expected in \(0, 1\)"),
    ],
)
def test_a_sweep_is_refused_before_what_comes_first(changes, message, monkeypatch):
    monkeypatch.setattr(population, "train", None)
    monkeypatch.setattr(sys, "argv", ["grokking", *changes])
    with pytest.raises(ValueError, match=message):
        importlib.import_module("experiments.grokking").main()


def test_documents_of_the_built_in_language_have_the_context_asked_for():
    experiment = importlib.import_module("experiments.quanta_discovery")
    config = experiment.Config(context=20, families=("months",), count=3, loss=9.0)
    assert experiment.choose(config, io.load(config.model), 0).rows.shape[1] == 20


def test_a_modulus_with_fewer_pairs_than_triples():
    experiment = importlib.import_module("experiments.read_modular")
    small = Addition(p=5, width=4, heads=1, warmup=1, steps=2, every=2)
    [row] = experiment.run(experiment.Config(training=small, triples=200))
    assert -1 <= row["gradient_symmetry"] <= 1


def test_entangled_features_never_compares_the_teacher_with_itself(tmp_path):
    experiment = importlib.import_module("experiments.entangled_features")
    config = experiment.Config(teacher="builtin:student", students=(), shares=(), seeds=1)
    with pytest.raises(ValueError, match="^seeds: "):
        experiment.run(config, runs.Run(tmp_path, 0))
