"""The drawing names every node, says what it leaves out, and survives an empty circuit."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

import numpy as np

from jaxcompress.circuits import Circuit, Graph
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
    assert {"embed", "0.1", "MLP 1", "2.3", "logits", "q"} <= set(said)
    assert not any("weaker" in line for line in said)
    assert circuit_svg(dataclasses.replace(circuit, scores=scores)) == svg


def test_a_key_of_a_group_is_drawn_to_its_heads():
    circuit = Circuit.of(GRAPH, ["embed->a1.h1<k>", "a1.h2->logits"])
    assert {"1.2", "k"} <= set(texts(circuit_svg(circuit)))


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
