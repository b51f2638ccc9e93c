"""Matching against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxcompress.align import matching


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
def test_one_to_one_is_the_best_of_all_pairings(shape: tuple[int, int]):
    similarity = np.random.default_rng(0).random(shape)
    rows, columns = matching.one_to_one(similarity)
    assert len(rows) == min(shape)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)
    assert (np.diff(rows) > 0).all()
    small = similarity if shape[0] <= shape[1] else similarity.T
    totals = [
        small[np.arange(len(small)), list(choice)].sum()
        for choice in itertools.permutations(range(small.shape[1]), len(small))
    ]
    assert similarity[rows, columns].sum() == pytest.approx(max(totals), abs=1e-6)


def test_best_may_repeat_and_takes_the_first_of_ties():
    assert matching.best([[0.5, 0.5], [0.1, 0.9], [0.2, 0.8]]).tolist() == [0, 1, 1]


def test_shuffled_uses_every_column_before_repeating():
    rng = np.random.default_rng(0)
    drawn = [matching.shuffled(5, 3, rng) for _ in range(50)]
    assert all(set(d[:3].tolist()) == {0, 1, 2} and len(d) == 5 for d in drawn)
    assert len({tuple(d) for d in drawn}) > 10
