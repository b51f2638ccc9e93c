"""Every experiment runs, as its quick overlay says, and leaves rows, figures and a page."""

from __future__ import annotations

import importlib
import sys

import pytest

from jaxcompress import runs
from jaxcompress.train import population
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
    ],
)
def test_settings_are_refused_before_training(name, changes, message, monkeypatch):
    monkeypatch.setattr(population, "train", None)
    experiment = importlib.import_module(f"experiments.{name}")
    with pytest.raises(ValueError, match=message):
        experiment.run(experiment.Config(**changes))
