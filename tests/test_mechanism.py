"""The circuit command's function: files, numbers, and what it says of an impossible task."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import mechanism
from jaxcompress.circuits import Circuit
from jaxcompress.mechanism import CircuitConfig, circuit, explained

pytestmark = pytest.mark.slow

SMALL = CircuitConfig(task="months", count=4, method="eap", edges=40)


def test_a_circuit_in_a_folder(tmp_path, monkeypatch):
    out, maps = tmp_path / "circuit", []
    drawn = mechanism.grids
    monkeypatch.setattr(mechanism, "grids", lambda *a, **k: maps.append(a[0]) or drawn(*a, **k))
    found = circuit("builtin:student", out, SMALL)
    names = {path.name for path in out.iterdir()}
    assert {"circuit.json", "circuit.svg", "circuit.png", "report.html", "run.json"} <= names
    saved = Circuit.load(out / "circuit.json")
    assert len(saved) == found["edges"] <= 40
    assert saved.about["task"] == "months"
    assert json.loads((out / "result.json").read_text())["cpr"] == found["cpr"]
    assert found["warning"] is None
    assert 0 < found["faithfulness"] < 2
    page = (out / "report.html").read_text()
    assert "data:image/svg+xml" in page
    assert "On other prompts" in page
    assert "Where in the prompt" in page
    ((_, values),) = maps[0].items()
    assert values.flat[np.abs(values).argmax()] > 1  # what the task needs, not what it loses
    assert "What its heads look at" in page
    assert f"CMD {found['cmd']:.3f}" in page
    heads = [node for node in found["nodes"] if ".h" in node]
    assert [row["node"] for row in found["roles"]] == heads
    assert all(0 <= row["induction"] <= 1 for row in found["roles"])
    with pytest.raises(ValueError, match="expected a new or empty directory"):
        circuit("builtin:student", out, SMALL)


def test_what_is_said_of_a_circuit_is_measured_on_prompts_that_did_not_choose_it(tmp_path):
    """80 % of the task with under 20 % of the edges, as issue 4 asks for; CMD ranks by size."""
    config = dataclasses.replace(SMALL, edges=None, count=12, method="eap-ig", positions=False)
    found = circuit("builtin:student", tmp_path / "c", dataclasses.replace(config, roles=False))
    assert found["faithfulness"] >= 0.8
    assert found["share"] < 0.2
    model = jc.load("builtin:student")
    keys = jax.random.split(jax.random.key(0), 3)
    seen, _, other = (
        jc.tasks.get("months", model.tokenizer, 12, key, context=model.config.context)
        for key in keys
    )
    scores = jc.circuits.attribute(model, seen)
    curves = [jc.circuits.faithfulness(model, other, scores, signed=by) for by in (True, False)]
    assert found["clean"] == pytest.approx(curves[0].clean, rel=1e-5)
    assert (found["cpr"], found["cmd"]) == pytest.approx((curves[0].cpr, curves[1].cmd), rel=1e-4)
    assert abs(curves[0].cmd - curves[1].cmd) > 1e-3


def test_how_much_there_is_to_explain():
    model = jc.load("builtin:student")
    prompts = jc.tasks.get("months", model.tokenizer, 4, jax.random.key(0))
    twice = explained(model, [prompts, prompts], 0.8)
    assert twice["tasks"] == 2 and 0 < twice["edges"] < 60
    assert twice["shared"] == twice["heads"] > 0  # the same circuit both times
    zeros = model.replace(params=jax.tree.map(np.zeros_like, model.params))
    none = explained(zeros, [prompts], 0.8)
    assert np.isnan(none.pop("edges")) and np.isnan(none.pop("edge_share"))
    assert none == {"tasks": 0, "heads": 0, "shared": 0}


def test_prompts_that_are_aligned_stand_together():
    """The largest group that has its changed words in the same places."""
    model = jc.load("builtin:student")
    prompts = jc.tasks.get("ioi", model.tokenizer, 24, jax.random.key(0))
    rows = mechanism._aligned(prompts)
    changed = np.asarray(prompts.tokens) != np.asarray(prompts.corrupted)
    assert 2 <= len(rows) < 24
    assert (changed[rows] == changed[rows[0]]).all()
    assert len(set(np.asarray(prompts.answer_position)[rows].tolist())) == 1
    rest = np.setdiff1d(np.arange(24), rows)
    kinds = [changed[r].tobytes() + bytes([int(prompts.answer_position[r])]) for r in rest]
    assert max(map(kinds.count, kinds)) <= len(rows)


def test_a_task_that_the_model_cannot_do(tmp_path):
    """Without its unembedding a model says the same of all answers."""
    model = jc.load("builtin:student")
    params = dict(model.params)
    params["head"] = jax.tree.map(np.zeros_like, params["head"])
    found = circuit(model.replace(params=params), tmp_path / "none", SMALL)
    assert "cannot do this task" in found["warning"]
    assert found["faithfulness"] is None
    assert "cannot do this task" in (tmp_path / "none" / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "io"}, "task: expected one of"),
        ({"method": "eapig"}, "method: expected one of"),
        ({"target": 0.0}, "target: expected a number"),
        ({"metric": "loss"}, "metric: expected one of"),
        ({"edges": 311}, r"edges: expected a whole number in \[1, 310\], got 311"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        circuit("builtin:student", tmp_path / "bad", dataclasses.replace(SMALL, **changes))
