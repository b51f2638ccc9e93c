"""A circuit drawn: layers upwards, edges as wide as their scores, as SVG for pages and as PNG."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from jaxcompress.circuits.circuit import Circuit
from jaxcompress.circuits.scores import helpful
from jaxcompress.report.drawing import GREY, INK, SIZE, canvas, message, png

__all__ = ["circuit_png", "circuit_svg", "svg_figure"]

EDGES = 120  # more are a grey cloud
_HELPS, _HURTS = "#2166ac", "#b2182b"  # the blue and the red of heat maps
_STYLES = {"q": "-", "k": (0, (4, 1.5)), "v": (0, (1, 1)), "": "-"}
_INTO = {"q": "query, MLP or logits", "k": "key", "v": "value"}
_WIDE, _HIGH = 0.62, 0.3  # of a box, in inches
_STEP_X, _STEP_Y = 0.82, 0.78
_PORTS = {"q": -0.2, "k": 0.0, "v": 0.2, "": 0.0}


class _Drawn(NamedTuple):
    """An edge to be drawn: names of nodes, the port it enters by, its score, and what that says."""

    sender: str
    node: str
    port: str
    score: float
    colour: str


def circuit_png(circuit: Circuit, *, edges: int = EDGES) -> bytes:
    """The drawing of `circuit_svg` as a PNG, for files.

    Example:
      >>> from jaxcompress.circuits.graph import Graph
      >>> graph = Graph(1, 2, 1, ((2, 1, 8),))
      >>> circuit_png(Circuit.of(graph, ["embed->m0", "m0->logits"]))[1:4]
      b'PNG'
    """
    drawn, left = _edges(circuit, edges)
    return png(_draw(drawn, left)) if drawn else message("n/a: the circuit is empty")


def circuit_svg(circuit: Circuit, *, edges: int = EDGES) -> bytes:
    """The graph of a circuit: embedding below, logits on top, a row for the heads of each layer.

    An edge is as wide as its score is large; blue ones help, red ones hurt, without scores they are
    black. Edges into keys are dashed, into values dotted, others solid; queries, keys and values
    enter a head left, in the middle, right.

    Args:
      circuit: with or without scores; positions are added up.
      edges: the strongest so many are drawn; the figure says how many are not.

    Returns:
      An SVG whose text is text; a line of text for an empty circuit.

    Example:
      >>> from jaxcompress.circuits.graph import Graph
      >>> graph = Graph(1, 2, 1, ((2, 1, 8),))
      >>> b"logits" in circuit_svg(Circuit.of(graph, ["embed->m0", "m0->logits"]))
      True
    """
    drawn, left = _edges(circuit, edges)
    if not drawn:
        return (
            b'<svg xmlns="http://www.w3.org/2000/svg" width="300pt" height="30pt">'
            b'<text x="8" y="20" font-size="10">n/a: the circuit is empty</text></svg>'
        )
    buffer = io.BytesIO()
    # A fixed salt, so that equal figures are equal bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "circuit"}):
        figure = _draw(drawn, left)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def svg_figure(svg: bytes, alt: str, caption: str = "") -> Mapping[str, Any]:
    """An SVG as a data URI with its size in CSS pixels, as `page.figure` does for a PNG.

    Example:
      >>> svg_figure(b'<svg width="72pt" height="36pt"></svg>', "nothing")["width"]
      96
    """
    found = re.search(rb'<svg[^>]*?width="([\d.]+)pt"', svg, re.DOTALL)
    high = re.search(rb'<svg[^>]*?height="([\d.]+)pt"', svg, re.DOTALL)
    width, height = (round(float(m.group(1)) * 96 / 72) if m else 0 for m in (found, high))
    uri = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    return {"uri": uri, "width": width, "height": height, "alt": alt, "caption": caption}


def _edges(circuit: Circuit, count: int) -> tuple[list[_Drawn], int]:
    """The strongest edges, and how many more there are."""
    graph = circuit.graph
    scores = circuit.mask.astype(float) if circuit.scores is None else circuit.scores
    scores = np.where(circuit.mask, scores, 0.0)
    scores = scores.sum(axis=0) if scores.ndim == 3 else scores
    scores = helpful(scores, circuit.about.get("metric", ""))
    places = np.argwhere(circuit.flat)
    order = sorted(range(len(places)), key=lambda i: -abs(scores[tuple(places[i])]))
    drawn = []
    for i in order[:count]:
        receiver, sender = graph.receivers[places[i][0]], graph.senders[places[i][1]]
        kind = graph.split(receiver)[0]
        port = kind if kind in "qkv" else ""
        # A key or value of a group is read by several heads: those of the circuit are drawn.
        readers = [graph.senders[j] for j in np.flatnonzero(graph.feeds[:, places[i][0]])]
        inside = [node for node in readers if node in circuit.nodes]
        nodes = inside or readers or [receiver]
        score = float(scores[tuple(places[i])])
        colour = INK if circuit.scores is None else _HELPS if score >= 0 else _HURTS
        drawn += [_Drawn(sender, node, port, score, colour) for node in nodes]
    return drawn, max(len(places) - count, 0)


def _rank(node: str) -> tuple[int, int]:
    """(row, place in it): embedding, then heads and MLP of each layer, then logits."""
    if node in ("embed", "logits"):
        return (-1, 0) if node == "embed" else (1 << 20, 0)
    numbers = [int(n) for n in re.findall(r"\d+", node)]
    return (2 * numbers[0], numbers[1]) if node[0] == "a" else (2 * numbers[0] + 1, 0)


def _places(drawn: list[_Drawn]) -> dict[str, tuple[float, float]]:
    """Where nodes stand, in inches: rows of even spacing, ordered by their neighbours' places."""
    nodes = sorted({n for edge in drawn for n in (edge.sender, edge.node)}, key=_rank)
    levels = sorted({_rank(node)[0] for node in nodes})
    rows = [[node for node in nodes if _rank(node)[0] == level] for level in levels]
    at = {node: (i - (len(row) - 1) / 2) for row in rows for i, node in enumerate(row)}
    near: dict[str, list[str]] = {node: [] for node in nodes}
    for edge in drawn:
        near[edge.sender].append(edge.node)
        near[edge.node].append(edge.sender)
    for _ in range(8):
        for row in rows:
            row.sort(key=lambda node: (np.mean([at[n] for n in near[node]] or [0]), _rank(node)))
            for i, node in enumerate(row):
                at[node] = i - (len(row) - 1) / 2
    # MLPs have a column of their own, or edges that pass would run through them.
    right = max(at[node] for node in nodes) + 1
    return {
        node: ((right if node[0] == "m" else at[node]) * _STEP_X, y * _STEP_Y)
        for y, row in enumerate(rows)
        for node in row
    }


