"""Intervals against published values and coverage; exponents against their definition."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress.narrow.scaling import (
    endless,
    finite,
    power_law,
    reached,
    theory,
    wilson,
    window,
)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson(successes, count, low, high):
    """81 of 263 is the example of Newcombe 1998 (Stat. Med. 17), table I."""
    np.testing.assert_allclose(wilson(successes, count), (low, high), atol=5e-5)


def test_power_law():
    """Whole runs are what is independent: the interval covers though points of a run agree."""
    x, run = np.tile([1.0, 10.0, 100.0, 1000.0], 4), np.repeat(range(4), 4)
    inside = 0
    for seed in range(200):
        slopes = -0.3 + 0.1 * np.random.default_rng(seed).normal(size=4)
        found = power_law(x, 2 * x ** slopes[run], run)
        assert found.value == pytest.approx(-slopes.mean())
        inside += found.low <= 0.3 <= found.high
    assert 180 <= inside <= 199
    noise = np.exp(0.2 * np.random.default_rng(0).normal(size=x.size))
    alone = power_law(x, x**-0.3 * noise)
    slope = np.polyfit(np.log(x), np.log(x**-0.3 * noise), 1)[0]
    assert alone.value == pytest.approx(-slope) and np.isnan([alone.low, alone.high]).all()


def test_absent_tasks():
    """By sums: the mean over few tasks, and what endlessly many would cost."""
    often = np.arange(1, 2_000_001) ** -1.4
    assert finite(3, 10, 0.4) == pytest.approx(often[3:10].sum() / often[:10].sum())
    whole = often.sum() + (2e6) ** -0.4 / 0.4  # and an integral for those beyond
    np.testing.assert_allclose(endless(finite(3, 10, 0.4), 10, 0.4), 1 - often[:3].sum() / whole)
    # So it is a power of what was learned, and theory is found again from few tasks.
    n = np.geomspace(5, 80, 9)
    law = power_law(n**1.4, endless(finite(n, 100, 0.4), 100, 0.4))
    assert law.value == pytest.approx(theory(0.4)["steps"], abs=0.012)
    assert power_law(n**1.4, finite(n, 100, 0.4)).value > 0.5


def test_window():
    steps, learned = np.arange(1, 101), np.arange(100) // 10
    found = window(steps, learned, 2, 5, points=5)
    assert (found[0], found[-1]) == (20, 59) and len(found) == 5
    np.testing.assert_allclose(np.diff(np.log(steps[found])), np.log(60 / 21) / 4, atol=0.03)
    np.testing.assert_array_equal(window(steps, learned, 2, 2), np.arange(20, 30))
    assert window(steps, learned, 11, 12).size == 0


def test_reached():
    curves = np.array([[3.0, 3.0], [1.0, 3.0], [2.0, 0.0]])
    np.testing.assert_array_equal(reached([1, 2, 3], curves, 2.0), [2, 3])
    assert np.isnan(reached([1, 2, 3], curves, -1.0)).all()


def test_theory():
    expected = {"parameters": 0.4, "data": 0.286, "steps": 0.286}
    assert theory(0.4) == pytest.approx(expected, abs=1e-3)


def test_bad_input():
    with pytest.raises(ValueError, match=r"successes: expected a whole number in \[0, 4\]"):
        wilson(5, 4)
    with pytest.raises(ValueError, match="y: expected positive"):
        power_law([1, 2, 3], [1, 0, 1])
    with pytest.raises(ValueError, match="x: expected at least three different"):
        power_law([1, 2, 2], [1, 2, 1])
    with pytest.raises(ValueError, match="x: expected at least three different"):
        power_law([1, 2, 3, 4], [1, 2, 1, 1], [0, 0, 0, 1])
