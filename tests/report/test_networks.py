"""Drawings of networks, power laws and skills: what is drawn, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress.narrow.scaling import finite
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
    """Curves as theory has them, of 40 tasks: steeper than endless ones, and as said to be."""
    rows, label = [], {"alpha": 0.4, "tasks": 40}
    for seed in (0, 1):
        for n in range(1, 40):
            loss = float(finite(n, 40, 0.4))
            for by, power in (("parameters", 1.0), ("data", 1.4), ("steps", 1.4)):
                row = {"by": by, "seed": seed, "x": (1 + seed) * n**power}
                rows.append(label | row | {"loss": loss, "learned": n})
            task = {"by": "task", "seed": seed, "x": n - 1, "frequency": n**-1.4, "step": n**1.4}
            rows.append(label | task | {"curve": [1.0, 0.9]})
    found = scaling.exponents(rows, {"data": {0.4: 0.308}}, below=0.95)
    names = ["parameters", "data", "steps", "steps to 0.1 bit by frequency"]
    assert [row[0] for row in found.rows] == [f"{name}, alpha 0.4" for name in names]
    steps = dict(zip(found.columns[1:], found.rows[2][1:], strict=True))
    naive, expected, endless = (float(found.rows[2][i]) for i in (1, 3, 4))
    assert abs(naive - expected) < 0.01 and naive > 0.4
    assert abs(endless - 0.286) < 0.03 and steps["theory"] == "0.286"
    assert found.rows[2][2].count(f"{naive:.3f}") == 2  # both runs have one exponent
    assert found.rows[1][6:] == ("0.286", "0.308") and found.rows[0][7] == "n/a"
    assert found.rows[3][1] == "1.000"
    none = scaling.exponents([row for row in rows if row["by"] == "data"], {}, below=1e-9)
    assert none.rows[1][1] == "n/a"
    drawn = [row for row in rows if row["by"] != "task"]
    assert scaling.scaling(drawn)[1:4] == scaling.scaling([])[1:4] == b"PNG"
    row = {"alpha": 0.4, "seed": 0, "frequency": 0.5, "curve": [1.0, 0.9], "step": float("nan")}
    assert scaling.emergence([row])[1:4] == scaling.emergence([])[1:4] == b"PNG"


def test_tables_of_skills():
    rows = [
        {"way": "random", "width": 8, "seed": seed, "kept": kept, "skill": "kept",
         "stage": "pruned", "accuracy": accuracy, "empty": (seed, kept) == (0, 4)}
        for seed, kept, accuracy in
        [(0, 4, 0.5), (0, 8, 0.99), (1, 4, 1.0), (1, 8, 1.0), (2, 4, 0.5), (2, 8, 0.5)]
    ]  # fmt: skip
    told = skills.fewest_neurons(rows)
    # 4, 8 and never: the middle one is 8, not the mean of those that got there.
    assert told.rows == (("random", "8", "8 (4 to 8, 1 never)", "n/a", "n/a", "n/a"),)
    assert "empty in 1 of 6 pruned networks" in told.note
    [line] = skills.fewest_neurons([row for row in rows if row["seed"] != 1]).rows
    assert line[2] == "never (8 to 8, 1 never)"
    rows = [{"network": "a", "sizes": (2, 2), "overlap": o, "chance": o / 2} for o in (0.5, np.nan)]
    assert skills.locality(rows).rows == (("a", "1 of 2", "2 and 2", "0.500", "0.250"),)
    assert skills.locality(rows[1:]).rows == (("a", "0 of 1", "n/a", "n/a", "n/a"),)


def test_convergence_counts_all_seeds():
    rows = [
        {"condition": "broad", "seed": seed, "samples": samples, "reached": reached}
        for seed, reached in enumerate((60.0, np.nan, 90.0, np.nan, np.nan))
        for samples in (50, 100)
    ]
    [line] = skills.converged(rows, {}).rows
    assert line[:2] == ("broad", "2/5") and line[3:] == ("never", "n/a")
