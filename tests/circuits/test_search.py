"""Circuits from scores, and by taking away; what is written is what is read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxcompress.circuits import (
    Circuit,
    Graph,
    Scores,
    acdc,
    faithfulness,
    find,
    path_patching,
    prune_nodes,
    rank_correlation,
)
from jaxcompress.circuits.search import ranked
from tests.circuits import examples

pytestmark = pytest.mark.slow

GRAPH = Graph.of(examples.gpt2().config)


def scored(named, level="edge"):
    values = np.zeros(GRAPH.shape if level == "edge" else len(GRAPH.senders))
    for name, value in named.items():
        values[GRAPH.edge(name) if level == "edge" else GRAPH.node(name)] = value
    return Scores(GRAPH, level, values, np.ones(1), np.zeros(1))


PATH = {"embed->m0": -1.0, "m0->logits": -0.5}


def test_top_takes_the_largest_and_drops_dead_ends():
    scores = scored({**PATH, "embed->a0.h1<q>": 3.0})
    assert set(find(scores, edges=3, signed=False).edges) == set(PATH)
    assert len(find(scores, edges=3, signed=False, connected=False)) == 3
    assert find(scores, edges=1).edges == ()
    # Signed, what hurts comes last.
    assert set(find(scores, edges=2, signed=True, connected=False).edges) == set(PATH)
    assert set(find(scores, threshold=0.6, signed=False, connected=False).edges) == {
        "embed->m0",
        "embed->a0.h1<q>",
    }


def test_greedy_grows_from_the_logits():
    scores = scored({**PATH, "embed->a0.h1<q>": -9.0, "a0.h1->a1.h0<k>": -8.0})
    assert set(find(scores, edges=2, how="greedy").edges) == set(PATH)


def test_nodes():
    circuit = find(scored({"m0": -2.0, "a1.h0": -1.0}, "node"), edges=2)
    assert set(circuit.nodes) == {"embed", "m0", "a1.h0"}
    assert "m0->a1.h0<k>" in circuit.edges
    assert circuit.gates().heads.tolist() == [[0, 0], [1, 0]]
    assert circuit.gates().mlps.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "find: expected one of edges"),
        ({"edges": 1, "share": 0.5}, "find: expected one of edges"),
        ({"share": 1.5}, "share: expected a number"),
        ({"edges": 10**6}, "edges: expected a whole number"),
    ],
)
def test_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        find(scored(PATH), **options)


def test_nodes_per_position_are_named_and_ranked_but_make_no_circuit():
    values = np.zeros((3, len(GRAPH.senders)))
    values[2, GRAPH.node("m0")], values[1, GRAPH.node("a1.h0")] = -2.0, 1.0
    scores = Scores(GRAPH, "node", values, np.ones(1), np.zeros(1))
    assert scores.top(2) == [("m0@2", -2.0), ("a1.h0@1", 1.0)]
    assert ranked(scores)[0] == 2 * len(GRAPH.senders) + GRAPH.node("m0")
    with pytest.raises(ValueError, match=r"scores: expected one value per node, got shape \(3, "):
        find(scores, edges=1)
    for pair in ((scores, scored({}, "node")), (scored({}, "node"), scores)):
        with pytest.raises(ValueError, match="scores: expected one value per node"):
            rank_correlation(*pair)


@pytest.mark.parametrize("positions", [None, 3])
def test_a_saved_circuit_comes_back(tmp_path, positions):
    circuit = find(scored(PATH), edges=2)
    if positions:
        lead = np.arange(positions)[:, None, None] < 2
        circuit = dataclasses.replace(
            circuit, mask=circuit.mask & lead, scores=circuit.scores * (lead + 1)
        )
    circuit = dataclasses.replace(circuit, about={"task": "ioi"})
    back = Circuit.load(circuit.save(tmp_path / "circuit.json"))
    np.testing.assert_array_equal(back.mask, circuit.mask)
    np.testing.assert_array_equal(back.scores[back.mask], circuit.scores[circuit.mask])
    assert (back.graph, back.about) == (circuit.graph, circuit.about)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "jaxcompress circuit 1"}', "[1]"])
def test_files_that_are_no_circuit(tmp_path, text):
    path = tmp_path / "circuit.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"circuit\.json: expected a circuit's JSON file"):
        Circuit.load(path)


def loop_acdc(model, prompts, threshold):
    """The algorithm as it is written: one run for each edge."""
    mask = GRAPH.valid.copy()

    def divergence(mask):
        circuit = Circuit(GRAPH, mask)
        return faithfulness(model, prompts, circuit, metric="kl").metric[0]

    now = 0.0
    for row in reversed(range(len(GRAPH.receivers))):
        nodes = GRAPH.feeds[:, row]
        if row < len(GRAPH.receivers) - 1 and not mask[:, nodes].any():
            mask[row] = False
            continue
        for column in reversed(np.flatnonzero(mask[row])):
            mask[row, column] = False
            after = divergence(mask)
            if after - now < threshold:
                now = after
            else:
                mask[row, column] = True
    return Circuit(GRAPH, mask).connected()


def test_acdc_ahead_is_acdc_one_by_one():
    model, prompts = examples.gpt2(), examples.prompts()
    found = acdc(model, prompts, 0.03, progress=False)
    assert 0 < len(found) < GRAPH.valid.sum()
    assert found.edges == loop_acdc(model, prompts, 0.03).edges
    with pytest.raises(ValueError, match="threshold: expected a number above 0"):
        acdc(model, prompts, 0.0)


def test_node_pruning_keeps_its_share_and_nothing_can_go():
    model = examples.gpt2()
    prompts = examples.towards(model)
    circuit = prune_nodes(model, prompts, keep=0.8)
    kept = faithfulness(model, prompts, circuit, replacement="mean")
    assert kept.metric[0] >= 0.8 * kept.clean
    for node in circuit.nodes[1:]:
        less = Circuit.of_nodes(GRAPH, [n for n in circuit.nodes[1:] if n != node])
        alone = faithfulness(model, prompts, less, replacement="mean")
        assert alone.metric[0] < 0.8 * alone.clean
    paths = path_patching(model, prompts, circuit, keep=0.95)
    assert set(paths.edges) <= set(circuit.edges)
