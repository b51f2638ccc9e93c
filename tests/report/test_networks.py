"""Drawings of networks, power laws and skills: what is drawn, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress.report import networks, scaling, skills
from jaxcompress.report.drawing import png_size
from jaxcompress.report.networks import Drawn

RNG = np.random.default_rng(0)
KERNELS = [RNG.normal(size=shape) for shape in ((5, 4), (4, 4), (4, 2))]


def test_removed_neurons_are_not_drawn():
    gates = np.array([[1, 0, 1, 0], [1, 1, 1, 0]])
    kept, sizes = networks._kept(Drawn(KERNELS, gates))
    assert [k.shape for k in kept] == [(5, 2), (2, 3), (3, 2)] and sizes == [4, 4]
    np.testing.assert_array_equal(kept[1], KERNELS[1][np.ix_([0, 2], [0, 1, 2])])


def test_lines_have_the_colour_of_their_sign():
    kernel = np.array([[2.0, -1.0], [0.05, 0.0]])
    lines = networks._lines(kernel, 0, [np.array([1.0, 0.0])] * 2, 2.0, 0.1)
    assert len(lines.get_segments()) == 2  # the faint ones are left out
    red, blue = lines.get_colors()  # the strongest on top, so last
    assert blue[2] > blue[0] and red[0] > red[2] and blue[3] > red[3]


def test_neurons_stand_near_what_they_read():
    before = np.array([1.0, 0.5, 0.0])
    heights = networks._sorted(np.array([[0.0, 3.0], [0.0, 0.0], [3.0, 0.0]]), before)
    assert heights.tolist() == [0.0, 1.0]


def test_panels():
    panels = {"before": Drawn(KERNELS), "after": Drawn(KERNELS, np.eye(2, 4))}
    drawn = networks.networks(panels, groups={"bits": [1, 2, 3, 4]}, outputs=("even", "odd"))
    assert png_size(drawn)[0] > 1.6 * png_size(drawn)[1]
    with pytest.raises(ValueError, match="panels: expected at least one network"):
        networks.networks({}, groups={})
    with pytest.raises(ValueError, match=r"kernels\[1\]: expected 4 inputs, got 3"):
        networks.networks({"a": Drawn([KERNELS[0], KERNELS[1][:3]])}, groups={})
    with pytest.raises(ValueError, match="panels: expected networks of one depth"):
        networks.networks({"a": Drawn(KERNELS), "b": Drawn(KERNELS[:1])}, groups={})
    with pytest.raises(ValueError, match=r"gates: expected shape \(2, 4\)"):
        networks.networks({"a": Drawn(KERNELS, np.ones((1, 4)))}, groups={})


def test_exponents():
    rows = [
        {"by": by, "alpha": 0.4, "x": x, "loss": 2 * x**-power}
        for by, power in (("parameters", 0.38), ("data", 0.31), ("steps", 0.35))
        for x in (10.0, 100.0, 1000.0, 10000.0)
    ]
    rows += [{"by": "steps", "alpha": 0.4, "x": 1.0, "loss": 99.0}]  # before the fit begins
    recorded = {"data": {0.4: 0.308}}
    found = scaling.exponents(rows, recorded, fitted=(10, 1e6), below=3.0)
    assert [row[1] for row in found.rows] == ["0.380", "0.310", "0.350"]
    assert found.rows[1][3:] == ("0.286", "0.308") and found.rows[0][4] == "n/a"
    none = scaling.exponents(rows, recorded, fitted=(10, 1e6), below=1e-9)
    assert none.rows[1][1] == "n/a"
    assert scaling.scaling(rows)[1:4] == scaling.scaling([])[1:4] == b"PNG"
    row = {"alpha": 0.4, "seed": 0, "frequency": 0.5, "curve": [1.0, 0.9], "step": float("nan")}
    assert scaling.emergence([row])[1:4] == scaling.emergence([])[1:4] == b"PNG"


def test_tables_of_skills():
    rows = [
        {"way": "random", "width": 8, "seed": seed, "kept": kept, "skill": "kept",
         "stage": "pruned", "accuracy": accuracy}
        for seed, kept, accuracy in
        [(0, 4, 0.5), (0, 8, 0.99), (1, 4, 1.0), (1, 8, 1.0), (2, 4, 0.5), (2, 8, 0.5)]
    ]  # fmt: skip
    [line] = skills.fewest_neurons(rows).rows
    assert line == ("random", "8", "6 (4 to 8, 1 never)", "n/a", "n/a", "n/a")
    rows = [{"network": "a", "sizes": (2, 2), "overlap": o, "chance": o / 2} for o in (0.5, np.nan)]
    assert skills.locality(rows).rows == (("a", "1 of 2", "2 and 2", "0.500", "0.250"),)
    assert skills.locality(rows[1:]).rows == (("a", "0 of 1", "n/a", "n/a", "n/a"),)
