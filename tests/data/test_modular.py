"""The table has every pair once, and the split is the published one."""

from __future__ import annotations

import random

import numpy as np
import pytest

from jaxcompress.data import modular


def test_table():
    found = modular.table(7)
    assert found.tokens.shape == (49, 3) and (found.tokens[:, 2] == 7).all()
    assert len({tuple(row) for row in found.tokens.tolist()}) == 49
    np.testing.assert_array_equal(found.answers, found.tokens[:, :2].sum(1) % 7)
    np.testing.assert_array_equal(found.tokens[3 * 7 + 5, :2], [3, 5])
    np.testing.assert_array_equal(modular.table(7, equals=False).tokens, found.tokens[:, :2])


def test_split_is_the_published_shuffle():
    pairs = [(i, j) for i in range(113) for j in range(113)]
    random.Random(1).shuffle(pairs)
    chosen = modular.split(113, 0.3, 1)
    places = np.flatnonzero(chosen)
    expected = {a * 113 + b for a, b in pairs[: int(0.3 * 113 * 113)]}
    assert set(places.tolist()) == expected and chosen.sum() == 3830


def test_smaller_fractions_are_parts_of_larger_ones():
    small, large = modular.split(11, 0.2, 3), modular.split(11, 0.6, 3)
    assert (small <= large).all() and small.sum() == 24 and large.sum() == 72
    assert (modular.split(11, 0.2, 4) != small).any()


def test_triples_are_the_published_ones():
    found = modular.triples(5, 125, 42)
    assert len({tuple(row) for row in found.tolist()}) == 125
    np.testing.assert_array_equal(modular.triples(5, 3, 42), found[:3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modular.table(2), "p: expected a whole number >= 3, got 2"),
        (lambda: modular.split(7, 0.0, 0), "fraction"),
        (lambda: modular.split(7, 1.0, 0), "fraction"),
        (lambda: modular.split(7, 0.01, 0), "at least 1 of 49 pairs"),
        (lambda: modular.split(7, float("nan"), 0), "fraction"),
        (lambda: modular.triples(3, 28, 0), "count"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
