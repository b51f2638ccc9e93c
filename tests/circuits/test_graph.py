"""Names, order, dead ends."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress.circuits import Graph
from jaxcompress.models.edges import Edges
from tests import families


@pytest.mark.parametrize("name", families.NAMES)
def test_places_are_those_of_the_forward(name):
    config = families.config(name)
    graph = Graph.of(config)
    assert graph.shape == Edges(config, lambda: None).shape == graph.valid.shape
    for place in np.argwhere(graph.valid):
        assert graph.edge(graph.name(*place)) == tuple(place)


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_an_edge_goes_forward_only(name):
    graph, own = Graph.of(families.config(name)), 0.0 if name == "gpt_neox" else 0.5
    before = {"embed": -1.0}
    for sender in graph.senders[1:]:
        kind, layer, _ = graph.split(sender)
        before[sender] = layer + (0.5 if kind == "m" else 0.0)
    for r, receiver in enumerate(graph.receivers):
        kind, layer, _ = graph.split(receiver)
        when = 99.0 if kind == "logits" else layer + (own if kind == "m" else 0.0)
        expected = [before[sender] < when for sender in graph.senders]
        assert graph.valid[r].tolist() == expected, receiver


def test_a_layer_without_heads_has_no_edges():
    graph = Graph.of(families.config("uneven"))
    names = [graph.name(*place) for place in np.argwhere(graph.valid)]
    assert not any("a2" in name or "m2" in name or "a1.h2" in name for name in names)
    assert any("a1.h1" in name for name in names)


def test_grouped_heads_read_their_groups_key():
    graph = Graph.of(families.config("llama"))
    reads = {graph.receivers[i] for i in np.flatnonzero(graph.feeds[graph.node("a1.h3")])}
    assert reads == {"a1.h3<q>", "a1.h1<k>", "a1.h1<v>"}


def test_dead_ends():
    graph = Graph.of(families.config("gpt2"))
    path = ["embed->a0.h1<k>", "a0.h1->m1", "m1->logits"]
    dead = ["embed->a0.h2<q>", "a1.h0->logits", "a0.h3->a1.h1<v>", "m0->a2.h0<q>"]
    mask = np.zeros(graph.shape, bool)
    for name in path + dead:
        mask[graph.edge(name)] = True
    kept = graph.connected(mask)
    assert {graph.name(*place) for place in np.argwhere(kept)} == set(path)


@pytest.mark.parametrize("name", ["m0->embed", "logits", "a0.h9->logits", "m1->a1.h0<q>"])
def test_edges_that_cannot_be(name):
    with pytest.raises(ValueError, match="edge: expected sender->receiver"):
        Graph.of(families.config("gpt2")).edge(name)
