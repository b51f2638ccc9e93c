"""TensorBoard and wandb get every row; without the packages there is one clear error."""

from __future__ import annotations

import importlib
import types

import pytest

from jaxcompress import train


class Recorder:
    """Stands for a writer or a run: remembers what is called."""

    def __init__(self, *arguments, **options):
        self.calls = [("made", arguments, options)]

    def __getattr__(self, name):
        return lambda *arguments, **options: self.calls.append((name, arguments, options))


@pytest.fixture
def packages(monkeypatch):
    """What `import_module` finds, by name; nothing else is installed."""
    found = {}

    def find(name):
        if name not in found:
            raise ModuleNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib, "import_module", find)
    return found


def test_tensorboard(packages, tmp_path):
    writers = []
    make = lambda folder: writers.append(Recorder(folder)) or writers[0]  # noqa: E731
    packages["tensorboardX"] = types.SimpleNamespace(SummaryWriter=make)
    log = train.tensorboard(tmp_path)
    log("teacher", 50, {"loss": 2.0, "grad_norm": 1.0})
    assert writers[0].calls == [
        ("made", (str(tmp_path),), {}),
        ("add_scalar", ("teacher/loss", 2.0, 50), {}),
        ("add_scalar", ("teacher/grad_norm", 1.0, 50), {}),
        ("flush", (), {}),
    ]


def test_wandb(packages):
    run = Recorder()
    packages["wandb"] = types.SimpleNamespace(init=lambda **options: run.start(**options) or run)
    log = train.wandb(project="p", mode="offline")
    log("student", 50, {"loss": 2.0})
    assert run.calls[1:] == [
        ("start", (), {"project": "p", "mode": "offline"}),
        ("define_metric", ("student/*",), {"step_metric": "student/step"}),
        ("log", ({"student/step": 50, "student/loss": 2.0},), {}),
    ]


@pytest.mark.parametrize(
    ("make", "package"),
    [(lambda: train.tensorboard("x"), "tensorboardX"), (lambda: train.wandb(), "wandb")],
)
def test_packages_that_are_missing(packages, make, package):
    with pytest.raises(ValueError, match=f"{package}: expected an installed package.*logging"):
        make()
