"""A circuit: some of the edges of a model's graph, kept, saved, and turned into gates."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcompress import check, files
from jaxcompress.circuits.graph import Graph
from jaxcompress.models.gates import Gates

__all__ = ["Circuit"]

_FORMAT = "jaxcompress circuit 1"


@dataclasses.dataclass(frozen=True)
class Circuit:
    """Edges of a graph.

    Attributes:
      graph: of the model.
      mask: (receiver, sender) or (position, receiver, sender) bool.
      scores: of the same shape, signed, or `None`.
      about: what else is known: model, task, method.

    Example:
      >>> graph = Graph(1, 2, 1, ((2, 1, 8),))
      >>> circuit = Circuit.of(graph, ["embed->m0", "m0->logits"])
      >>> len(circuit), circuit.nodes, round(circuit.share, 2)
      (2, ('embed', 'm0'), 0.18)
    """

    graph: Graph
    mask: np.ndarray
    scores: np.ndarray | None = None
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, edges: Iterable[str]) -> Circuit:
        """A circuit of edges by name; a `ValueError` for one that cannot be."""
        mask = np.zeros(graph.shape, bool)
        for name in edges:
            mask[graph.edge(name)] = True
        return cls(graph, mask)

    @classmethod
    def of_nodes(cls, graph: Graph, nodes: Iterable[str]) -> Circuit:
        """All edges between some nodes, the embedding and the logits.

        Example:
          >>> graph = Graph(1, 2, 1, ((2, 1, 8),))
          >>> Circuit.of_nodes(graph, ["a0.h1"]).edges[-1]
          'a0.h1->logits'
        """
        chosen = np.zeros(len(graph.senders), bool)
        chosen[[0, *(graph.node(name) for name in nodes)]] = True
        reads = np.asarray((graph.feeds & chosen[:, None]).any(axis=0))
        reads[-1] = True
        return cls(graph, graph.valid & reads[:, None] & chosen[None])

    def __len__(self) -> int:
        return int(self.mask.sum())

    @property
    def share(self) -> float:
        """Edges of the circuit over edges of the graph."""
        positions = self.mask.shape[0] if self.mask.ndim == 3 else 1
        return len(self) / (positions * int(self.graph.valid.sum()))

    @property
    def flat(self) -> np.ndarray:
        """(receiver, sender) bool: edges at any position."""
        return np.asarray(self.mask.any(axis=0)) if self.mask.ndim == 3 else self.mask

    @property
    def edges(self) -> tuple[str, ...]:
        """Names, in the order of receivers."""
        return tuple(self.graph.name(*place) for place in np.argwhere(self.flat))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Senders whose output is read."""
        used = np.asarray(self.flat.any(axis=0))
        return tuple(name for name, on in zip(self.graph.senders, used, strict=True) if on)

    def connected(self) -> Circuit:
        """Without dead ends, see `Graph.connected`; positions are taken together."""
        kept = self.graph.connected(self.flat)
        return dataclasses.replace(self, mask=self.mask & kept)

    def gates(self) -> Gates:
        """Gates that keep the nodes of the circuit: pruning the model to it.

        Coarser than the circuit: a kept head keeps all of its edges.

        Example:
          >>> graph = Graph(1, 2, 1, ((2, 1, 8),))
          >>> gates = Circuit.of(graph, ["embed->m0", "m0->logits"]).gates()
          >>> gates.heads.tolist(), gates.mlps.tolist()
          ([[0.0, 0.0]], [1.0])
        """
        used = np.asarray(self.flat.any(axis=0))[1:].reshape(
            self.graph.layers, self.graph.heads + 1
        )
        used = used.astype(np.float32)
        return Gates(heads=used[:, :-1], mlps=used[:, -1])

    def save(self, path: str | Path) -> Path:
        """Writes the circuit as JSON, whole or not at all; returns the path.

        Example:
          >>> import tempfile
          >>> graph = Graph(1, 2, 1, ((2, 1, 8),))
          >>> path = Circuit.of(graph, ["embed->m0"]).save(Path(tempfile.mkdtemp()) / "a.json")
          >>> Circuit.load(path).edges
          ('embed->m0',)
        """
        edges = []
        for place in np.argwhere(self.mask):
            edge: dict[str, Any] = {"edge": self.graph.name(*place[-2:])}
            if self.mask.ndim == 3:
                edge["position"] = int(place[0])
            if self.scores is not None:
                edge["score"] = float(self.scores[tuple(place)])
            edges.append(edge)
        data = {
            "format": _FORMAT,
            "graph": dataclasses.asdict(self.graph),
            "positions": self.mask.shape[0] if self.mask.ndim == 3 else None,
            "about": self.about,
            "edges": edges,
        }
        return files.write_text(path, json.dumps(data, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Reads what `save` wrote.

        Raises:
          ValueError: for a file that is no circuit, or edges that its graph cannot have.

        Example:
          >>> Circuit.load("nothing.json")
          Traceback (most recent call last):
          ...
          ValueError: nothing.json: expected a circuit's JSON file, got no such file
        """
        path = Path(path)
        expected = "a circuit's JSON file"
        if not path.is_file():
            raise check.fail(str(path), expected, "no such file")
        try:
            data = json.loads(path.read_text())
            if data["format"] != _FORMAT:
                raise KeyError("format")
            graph = Graph(**{**data["graph"], "sizes": _tuples(data["graph"]["sizes"])})
            lead = () if data["positions"] is None else (data["positions"],)
            mask = np.zeros((*lead, *graph.shape), bool)
            scored = bool(data["edges"]) and all("score" in edge for edge in data["edges"])
            scores = np.zeros(mask.shape) if scored else None
            for edge in data["edges"]:
                place = graph.edge(edge["edge"])
                place = (edge["position"], *place) if lead else place
                mask[place] = True
                if scores is not None:
                    scores[place] = edge["score"]
        except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
            raise check.fail(str(path), expected, f"one without {error}") from error
        return cls(graph, mask, scores, data.get("about", {}))


def _tuples(sizes: Any) -> tuple[tuple[int, int, int], ...]:
    return tuple(tuple(size) for size in sizes)
