"""Handwritten digits as rows of numbers: scikit-learn's 8 x 8 ones, or MNIST from a file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from jaxcompress import check

__all__ = ["Digits", "digits"]


class Digits(NamedTuple):
    """Images and labels.

    Attributes:
      images: (image, pixel) float32 in [0, 1].
      labels: (image,) int32 in [0, 10).
    """

    images: np.ndarray
    labels: np.ndarray

    def only(self, classes: tuple[int, ...]) -> Digits:
        """The images of some classes."""
        chosen = np.isin(self.labels, classes)
        return Digits(self.images[chosen], self.labels[chosen])


def digits(
    path: str | Path | None = None, *, parts: tuple[float, ...] = (0.6, 0.15, 0.25), seed: int = 0
) -> tuple[Digits, ...]:
    """Digits in random parts that share no image.

    Args:
      path: an npz file with `x_train`, `y_train`, `x_test` and `y_test`, such as Keras's
        `mnist.npz`, all put together first; `None` for the 1,797 digits of 8 x 8 pixels that
        come with scikit-learn.
      parts: shares of the images, such as training, validation and test; they add up to 1.
      seed: of the order.

    Raises:
      ValueError: for shares that do not add up to 1, or a file without these arrays.

    Example:
      >>> train, validation, test = digits()
      >>> train.images.shape, len(validation.labels), len(test.labels)
      ((1078, 64), 270, 449)

    Reference: Alpaydin and Kaynak 1998 (UCI, Optical Recognition of Handwritten Digits, test set).
    """
    if min(parts, default=0) <= 0 or abs(sum(parts) - 1) > 1e-6:
        raise check.fail("parts", "positive shares that add up to 1", parts)
    images, labels = _read(path)
    order = np.random.default_rng(seed).permutation(len(labels))
    ends = np.round(np.cumsum(parts)[:-1] * len(labels)).astype(int)
    return tuple(Digits(images[rows], labels[rows]) for rows in np.split(order, ends))


def _read(path: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    if path is None:
        images, labels = load_digits(return_X_y=True)
        return np.asarray(images, np.float32) / 16, np.asarray(labels, np.int32)
    if not Path(path).is_file():
        raise check.fail("path", "an npz file of MNIST", str(path))
    with np.load(path) as file:
        names = [f"{kind}_{part}" for part in ("train", "test") for kind in "xy"]
        missing = [name for name in names if name not in file]
        if missing:
            raise check.fail(str(path), f"arrays {names}", f"no {missing}")
        images = np.concatenate([file["x_train"], file["x_test"]])
        labels = np.concatenate([file["y_train"], file["y_test"]])
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int32)
