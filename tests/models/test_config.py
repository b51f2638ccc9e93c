"""Configurations that cannot be, refused by name."""

from __future__ import annotations

import pytest

from jaxcompress.models import LayerSize, RopeScaling
from tests import families


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "mamba"}, r"config\.family: expected one of .*'mamba'"),
        ({"layers": 0}, r"config\.layers: expected a whole number >= 1, got 0"),
        ({"neurons": -1}, r"config\.neurons"),
        ({"kv_heads": 3}, r"config\.heads: expected a multiple of kv_heads, got 4 heads over 3"),
        ({"sizes": (LayerSize(4, 4, 6),)}, r"config\.sizes: expected 3 layers, got 1"),
        ({"sizes": (LayerSize(8, 4, 6),) * 3}, r"config\.sizes\[0\]: expected no more than"),
        ({"sizes": (LayerSize(2, 0, 6),) * 3}, "2 heads over 0 in layer 0"),
        ({"positions": "rope", "head_dim": 3}, r"config\.head_dim: expected even"),
        ({"norm_eps": float("nan")}, r"config\.norm_eps: expected a finite number >= 0, got nan"),
        ({"norm_eps": -1.0}, r"config\.norm_eps"),
        ({"rope_theta": 0.0}, r"config\.rope_theta: expected a finite number above 0, got 0"),
        ({"attention_coefficient": float("inf")}, r"config\.attention_coefficient"),
        ({"outputs": 5}, r"config\.outputs: expected 0 or vocab, as tied says, got 5"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        families.config("gpt2", **changes)


def test_sizes_of_layers():
    even, uneven = families.config("gpt2"), families.config("uneven")
    assert even.stacked and even.layer_sizes == (LayerSize(4, 4, 6),) * 3
    assert not uneven.stacked and uneven.layer_sizes[2] == LayerSize(0, 0, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((float("nan"), 1.0, 4.0, 16), "factor: expected a finite number above 0, got nan"),
        ((8.0, 4.0, 4.0, 16), "high_freq_factor: expected a finite number above 4, got 4"),
        ((8.0, 1.0, 4.0, 0), "original: expected a whole number >= 1, got 0"),
    ],
)
def test_scalings_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=f"rope_scaling.{message}"):
        RopeScaling(*values)
