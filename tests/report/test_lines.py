"""Panels are drawn as asked: how many, in which colours, in which order."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from jaxcompress.report import addition_tables
from jaxcompress.report.blocks import blocks
from jaxcompress.report.drawing import png_size
from jaxcompress.report.lines import Bars, Line, Panel, bars, lines
from jaxcompress.report.page import Passage, experiment_page


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png))


def test_panels_make_a_grid():
    panel = Panel("loss", "step", "nats", [Line("train", [1, 2], [1.0, 0.1])], "xy")
    one, two, three = (png_size(lines([panel] * n)) for n in (1, 2, 3))
    assert two[0] > 1.8 * one[0] and two[1] < 1.1 * one[1] and three[1] > 1.8 * one[1]
    assert lines([]) == bars([])


def test_marked_bars_are_coloured():
    def coloured(marked):
        image = pixels(bars([Bars("b", "k", "share", [1, 2, 3], [1.0, 2.0, 3.0], marked)]))
        return (image[..., 2] - image[..., 0] > 0.5).sum()

    none, one, three = (coloured([i < n for i in range(3)]) for n in (0, 1, 3))
    assert none == 0 < one and three > 4 * one


def test_rows_of_a_group_stand_together():
    groups = ["a", "b"] * 6
    same = np.equal.outer(groups, groups).astype(float)
    mixed = blocks([("sorted", same)], groups)
    already = blocks([("sorted", np.kron(np.eye(2), np.ones((6, 6))))], sorted(groups))
    assert mixed == already
    with pytest.raises(ValueError, match="matrices"):
        blocks([("sorted", np.eye(3))], groups)


def test_swept_networks():
    rows = [
        {"fraction": f, "weight_decay": d, "grokked": g}
        for f, d, g in [
            (0.3, 1.0, 1200.0),
            (0.3, 0.5, np.nan),
            (0.5, 1.0, 300.0),
            (0.5, 0.5, 700.0),
        ]
    ]
    drawn, section = addition_tables.sweep(rows, 2000)
    assert (
        drawn != addition_tables.sweep(rows, 3000)[0]
    )  # where the one that never got there stands
    assert section.columns == ("fraction", "weight decay 0.5", "weight decay 1")
    assert section.rows == (("0.3", "not reached", "1,200"), ("0.5", "700", "300"))


def test_passages_are_marked_and_escaped():
    page = experiment_page("t", passages={"Cluster 1": [Passage("a < ", "b & c", " d")]})
    assert "<li>a &lt; <mark>b &amp; c</mark> d</li>" in page and "Cluster 1" in page
    assert "<mark>" not in experiment_page("t")
