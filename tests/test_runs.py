"""Run folders record what a second run needs, and never take the place of anything else."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import config, runs


@dataclasses.dataclass(frozen=True)
class Train:
    steps: int = 100
    tasks: tuple[str, ...] = ("ioi",)


def test_a_run_records_its_config_and_environment(tmp_path):
    run = runs.start(tmp_path / "a" / "b", Train(steps=3), seed=17)
    assert config.load(Train, run.directory / "config.yaml") == Train(steps=3)
    record = json.loads((run.directory / "run.json").read_text())
    assert record["seed"] == run.seed == 17
    assert record["versions"]["jax"] == jax.__version__
    assert set(record["versions"]) == {"jaxcompress", "jax", "jaxlib", "flax", "numpy"}
    assert record["device"] == {"platform": "cpu", "kind": "cpu", "count": 8}
    assert {"started", "command", "python", "platform", "git", "sources"} <= set(record)


def test_only_runs_are_overwritten(tmp_path):
    run = runs.start(tmp_path / "run", Train(), seed=0)
    runs.log(run, step=1)
    with pytest.raises(ValueError, match="new or empty directory"):
        runs.start(run.directory, Train(), seed=1)
    assert runs.rows(run.directory) == [{"step": 1}]
    runs.start(run.directory, Train(), seed=1, overwrite=True)
    assert runs.rows(run.directory) == []
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"earlier result with a run\.json"):
        runs.start(tmp_path / "home", Train(), seed=1, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_an_interrupted_run_is_continued(tmp_path):
    """The rows of both parts are those of one run; what was measured is not measured again."""
    measured = []

    def measure(width):
        measured.append(width)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return {"loss": jnp.float32(0.1) * width, "each": np.arange(2), "nothing": np.nan}

    def experiment():
        run = runs.start(tmp_path / "run", Train(), seed=0, overwrite=True, resume=True)
        return [runs.remember(run, {"width": w}, measure, w) for w in (1, 2, 3)]

    with pytest.raises(KeyboardInterrupt):
        experiment()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"width": 3, "lo')  # killed while it wrote
    rows = experiment()
    assert measured == [1, 2, 3, 3]
    np.testing.assert_equal(runs.rows(tmp_path / "run"), rows)
    assert [row["loss"] for row in rows] == [float(jnp.float32(0.1) * w) for w in (1, 2, 3)]
    assert rows[0]["each"] == [0, 1] and math.isnan(rows[0]["nothing"])


def test_what_was_cut_off_is_no_row_and_other_damage_is_named(tmp_path):
    def resumed():
        return runs.start(tmp_path / "run", Train(), seed=0, resume=True)

    path = resumed().directory / "metrics.jsonl"
    assert resumed().known == ()  # killed before its first row
    runs.log(resumed(), step=1)
    path.write_text(path.read_text() + '{"step": 2, "lo')
    assert runs.rows(path.parent) == [{"step": 1}]
    runs.log(resumed(), step=2)
    assert runs.rows(path.parent) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: expected a row .*, got '{\"st'"):
        resumed()


def test_only_the_same_run_is_continued(tmp_path, monkeypatch):
    out, row = tmp_path / "run", {"width": 1, "loss": 0.5}

    def known(config, seed, done=False):
        """What a run finds after another one."""
        runs.log(runs.start(out, Train(), seed=0, overwrite=True), **row)
        if done:
            (out / "report.html").write_text("")
        return runs.start(out, config, seed, overwrite=True, resume=True).known

    assert known(Train(), 0) == (row,)
    assert known(Train(steps=5), 0) == ()
    assert known(Train(), 1) == ()
    assert known(Train(), 0, done=True) == ()
    sources = iter(("before", "after"))
    monkeypatch.setattr(runs, "_sources", lambda: next(sources, "later"))
    assert known(Train(), 0) == ()
    assert runs.rows(out) == []
    with pytest.raises(ValueError, match="new or empty directory"):
        runs.start(out, Train(steps=5), 0, resume=True)


def test_a_wrong_config_does_not_cost_the_earlier_run(tmp_path):
    run = runs.start(tmp_path / "run", Train(), seed=0)
    with pytest.raises(ValueError, match="config class: expected a dataclass, got dict"):
        runs.start(run.directory, {1: object()}, seed=0, overwrite=True)
    assert (run.directory / "run.json").exists()


def test_rows_keep_their_numbers(tmp_path):
    run = runs.Run(tmp_path, seed=0)
    runs.log(run, step=np.int64(1), loss=jnp.float32(0.25), name="a", path=tmp_path)
    runs.log(run, effects=jnp.arange(3), half=jnp.bfloat16(1.5), flag=np.bool_(True), none=None)
    runs.log(run, loss=math.nan)
    first, second, third = runs.rows(tmp_path)
    assert first == {"step": 1, "loss": 0.25, "name": "a", "path": str(tmp_path)}
    assert second == {"effects": [0, 1, 2], "half": 1.5, "flag": True, "none": None}
    assert math.isnan(third["loss"])


def test_rows_of_other_things_are_refused_and_nothing_is_written(tmp_path):
    run = runs.Run(tmp_path, seed=0)
    with pytest.raises(ValueError, match="row: expected numbers, text, arrays .*, got object"):
        runs.log(run, step=1, thing=object())
    assert runs.rows(tmp_path) == []


def test_git_revisions(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    source = tmp_path / "runs.py"
    source.write_text("")
    git("init", "--quiet")
    # In a repository, but not of it: a package that was installed into some project's folder.
    assert runs._git_revision(source) is None
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    head = git("rev-parse", "HEAD")
    assert runs._git_revision(source) == {"revision": head, "dirty": False}
    source.write_text("# changed")
    assert runs._git_revision(source) == {"revision": head, "dirty": True}


def test_runs_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert runs.environment()["git"] is None
