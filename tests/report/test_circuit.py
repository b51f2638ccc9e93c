"""The drawing names every node, says what it leaves out, and survives an empty circuit."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jaxcompress import mechanism
from jaxcompress.circuits import Circuit, Graph
from jaxcompress.mechanism import CircuitConfig
from jaxcompress.report.circuit import _edges, circuit_png, circuit_svg, svg_figure

GRAPH = Graph(3, 4, 2, ((4, 2, 8),) * 3)


def texts(svg):
    found = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in found.iter() if node.tag.endswith("text")]


def test_every_node_of_the_circuit_is_named():
    edges = ["embed->a0.h1<q>", "a0.h1->m1", "m1->a2.h3<q>", "a2.h3->logits", "embed->logits"]
    circuit = Circuit.of(GRAPH, edges)
    scores = np.where(circuit.mask, -1.0, 0.0)
    svg = circuit_svg(dataclasses.replace(circuit, scores=scores))
    said = texts(svg)
    assert {"embed", "a0.h1", "m1", "a2.h3", "logits", "q"} <= set(said)
    assert not any("weaker" in line for line in said)
    assert circuit_svg(dataclasses.replace(circuit, scores=scores)) == svg


def test_a_key_of_a_group_is_drawn_to_its_heads():
    circuit = Circuit.of(GRAPH, ["embed->a1.h1<k>", "a1.h2->logits"])
    assert {"a1.h2", "k"} <= set(texts(circuit_svg(circuit)))


def test_the_legend_tells_what_is_drawn():
    circuit = Circuit.of(GRAPH, ["embed->a0.h1<v>", "a0.h1->logits", "embed->logits"])
    assert not {"helps", "hurts"} & set(texts(circuit_svg(circuit)))  # it has no scores
    scores = np.where(circuit.mask, -1.0, 0.0)
    said = set(texts(circuit_svg(dataclasses.replace(circuit, scores=scores))))
    assert {"helps", "into query, MLP or logits", "into value"} <= said
    assert not {"hurts", "into key"} & said
    scores[GRAPH.edge("embed->logits")] = 1.0
    both = texts(circuit_svg(dataclasses.replace(circuit, scores=scores)))
    assert {"helps", "hurts"} <= set(both)


def test_what_helps_is_blue_whether_the_metric_is_to_be_high_or_low():
    circuit = Circuit.of(GRAPH, ["embed->m0", "m0->logits"])
    scores = np.zeros(GRAPH.shape)
    scores[GRAPH.edge("embed->m0")], scores[GRAPH.edge("m0->logits")] = -2.0, 1.0
    for metric, helps in (("logit_difference", "embed"), ("kl", "m0")):
        found = Circuit(GRAPH, circuit.mask, scores, {"metric": metric})
        for edge in _edges(found, 9)[0]:
            red, _, blue = to_rgb(edge.colour)
            assert (blue > red) == (edge.sender == helps)


RECORD = {
    "model": "some", "task": "months", "warning": None, "edges": 2, "possible": 50, "share": 0.04,
    "nodes": ["embed", "m0"], "faithfulness": 0.9, "error": 0.05, "clean": 2.0, "corrupted": -1.0,
    "completeness": {"without": 0.1}, "roles": [],
    "top": [["m0->logits", -3.0], ["embed->m1", 0.5]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "record", "said"),
    [
        (
            {"target": 0.7},
            {},
            "smallest size tried that keeps 70% of the metric, with 1.64",
        ),
        ({}, {"edges": 50}, "as no smaller circuit keeps 80% of the metric"),
        ({"edges": 3}, {}, "of the 3 asked for, those on a path"),
        ({}, {"warning": "It cannot."}, "by eap-ig: those that help most."),
    ],
)
def test_the_page_of_a_circuit(changes, record, said):
    found = Circuit.of(GRAPH, ["embed->m0", "m0->logits"])
    page = mechanism._page(found, RECORD | record, None, None, CircuitConfig(**changes))
    assert said in page
    assert "90.0% (± 9.8%, 95 % interval)" in page.replace("\xa0", " ")
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in page.split("<tr>")]
    assert ["m0-&gt;logits", "+3.000", "yes"] in rows and ["embed-&gt;m1", "-0.500", "no"] in rows
    assert "an experiment" not in page


def test_keys_and_values_of_unevenly_shrunk_groups():
    """One layer has half of the query heads left: there a key is that of two heads, not of four."""
    graph = Graph(2, 8, 2, ((8, 2, 8), (4, 2, 8)))
    edges = ["embed->a1.h1<k>", "embed->a1.h0<v>", "embed->a0.h1<k>"]
    heads = ["a1.h2->logits", "a1.h0->logits", "a0.h5->logits"]
    drawn, _ = _edges(Circuit.of(graph, edges + heads), 120)
    ports = {(edge.node, edge.port) for edge in drawn if edge.port}
    assert ports == {("a1.h2", "k"), ("a1.h0", "v"), ("a0.h5", "k")}


def test_the_weakest_edges_are_counted():
    circuit = Circuit(GRAPH, GRAPH.valid, np.where(GRAPH.valid, 0.5, 0.0))
    svg = circuit_svg(circuit, edges=10)
    assert any(f"{len(circuit) - 10} weaker edges are not drawn" in line for line in texts(svg))
    assert svg_figure(svg, "a circuit")["width"] > 300


def test_an_empty_circuit():
    empty = Circuit.of(GRAPH, [])
    assert b"the circuit is empty" in circuit_svg(empty)
    assert circuit_png(empty)[1:4] == b"PNG"