def _draw(drawn: list[_Drawn], left: int) -> Any:
    places = _places(drawn)
    xs, ys = zip(*places.values(), strict=True)
    margin, legend = 0.6, 0.62
    low, high = min(xs) - margin, max(xs) + margin
    if high - low < 5.8:  # room for the legend
        low, high = (low + high) / 2 - 2.9, (low + high) / 2 + 2.9
    width, height = high - low, max(ys) + 0.7 + legend
    figure = canvas(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(low, high)
    axes.set_ylim(-0.35 - legend, max(ys) + 0.35)
    axes.set_axis_off()
    most = max(abs(edge.score) for edge in drawn) or 1.0
    for edge in reversed(drawn):
        _edge(axes, places[edge.sender], places[edge.node], edge, abs(edge.score) / most)
    for node, (x, y) in places.items():
        _box(axes, node, x, y, {edge.port for edge in drawn if edge.node == node})
    _legend(axes, (low + high) / 2, drawn, left)
    return figure


def _edge(axes: Any, start: Any, end: Any, edge: _Drawn, strength: float) -> None:
    x0, y0 = start[0], start[1] + _HIGH / 2
    x1, y1 = end[0] + _PORTS[edge.port], end[1] - _HIGH / 2
    bend = max(0.35, 0.45 * (y1 - y0))
    codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    path = Path([(x0, y0), (x0, y0 + bend), (x1, y1 - bend), (x1, y1)], codes)
    axes.add_patch(
        PathPatch(
            path, fill=False, linewidth=0.5 + 4 * strength, linestyle=_STYLES[edge.port],
            edgecolor=edge.colour, alpha=0.35 + 0.6 * strength,
        )
    )  # fmt: skip


def _box(axes: Any, node: str, x: float, y: float, ports: set[str]) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - _WIDE / 2, y - _HIGH / 2), _WIDE, _HIGH, boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="#eef1f4" if node[0] != "m" else "#f7f0e6", edgecolor=GREY, linewidth=0.8,
            zorder=3,
        )
    )  # fmt: skip
    axes.text(x, y + 0.02, node, ha="center", va="center", size=SIZE + 1, color=INK, zorder=4)
    for port in ports - {""}:
        axes.text(
            x + _PORTS[port], y - _HIGH / 2 + 0.045, port, ha="center", va="center",
            size=SIZE - 2.5, color=GREY, zorder=4,
        )  # fmt: skip


def _legend(axes: Any, middle: float, drawn: list[_Drawn], left: int) -> None:
    """What the colours and lines mean that are drawn."""
    lines = [
        Line2D([], [], color=colour, linewidth=2.5, label=label)
        for colour, label in ((_HELPS, "helps"), (_HURTS, "hurts"))
        if colour in {edge.colour for edge in drawn}
    ] + [
        Line2D([], [], color=GREY, linewidth=1.6, linestyle=_STYLES[port], label=f"into {name}")
        for port, name in _INTO.items()
        if _STYLES[port] in {_STYLES[edge.port] for edge in drawn}
    ]
    bottom = axes.get_ylim()[0]
    axes.legend(
        handles=lines, loc="lower center", ncols=5, fontsize=SIZE, frameon=False,
        bbox_to_anchor=(middle, bottom + 0.16), bbox_transform=axes.transData, labelcolor=INK,
        borderaxespad=0.0, handlelength=2.4, columnspacing=1.4,
    )  # fmt: skip
    more = f"; {left} weaker edges are not drawn" if left else ""
    most = max(abs(edge.score) for edge in drawn)
    text = f"a0.h2: layer 0, head 2; m1: MLP of layer 1; widest edge: {most:.3g}{more}."
    axes.text(middle, bottom + 0.1, text, ha="center", va="center", size=SIZE, color=GREY)
