"""Configs: the order of sources, strictness, and messages that name the key."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxcompress import config


@dataclasses.dataclass(frozen=True)
class Train:
    steps: int = 100
    rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Experiment:
    name: str
    out: Path = Path("runs")
    train: Train = Train(steps=7, rate=0.5)
    tasks: tuple[str, ...] = ("ioi",)
    replacement: Literal["mean", "zero"] = "mean"
    start: str | None = None
    limit: int | str = 1
    stages: tuple[Train, ...] = ()
    weights: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Experiment


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "default.yaml"
    path.write_text(
        "# header\nname: full\ntrain:\n  rate: 1e-4\ntasks: [ioi, months]\n"
        "quick:\n  train: {steps: 2}\n  tasks: [ioi]\n"
    )
    return path


def test_file_over_defaults(path):
    loaded = config.load(Experiment, path)
    # `1e-4` is text to plain PyYAML; `steps` keeps the default of the field, not of its class.
    assert loaded == Experiment("full", train=Train(7, 1e-4), tasks=("ioi", "months"))


def test_quick_over_file_and_overrides_over_both(path):
    quick = config.load(Experiment, path, quick=True)
    assert quick == Experiment("full", train=Train(2, 1e-4), tasks=("ioi",))
    overrides = ["train.steps=3", "tasks=[a, b]", "train.steps=4", "start=null", "limit=ten"]
    loaded = config.load(Experiment, path, quick=True, overrides=overrides)
    assert loaded == Experiment("full", train=Train(4, 1e-4), tasks=("a", "b"), limit="ten")


def test_defaults_need_no_file_and_survive_two_levels_down():
    assert config.load(Train) == Train()
    loaded = config.from_dict(Outer, {"inner": {"name": "a", "train": {"steps": 1}}})
    assert loaded.inner.train == Train(1, 0.5)


def test_a_file_may_be_empty(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert config.load(Train, tmp_path / "empty.yaml") == Train()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nme": "a"}, "nme: expected a key of Experiment, got an unknown one.*'name'"),
        ({"train": {"stps": 1}}, "train.stps: expected a key of Train, .*mean 'steps'"),
        ({"stages": [{}, {"rte": 1}]}, "stages.1.rte: expected a key of Train, .*'rate'"),
        ({"zzz": 1}, "zzz: expected a key of Experiment, .*known: limit, name"),
        ({"name": None}, "name: expected a valid string, got None"),
        ({"train": {"steps": "10"}}, "train.steps: expected a valid integer, got '10'"),
        ({"train": {"steps": 1.5}}, "train.steps: expected a valid integer, got 1.5"),
        ({"train": {"steps": True}}, "train.steps: expected a valid integer, got True"),
        ({"train": {"rate": "fast"}}, "train.rate: expected a valid number, got 'fast'"),
        ({"train": None}, "train: expected an object, got None"),
        ({"tasks": ["a", 3]}, "tasks.1: expected a valid string, got 3"),
        ({"tasks": "ioi"}, "tasks: expected a valid array, got 'ioi'"),
        ({"replacement": "median"}, "replacement: expected 'mean' or 'zero', got 'median'"),
        ({"limit": [1]}, r"limit: expected a valid integer or a valid string, got \[1\]"),
        ({"weights": {"a": "b"}}, "weights.a: expected a valid number, got 'b'"),
        ({"weights": {"a": math.inf}}, "weights.a: expected a finite number, .*, got inf"),
        ({"stages": [{}, {"rate": math.nan}]}, "stages.1.rate: expected a finite number, .*nan"),
        ({"name": {"a"}}, "name: expected a finite number, text, .*, got {'a'}"),
    ],
)
def test_wrong_values_name_their_key(values, message):
    with pytest.raises(ValueError, match=f"^{message}") as raised:
        config.from_dict(Experiment, {"name": "a"} | values)
    assert "\n" not in str(raised.value)


def test_what_has_no_default_is_asked_for():
    with pytest.raises(ValueError, match=r"^name: expected a value, got none"):
        config.load(Experiment)
    with pytest.raises(ValueError, match=r"^inner\.name: expected a value, got none"):
        config.from_dict(Outer, {"inner": {}})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "override: expected dotted.key=value, got 'steps'"),
        ("=3", "override: expected dotted.key=value"),
        ("a..b=3", "override: expected dotted.key=value"),
        ("steps=[1", "steps: expected a value in YAML"),
        ("steps.more=1", "steps: expected a valid integer, got {'more': 1}"),
        ("steps=1:30", "steps: expected a valid integer, got '1:30'"),
        ("steps=010", "steps: expected a valid integer, got '010'"),
        ("rate=1:30.5", "rate: expected a valid number, got '1:30.5'"),
        ("rate=1e400", "rate: expected a finite number, .*, got inf"),
        ("steps={a: 1, b: 2, a: 3}", "steps: expected a value in YAML, got the key 'a' twice"),
    ],
)
def test_wrong_overrides_are_refused(override, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        config.load(Train, overrides=[override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "a mapping of keys to values, got list"),
        ("a: [", "expected YAML, got"),
        ("rate: 1\nrate: 2", "expected YAML, got the key 'rate' twice .*, line 2, column 1"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        config.load(Train, path)


def test_missing_files_and_overlays_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config: expected a YAML file, got no file .*none\.yaml"):
        config.load(Train, tmp_path / "none.yaml")
    (tmp_path / "slow.yaml").write_text("steps: 5\n")
    with pytest.raises(ValueError, match="expected a quick: overlay, got None"):
        config.load(Train, tmp_path / "slow.yaml", quick=True)


def test_a_class_that_is_no_dataclass_is_refused():
    with pytest.raises(ValueError, match="config class: expected a dataclass, got dict"):
        config.from_dict(dict, {})


@hypothesis.given(
    st.builds(
        Experiment,
        name=st.text(),
        train=st.builds(Train, st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
        tasks=st.lists(st.text()).map(tuple),
        start=st.none() | st.text(),
        limit=st.integers() | st.text(),
        stages=st.lists(st.builds(Train, st.integers(0, 9), st.just(1e-300))).map(tuple),
        weights=st.dictionaries(st.text(), st.floats(0, 1)),
    )
)
def test_values_make_the_same_config_again(experiment):
    assert config.from_dict(Experiment, config.to_dict(experiment)) == experiment


def test_yaml_makes_the_same_config_again(tmp_path):
    path = tmp_path / "config.yaml"
    for experiment in (
        Experiment("a", train=Train(3, 1e-7), start="1e-4", limit="3", weights={"x": 1e22}),
        Experiment("010", out=Path("/a/b"), start="1:30", limit="null", stages=(Train(), Train(2))),
    ):
        path.write_text(config.to_yaml(experiment))
        assert config.load(Experiment, path) == experiment


def test_command_lines(path):
    args = ["--quick", "train.steps=9", "name=other"]
    loaded = config.from_args(Experiment, path, args=args)
    assert loaded == Experiment("other", train=Train(9, 1e-4), tasks=("ioi",))
    assert config.from_args(Experiment, args=["--config", str(path)]).name == "full"
    assert config.from_args(Train, args=[]) == Train()
    with pytest.raises(ValueError, match="^nme: .*did you mean 'name'"):
        config.from_args(Experiment, path, args=["nme=1"])


def test_help_lists_the_keys(capsys):
    with pytest.raises(SystemExit):
        config.from_args(Train, args=["--help"])
    assert "steps, rate" in capsys.readouterr().out


def test_what_a_process_is_given_wrong_is_one_line(path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/some/where/prune_heads.py", "nme=1"])
    with pytest.raises(SystemExit) as status:
        config.from_args(Experiment, path)
    assert status.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "prune_heads.py: nme: expected a key of Experiment, got an unknown one. "
        "did you mean 'name'?"
    ]


def test_a_glob_begins_with_a_star():
    @dataclasses.dataclass(frozen=True)
    class Targets:
        targets: tuple[str, ...] = ()

    for given in ("targets=[*/query/kernel, '*/up/*']", "targets=['*/query/kernel', */up/*]"):
        assert config.load(Targets, overrides=[given]).targets == ("*/query/kernel", "*/up/*")
