"""The curve's ends and areas, completeness, minimality, and tasks that cannot be done."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from jaxcompress import prune
from jaxcompress.circuits import (
    SHARES,
    Circuit,
    Curve,
    Graph,
    attribute,
    completeness,
    faithfulness,
    minimality,
    path_patching,
    smallest,
)
from jaxcompress.models import Gates
from tests.circuits import examples

pytestmark = pytest.mark.slow

GRAPH = Graph.of(examples.gpt2().config)


@functools.cache
def scores():
    model = examples.gpt2()
    return attribute(model, examples.towards(model), steps=2)


@pytest.mark.parametrize("replacement", ["resample", "mean"])
def test_the_whole_graph_is_faithful_and_the_empty_one_is_not(replacement):
    model = examples.gpt2()
    ends = [Circuit(GRAPH, GRAPH.valid), Circuit(GRAPH, np.zeros(GRAPH.shape, bool))]
    curve = faithfulness(model, examples.towards(model), ends, replacement=replacement)
    np.testing.assert_allclose(curve.faithfulness, [1, 0], atol=1e-5)
    np.testing.assert_allclose(curve.metric, [curve.clean, curve.corrupted], atol=1e-5)


def test_sizes_and_areas():
    model = examples.gpt2()
    curve = faithfulness(model, examples.towards(model), scores())
    assert curve.shares.tolist() == list(SHARES)
    np.testing.assert_allclose(curve.faithfulness[-1], 1, atol=1e-5)
    assert (np.diff(curve.edges) >= 0).all()
    f, k = curve.faithfulness, np.array(SHARES)
    area = sum((k[i + 1] - k[i]) * (f[i + 1] + f[i]) / 2 for i in range(9))
    np.testing.assert_allclose(curve.cpr, area)
    distance = sum((k[i + 1] - k[i]) * (abs(1 - f[i + 1]) + abs(1 - f[i])) / 2 for i in range(9))
    np.testing.assert_allclose(curve.cmd, distance)


def test_a_perfect_curve():
    ones = np.ones(2)
    curve = Curve(np.array([0.0, 1.0]), ones, ones, ones, 1.0, 0.0, ones[:, None], 0 * ones)
    assert (curve.cpr, curve.cmd) == (1, 0)


def test_areas_of_sizes_in_any_order_and_of_one_alone():
    def curve(shares, found):
        k, f = np.array(shares), np.array(found)
        return Curve(k, k, f, f, 1.0, 0.0, f[:, None], 0 * f)

    mixed = curve([1.0, 0.0, 0.5], [1.0, 0.0, 0.8])
    assert mixed.cpr == pytest.approx(0.5 * 0.4 + 0.5 * 0.9)
    assert mixed.cmd == pytest.approx(0.5 * 0.6 + 0.5 * 0.1)
    assert np.isnan([curve([0.3], [0.2]).cpr, curve([0.3], [0.2]).cmd]).all()


def test_smallest_reaches_its_target_on_a_linear_model():
    model = examples.linear()
    prompts = examples.towards(model)
    found = attribute(model, prompts, method="eap")
    circuit, kept = smallest(model, prompts, found, 0.8, signed=True)
    again = faithfulness(model, prompts, circuit).faithfulness[0]
    np.testing.assert_allclose(kept, again, atol=1e-5)
    assert again >= 0.8
    surer, _ = smallest(model, prompts, found, 0.8, errors=2.0)
    curve = faithfulness(model, prompts, surer)
    assert curve.faithfulness[0] - 2 * curve.error[0] >= 0.8 - 1e-5
    # The error by leaving each prompt out (jackknife) is that of a ratio of means.
    ends = [faithfulness(model, prompts, Circuit(found.graph, mask)).per_example[0]
            for mask in (found.graph.valid, np.zeros_like(found.graph.valid))]  # fmt: skip
    kept, gap = curve.per_example[0] - ends[1], ends[0] - ends[1]
    count = len(gap)
    left = [(kept.sum() - k) / (gap.sum() - g) for k, g in zip(kept, gap, strict=True)]
    jackknife = np.sqrt((count - 1) * np.var(left))
    np.testing.assert_allclose(curve.error[0], jackknife, rtol=0.5, atol=1e-6)


def test_complete_and_minimal():
    model = examples.gpt2()
    prompts = examples.towards(model)
    whole = Circuit(GRAPH, GRAPH.valid)
    found = completeness(model, prompts, whole, samples=3)
    # Nothing is left outside of the whole graph.
    np.testing.assert_allclose([found["gap"], found["without"]], 0, atol=1e-5)
    circuit = Circuit.of(GRAPH, ["embed->m0", "m0->logits", "embed->logits"])
    adds = minimality(model, prompts, circuit)
    without = faithfulness(model, prompts, Circuit.of(GRAPH, ["embed->m0", "m0->logits"]))
    full = faithfulness(model, prompts, circuit)
    order = circuit.edges.index("embed->logits")
    np.testing.assert_allclose(
        adds[order], full.faithfulness[0] - without.faithfulness[0], atol=1e-5
    )


def test_a_task_that_the_model_cannot_do():
    model = examples.gpt2()
    prompts = examples.towards(model)
    same = dataclasses.replace(prompts, corrupted=prompts.tokens)
    curve = faithfulness(model, same, Circuit(GRAPH, GRAPH.valid))
    assert np.isnan(curve.faithfulness).all()
    flipped = dataclasses.replace(prompts, correct=prompts.wrong, wrong=prompts.correct)
    curve = faithfulness(model, flipped, Circuit(GRAPH, GRAPH.valid))
    assert curve.clean < curve.corrupted
    assert np.isnan(curve.faithfulness).all()
    with pytest.raises(ValueError, match="task: expected a clean metric above 0 and above the"):
        smallest(model, flipped, scores())


@pytest.mark.parametrize(
    ("circuits", "message"),
    [
        ([], "circuits: expected at least one"),
        (Circuit(GRAPH, np.ones((5, 3), bool)), "circuits: expected masks"),
    ],
)
def test_bad_input(circuits, message):
    with pytest.raises(ValueError, match=message):
        faithfulness(examples.gpt2(), examples.prompts(), circuits)


@pytest.mark.parametrize(
    "measured",
    [
        faithfulness,
        completeness,
        minimality,
        path_patching,
        lambda model, prompts, circuit: smallest(model, prompts, scores()),
    ],
    ids=("faithfulness", "completeness", "minimality", "path_patching", "smallest"),
)
def test_circuits_of_a_model_with_other_heads(measured, tmp_path):
    model = examples.gpt2()
    small = prune.shrink(model, Gates.off(model.config, heads=[(0, 0)]))
    assert Graph.of(small.config).shape == GRAPH.shape  # padded to the other layer's heads
    circuit = Circuit.load(Circuit.of(GRAPH, ["embed->logits"]).save(tmp_path / "circuit.json"))
    with pytest.raises(ValueError, match="circuit: expected one in the model's Graph.*shrinking"):
        measured(small, examples.prompts(), circuit)
    narrow = prune.shrink(model, Gates.off(model.config, neurons=[(0, 0)]))
    GRAPH.require(narrow.config)


def test_memory():
    with pytest.raises(ValueError, match="memory: expected at least .* pass a larger memory="):
        faithfulness(examples.gpt2(), examples.prompts(), Circuit(GRAPH, GRAPH.valid), memory=9)
