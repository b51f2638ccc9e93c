"""Figures: PNGs that hold what was given, drawn without pyplot, from any data that can occur."""

from __future__ import annotations

import copy
import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from jaxcompress.report import ablation_map, alignment_scores, matched_pairs
from jaxcompress.report.drawing import DENSITY, canvas, message, png, png_size
from tests.report.example import comparison

FIGURES = (ablation_map, matched_pairs, alignment_scores)


def pixels(data):
    return imread(io.BytesIO(data))


@pytest.fixture(scope="module")
def tasks():
    return comparison()["tasks"]


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("index", [0, 1])
def test_figures_are_drawn_and_repeat_to_the_byte(tasks, figure, index):
    data = figure(tasks[index])
    assert data.startswith(b"\x89PNG")
    assert data == figure(tasks[index])
    width, height = png_size(data)
    assert 700 < width < 1200
    assert 150 < height < 700
    shape = pixels(data).shape
    assert shape[1] // DENSITY == width
    # Something is drawn, and nothing at the very edge: it is not cut off.
    ink = pixels(data)[..., :3].min(axis=-1) < 0.9
    assert ink.any()
    assert not ink[:4].any()
    assert not ink[-4:].any()
    assert not ink[:, :4].any()
    assert not ink[:, -4:].any()


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("task", [{}, {"dependence": None, "alignment": None}])
def test_without_data_a_figure_says_so(figure, task):
    width, height = png_size(figure(task))
    assert height < 80 < width


def red(data):
    image = pixels(data)
    return int(((image[..., 0] - image[..., 2]) > 0.4).sum())


def test_more_loss_is_more_red(tasks):
    task = copy.deepcopy(tasks[0])
    for side in ("teacher", "student"):
        for key in ("heads_percent", "mlps_percent"):
            effects = np.abs(np.array(task["dependence"][side][key]))
            task["dependence"][side][key] = effects.tolist()
    assert red(ablation_map(tasks[0])) > 5 * red(ablation_map(task))


def side(heads, mlps, clean=2.0):
    return {"clean": clean, "heads": heads, "mlps": mlps}


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        (np.full((32, 32), -0.1).tolist(), np.full((16, 32), 0.2).tolist()),
        (np.full((2, 1), -0.1).tolist(), np.full((1, 3), 0.2).tolist()),
        ([[0.0, 0.0]], [[0.0, 0.0]]),
        ([[0.1, -0.2, 0.3], [0.1]], [[], [0.1, None]]),
        (None, [[0.1]]),
    ],
    ids=["large", "different", "zero", "uneven", "missing"],
)
def test_maps_of_any_size(teacher, student):
    def mlps(heads):
        return [0.0] * len(heads or [])

    both = {"teacher": side(teacher, mlps(teacher)), "student": side(student, mlps(student))}
    assert png_size(ablation_map({"name": "t", "dependence": both}))[1] > 100


def test_a_negative_clean_value_is_shown_in_nats(tasks):
    task = copy.deepcopy(tasks[0])
    student = task["dependence"]["student"]
    student["clean"] = -student["clean"]
    in_nats = ablation_map(task)
    # Percentages of it, whatever they say, are not looked at.
    student["heads_percent"] = [[-value for value in row] for row in student["heads_percent"]]
    assert ablation_map(task) == in_nats != ablation_map(tasks[0])


def test_numpy_arrays_are_taken_as_lists_are(tasks):
    task = copy.deepcopy(tasks[0])
    for data in task["dependence"].values():
        data |= {key: np.array(data[key]) for key in ("heads_percent", "mlps_percent")}
    assert ablation_map(task) == ablation_map(tasks[0])


def test_influences_are_shares_whatever_their_scale(tasks):
    task = copy.deepcopy(tasks[0])
    for pair in task["alignment"]["pairs"]:
        pair["influence_student"] *= 40
        pair["influence_teacher"] *= 7
    assert matched_pairs(task) == matched_pairs(tasks[0])
    assert png_size(matched_pairs(task, rows=3))[1] < png_size(matched_pairs(task, rows=14))[1]
    with pytest.raises(ValueError, match="rows"):
        matched_pairs(task, rows=0)


def test_names_with_mathematics_in_them_are_text(tasks):
    task = copy.deepcopy(tasks[0])
    task["alignment"]["pairs"][0] |= {"student": r"$\frac{", "influence_student": 9.0}
    assert png_size(matched_pairs(task))[0] > 700
    assert png_size(message(r"$\frac{"))[0] > 10


def test_scores_beyond_their_range_are_drawn(tasks):
    task = copy.deepcopy(tasks[0])
    task["alignment"] |= {"published": -0.4, "overlap": None, "nulls": None}
    assert png_size(alignment_scores(task))[0] > 700


def test_density_is_two():
    figure = canvas(2.0, 1.0)
    figure.add_axes((0, 0, 1, 1)).set(xticks=[], yticks=[])
    width, height = png_size(png(figure))
    # Two inches by one, and the padding.
    assert (width, height) == pytest.approx((2 * 96, 96), abs=20)


def test_no_global_state_is_touched(tasks):
    before = dict(mpl.rcParams)
    for figure in FIGURES:
        figure(tasks[0])
    assert dict(mpl.rcParams) == before
    code = "import jaxcompress.report, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
