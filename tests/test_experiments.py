"""Every experiment runs, as its quick overlay says, and leaves rows, figures and a page."""

from __future__ import annotations

import importlib
import sys

import pytest

from jaxcompress import runs
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
