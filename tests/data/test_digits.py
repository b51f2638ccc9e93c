"""Images in parts that share nothing, from scikit-learn or from a file."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcompress.data.digits import digits


def test_parts_are_all_images_once():
    parts = digits(parts=(0.5, 0.5), seed=1)
    images = np.concatenate([part.images for part in parts])
    assert images.shape == (1797, 64) and images.min() == 0 and images.max() == 1
    whole = digits(parts=(1.0,), seed=3)[0]
    np.testing.assert_array_equal(np.sort(images.sum(axis=1)), np.sort(whole.images.sum(axis=1)))
    even = parts[0].only((0, 2))
    assert set(even.labels) == {0, 2} and len(even.images) == np.isin(parts[0].labels, (0, 2)).sum()
    assert not np.array_equal(parts[0].labels, digits(parts=(0.5, 0.5), seed=2)[0].labels)


def test_a_file(tmp_path):
    x, y = np.full((4, 2, 2), 255, np.uint8), np.arange(4)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:2]}
    np.savez(tmp_path / "mnist.npz", **arrays)
    found = digits(tmp_path / "mnist.npz", parts=(1.0,))[0]
    assert found.images.shape == (6, 4) and (found.images == 1).all()
    np.savez(tmp_path / "bad.npz", x_train=x)
    with pytest.raises(ValueError, match="y_train"):
        digits(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="an npz file"):
        digits(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="parts"):
        digits(parts=(0.5, 0.6))
