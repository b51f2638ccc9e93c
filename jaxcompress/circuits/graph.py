"""The graph of a transformer: who writes, who reads, and which edges there can be."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np

from jaxcompress import check

__all__ = ["Graph"]

_SENDER = re.compile(r"embed|a(\d+)\.h(\d+)|m(\d+)")
_RECEIVER = re.compile(r"logits|m(\d+)|a(\d+)\.h(\d+)<([qkv])>")


@dataclasses.dataclass(frozen=True)
class Graph:
    """Senders, receivers and possible edges of a model's forward, in the order of `models.edges`.

    Names: senders `embed`, `a0.h1` (layer 0, head 1), `m0`; receivers `a0.h1<q>`, `a0.h1<k>`,
    `a0.h1<v>` (under grouped queries the head of `k` and `v` is the key/value head), `m0`,
    `logits`; an edge is `sender->receiver`.

    Attributes:
      layers: blocks.
      heads: query heads of a layer (the largest).
      kv_heads: key/value heads, likewise.
      sizes: (heads, kv_heads, neurons) of every layer; what a layer lacks has no node.
      parallel: an MLP does not read the heads of its own layer.

    Example:
      >>> graph = Graph(1, 2, 1, ((2, 1, 8),))
      >>> graph.senders
      ('embed', 'a0.h0', 'a0.h1', 'm0')
      >>> graph.receivers
      ('a0.h0<q>', 'a0.h1<q>', 'a0.h0<k>', 'a0.h0<v>', 'm0', 'logits')
      >>> graph.valid.astype(int).tolist()[-2:], int(graph.valid.sum())
      ([[1, 1, 1, 0], [1, 1, 1, 1]], 11)
    """

    layers: int
    heads: int
    kv_heads: int
    sizes: tuple[tuple[int, int, int], ...]
    parallel: bool = False

    @classmethod
    def of(cls, config: Any) -> Graph:
        """The graph of a `ModelConfig`.

        Example:
          >>> from jaxcompress.models.config import ModelConfig
          >>> config = ModelConfig(family="gpt2", layers=12, heads=12, kv_heads=12, head_dim=64,
          ...                      width=768, neurons=3072, vocab=50257, context=1024)
          >>> int(Graph.of(config).valid.sum())
          32491
        """
        sizes = tuple((size.heads, size.kv_heads, size.neurons) for size in config.layer_sizes)
        return cls(config.layers, config.heads, config.kv_heads, sizes, config.parallel)

    def require(self, config: Any) -> None:
        """A `ValueError` unless a model has these nodes and edges; MLPs may have other sizes.

        Args:
          config: of the model, a `ModelConfig`.

        Example:
          >>> from jaxcompress.models.config import ModelConfig
          >>> config = ModelConfig(family="gpt2", layers=1, heads=2, kv_heads=2, head_dim=4,
          ...                      width=8, neurons=16, vocab=11, context=5)
          >>> Graph(1, 2, 2, ((2, 2, 8),)).require(config)
        """
        other = Graph.of(config)
        if self.receivers != other.receivers or not np.array_equal(self.valid, other.valid):
            hint = "find the circuit in this model: shrinking renumbers heads and layers"
            raise check.fail("circuit", f"one in the model's {other}", f"one in {self}", hint)

    @property
    def shape(self) -> tuple[int, int]:
        """(receivers, senders)."""
        return len(self.receivers), len(self.senders)

    @functools.cached_property
    def senders(self) -> tuple[str, ...]:
        """Names in order."""
        names = ["embed"]
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}" for head in range(self.heads)] + [f"m{layer}"]
        return tuple(names)

    @functools.cached_property
    def receivers(self) -> tuple[str, ...]:
        """Names in order."""
        names = []
        for layer in range(self.layers):
            counts = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads}
            for letter, count in counts.items():
                names += [f"a{layer}.h{head}<{letter}>" for head in range(count)]
            names.append(f"m{layer}")
        return (*names, "logits")

    @functools.cached_property
    def valid(self) -> np.ndarray:
        """(receiver, sender) bool: edges that there can be."""
        return self._order & self.present_receivers[:, None] & self.present_senders[None]

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """Whether a sender has written before a receiver reads."""
        each = 1 + self.heads
        reads = []
        for layer in range(self.layers):
            reads += [1 + layer * each] * (self.heads + 2 * self.kv_heads)
            reads.append(1 + layer * each + (0 if self.parallel else self.heads))
        reads.append(len(self.senders))
        return np.arange(len(self.senders))[None] < np.array(reads)[:, None]

    @functools.cached_property
    def present_senders(self) -> np.ndarray:
        """(sender,) bool: what the layer's size has."""
        found = [True]
        for heads, _, neurons in self.sizes:
            found += [head < heads for head in range(self.heads)] + [neurons > 0]
        return np.array(found)

    @functools.cached_property
    def present_receivers(self) -> np.ndarray:
        """(receiver,) bool, likewise."""
        found = []
        for heads, kv_heads, neurons in self.sizes:
            found += [head < heads for head in range(self.heads)]
            found += [head < kv_heads for head in range(self.kv_heads)] * 2 + [neurons > 0]
        return np.array([*found, True])

    @functools.cached_property
    def feeds(self) -> np.ndarray:
        """(sender, receiver) bool: what a node reads in order to write.

        A head reads its query and its group's key and value; the embedding reads nothing.
        """
        out = np.zeros((len(self.senders), len(self.receivers)), bool)
        read, wrote = 2 * self.kv_heads + self.heads + 1, self.heads + 1
        for layer, (heads, kv_heads, _) in enumerate(self.sizes):
            first, node = layer * read, 1 + layer * wrote
            for head in range(heads):
                group = head // (heads // kv_heads)
                places = (head, self.heads + group, self.heads + self.kv_heads + group)
                out[node + head, [first + place for place in places]] = True
            out[node + self.heads, first + read - 1] = True
        return out & self.present_senders[:, None] & self.present_receivers[None]

    def node(self, sender: str) -> int:
        """Place of a sender by name; a `ValueError` for one that is not there.

        Example:
          >>> Graph(1, 2, 1, ((2, 1, 8),)).node("a0.h1")
          2
        """
        return self.senders.index(check.known("node", sender, self.senders))

    def edge(self, name: str) -> tuple[int, int]:
        """(receiver, sender) of an edge by name; a `ValueError` for one that cannot be.

        Example:
          >>> Graph(1, 2, 1, ((2, 1, 8),)).edge("embed->m0")
          (4, 0)
        """
        sender, arrow, receiver = name.partition("->")
        if arrow and sender in self.senders and receiver in self.receivers:
            place = self.receivers.index(receiver), self.senders.index(sender)
            if self.valid[place]:
                return place
        raise check.fail("edge", "sender->receiver, such as embed->m0", repr(name))

    def name(self, receiver: Any, sender: Any) -> str:
        """The inverse of `edge`.

        Example:
          >>> Graph(1, 2, 1, ((2, 1, 8),)).name(4, 0)
          'embed->m0'
        """
        return f"{self.senders[sender]}->{self.receivers[receiver]}"

    def connected(self, mask: np.ndarray) -> np.ndarray:
        """The edges of a mask that lie on a path from the embedding to the logits.

        Dead ends go: edges into a node whose output nobody in the mask reads, and edges out of a
        node that reads nothing in the mask.

        Args:
          mask: (receiver, sender) bool.

        Returns:
          (receiver, sender) bool.

        Example:
          >>> graph = Graph(1, 2, 1, ((2, 1, 8),))
          >>> mask = np.zeros(graph.shape, bool)
          >>> for name in ("embed->m0", "m0->logits", "embed->a0.h0<q>"):
          ...     mask[graph.edge(name)] = True
          >>> [graph.name(*place) for place in np.argwhere(graph.connected(mask))]
          ['embed->m0', 'm0->logits']
        """
        mask = np.asarray(mask, bool) & self.valid
        while True:
            writes, reads = (np.asarray(mask.any(axis=axis)) for axis in (0, 1))
            useful = np.asarray((self.feeds & writes[:, None]).any(axis=0))  # its node is read
            useful[-1] = True
            supplied = np.asarray((self.feeds & reads[None]).any(axis=1))  # its node reads
            supplied[0] = True
            smaller = mask & useful[:, None] & supplied[None]
            if (smaller == mask).all():
                return mask
            mask = smaller

    def split(self, name: str) -> tuple[str, int, int]:
        """(kind, layer, head) of a sender or receiver: kind `embed`, `logits`, `m`, `h`, q, k or v.

        Example:
          >>> Graph(1, 2, 1, ((2, 1, 8),)).split("a0.h1<q>")
          ('q', 0, 1)
        """
        if name in ("embed", "logits"):
            return name, -1 if name == "embed" else self.layers, 0
        found = _RECEIVER.fullmatch(name) or _SENDER.fullmatch(name)
        if found is None:
            raise check.fail("name", "a sender or receiver", repr(name))
        parts = [int(number) for number in re.findall(r"\d+", name)]
        if name[0] == "m":
            return "m", parts[0], 0
        kind = name[-2] if name.endswith(">") else "h"
        return kind, parts[0], parts[1]
