"""Readings off curves, and figures that have something in them."""

from __future__ import annotations

import numpy as np

from jaxcompress.report.curves import curves
from jaxcompress.report.drawing import png_size
from jaxcompress.report.grids import grids
from jaxcompress.report.readings import falls, least
from jaxcompress.report.routes import carried_table


def rows(values, **more):
    return [{"share": i / 4, "value": value, **more} for i, value in enumerate(values)]


def test_least_holds_from_there_on():
    some = rows([0.0, 0.95, 0.5, 0.9, 1.0])
    assert least(some, share="share", value="value", enough=0.9) == 0.75
    assert least(some[:3], share="share", value="value", enough=0.9) is None
    both = some + rows([0.0, 0.0, 0.0, 0.7, 1.0])  # means over repeats
    assert least(both, share="share", value="value", enough=0.9) == 1.0


def test_falls_between_shares():
    assert falls(rows([1.0, 0.75, 0.25]), share="share", value="value", below=0.5) == 0.375
    assert falls(rows([1.0, 0.75]), share="share", value="value", below=0.5) is None
    assert falls(rows([0.2, 0.1]), share="share", value="value", below=0.5) == 0.0


def test_curves_over_shares_have_an_axis_in_percent_and_a_target(monkeypatch):
    figures = []
    monkeypatch.setattr("jaxcompress.report.curves.png", lambda one: figures.append(one) or b"")
    made = [{"share": share, "kept": share, "by": "circuit"} for share in (0.001, 0.1, 1.0)]
    curves(made, x="share", y="kept", by="by", logx=True, target=0.8)
    (figure,) = figures
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert {"0.1 %", "1 %", "10 %", "100 %"} <= set(labels)
    assert [0.8, 0.8] in [list(line.get_ydata()) for line in axes.lines]
    assert not figure.legends  # a single line needs no name


def test_grids_grow_with_their_panels():
    one = png_size(grids({"a": np.eye(3)}))
    two = png_size(grids({"a": np.eye(3), "b": np.full((3, 8), np.nan)}, unit="nats", apart=False))
    assert two[0] > 1.5 * one[0]
    assert png_size(grids({"a": np.ones((9, 3))}, signed=False))[1] > one[1]
    assert grids({})[1:4] == b"PNG"


def test_carried_table():
    made = [
        {
            "criterion": name,
            "share": share,
            "parameters": share / 2,
            "behaviour": b,
            "difference": d,
        }
        for name, share, b, d in (("x", 0.1, 0.95, 0.2), ("x", 1.0, 1.0, 1.0), ("y", 1.0, 0.5, 1.0))
    ]
    assert carried_table(made, enough=0.9).rows == (
        ("x", "10 %", "5 %", "100 %", "50 %"),
        ("y", "n/a", "n/a", "100 %", "50 %"),
    )
