"""Intervals against published values and coverage; exponents against their definition."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress.narrow.scaling import power_law, reached, theory, wilson


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson(successes, count, low, high):
    """81 of 263 is the example of Newcombe 1998 (Stat. Med. 17), table I."""
    np.testing.assert_allclose(wilson(successes, count), (low, high), atol=5e-5)


def test_power_law():
    x = np.repeat([1.0, 10.0, 100.0, 1000.0], 5)
    inside = 0
    for seed in range(40):
        noise = np.exp(0.2 * np.random.default_rng(seed).normal(size=x.size))
        found = power_law(x, 2 * x**-0.3 * noise, samples=400)
        slope = np.polyfit(np.log(x), np.log(2 * x**-0.3 * noise), 1)[0]
        assert found.value == pytest.approx(-slope)
        assert found.low < found.value < found.high
        inside += found.low <= 0.3 <= found.high
    assert 33 <= inside <= 40


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
