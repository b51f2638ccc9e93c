"""Robustness figures against the numbers that are stored for GPT-2 and DistilGPT2 on numerals."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress.align.robustness import drops, gini, robustness, severity

# Percent of the logit difference that is left without each MLP (Distilled Circuits, numerals).
GPT2_MLPS = [37.4, 90.7, 97.3, 97.3, 85.8, 87.4, 84.2, 88.1, 74.8, 28.7, 67.3, 78.8]
DISTILGPT2_MLPS = [-31.4, 19.0, 20.4, 62.2, -14.1, 64.1]


def effects(retained: list[float], clean: float = 2.0) -> np.ndarray:
    return clean * (np.array(retained) / 100.0 - 1.0)


@pytest.mark.parametrize(
    ("retained", "expected"), [(GPT2_MLPS, 23.5), (DISTILGPT2_MLPS, 72.4)], ids=["gpt2", "distil"]
)
def test_mean_mlp_drop_as_reported(retained: list[float], expected: float):
    assert drops(effects(retained), 2.0).mean() == pytest.approx(expected, abs=0.05)


def test_all_component_means_as_reported():
    # Mean head drops 1.35 and 7.23 %; all components 3.06 and 12.24 %; summed 477 and 955 points.
    for heads, head_drop, mlps, mean, summed in (
        (144, 1.35, GPT2_MLPS, 3.06, 477),
        (72, 7.23, DISTILGPT2_MLPS, 12.24, 955),
    ):
        alike = effects([100 - head_drop] * heads)
        found = robustness(alike, effects(mlps), 2.0, samples=100)
        assert found.heads_mean == pytest.approx(head_drop, abs=1e-9)
        assert found.mean_drop == pytest.approx(mean, abs=0.02)
        assert found.summed_drop == pytest.approx(summed, abs=2.0)
    # 9.18 points more at a compression of 0.339: 27.1 points per unit of compression.
    assert pytest.approx(27.1, abs=0.05) == (12.24 - 3.06) / 0.339


def test_drops_are_clamped_on_both_sides_and_undefined_without_a_clean_difference():
    assert drops(np.array([1.0, -3.0, 0.0]), 2.0).tolist() == [0.0, 100.0, 0.0]
    assert np.isnan(drops(np.array([1.0]), 0.0)).all()
    assert np.isnan(drops(np.array([1.0]), -1.0)).all()


def test_severity_by_hand():
    assert severity(np.array([10.0, 20.0])) == 0.0
    assert severity(np.array([60.0, 100.0]), power=2.0) == pytest.approx((0.25 + 1.0) / 2)
    assert severity(np.array([150.0])) == 1.0


def test_gini_against_its_definition():
    x = np.random.default_rng(0).random(20)
    pairs = np.abs(x[:, None] - x[None]).mean() / (2 * x.mean())
    assert gini(x) == pytest.approx(pairs, rel=1e-12)
    assert gini(np.ones(5)) == pytest.approx(0.0, abs=1e-12)
    assert gini(np.zeros(5)) == 0.0


def test_worst_five_percent_and_raw_logits():
    heads = -np.arange(38.0).reshape(2, 19) / 100  # falls of 0, 0.01, ..., 0.37 nats
    found = robustness(heads, np.array([0.5, 0.5]), 1.0, samples=100)
    assert found.worst5 == pytest.approx(36.5)  # two of forty
    assert found.worst5_raw == pytest.approx(0.365)
    assert found.mean_drop_raw == pytest.approx((heads.sum() * -1 - 1.0) / 40)
    assert found.mlps_mean == 0.0


def test_interval_holds_the_mean_and_shrinks_with_more_components():
    rng = np.random.default_rng(0)
    few = robustness(-rng.random((2, 5)), -rng.random(2), 1.0)
    many = robustness(-rng.random((20, 50)), -rng.random(20), 1.0)
    for found in (few, many):
        assert found.interval[0] < found.mean_drop < found.interval[1]
    assert np.ptp(many.interval) < np.ptp(few.interval) / 3


def test_heads_that_do_not_exist_are_left_out():
    heads = np.array([[-1.0, 0.0], [np.nan, np.nan]])
    found = robustness(heads, np.array([-1.0, 0.0]), 2.0, samples=10)
    assert found.mean_drop == pytest.approx(25.0)


def test_percentages_are_nan_without_a_clean_difference_but_raw_is_not():
    found = robustness(np.array([[-1.0]]), np.array([-1.0]), -0.5, samples=10)
    assert np.isnan([found.mean_drop, found.severity, found.gini, *found.interval]).all()
    assert found.mean_drop_raw == 1.0
