"""Positions, rotary frequencies and masks against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxcompress.models import RopeScaling
from jaxcompress.models.positions import positions, rope_frequencies, sight
from tests import families


def test_positions_count_real_tokens():
    mask = np.array([[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1]])
    assert positions(mask, 4).tolist() == [[0, 1, 2, 2], [0, 0, 0, 1], [0, 0, 1, 2]]
    assert positions(None, 3).tolist() == [[0, 1, 2]]


def test_visibility_is_causal_and_hides_padding():
    mask = np.array([[0, 1, 1]])
    seen = sight(families.config("gpt2"), mask, 3, 0).visible
    assert seen.astype(int).tolist() == [[[0, 0, 0], [0, 1, 0], [0, 1, 1]]]
    seen = sight(families.config("bert"), mask, 3, 0).visible
    assert seen.astype(int).tolist() == [[[0, 1, 1]] * 3]
    assert sight(families.config("bert"), None, 3, 0).visible is None
    with pytest.raises(ValueError, match="attention_mask: expected 4 positions, got 3"):
        sight(families.config("gpt2"), mask, 2, 2)


def test_llama3_scaling_leaves_short_and_stretches_long_wavelengths():
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original=8192)
    config = families.config("llama", head_dim=8, rope_theta=500000.0, rope_scaling=scaling)
    plain = [500000.0 ** (-i / 4) for i in range(4)]
    wavelengths = [2 * math.pi / f for f in plain]  # 6.3, 167, 4443, 118146
    assert wavelengths[1] < 8192 / 4 < wavelengths[2] < 8192 < wavelengths[3]
    between = (8192 / wavelengths[2] - 1) / 3
    expected = [plain[0], plain[1], plain[2] * (between + (1 - between) / 8), plain[3] / 8]
    np.testing.assert_allclose(rope_frequencies(config), expected, rtol=1e-5)
