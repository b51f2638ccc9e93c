"""Layer maps: the published ones, and losses over them against a loop."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.distill import features, mapping


@pytest.mark.parametrize(
    ("sizes", "teachers"),
    [
        *(((3, 12), [0, 6, 11]), ((4, 12), [0, 4, 7, 11]), ((3, 3), [0, 1, 2]), ((1, 5), [4])),
        *(((4, 2), [0, 0, 1, 1]), ((2, 6), [0, 5]), ((6, 1), [0] * 6)),
    ],
)
def test_uniform(sizes, teachers):
    assert mapping.uniform(*sizes) == list(enumerate(teachers))


@pytest.mark.parametrize("sizes", [(15, 30), (19, 76), (23, 16), (27, 16)])
def test_uniform_rounds_the_fraction(sizes):
    """Not a rounded step times i, which is beside some halves."""
    students, teachers = sizes
    fractions = [Fraction(i * (teachers - 1), students - 1) for i in range(students)]
    assert mapping.uniform(*sizes) == [(i, round(place)) for i, place in enumerate(fractions)]


@pytest.mark.parametrize(
    ("sizes", "teachers"),
    [
        ((4, 12), [2, 5, 8, 11]),  # TinyBERT: layer m learns from 3 m, counted from 1
        ((6, 12), [1, 3, 5, 7, 9, 11]),
        ((3, 3), [0, 1, 2]),
        ((1, 5), [4]),
        ((4, 2), [0, 0, 1, 1]),
        ((3, 4), [1, 2, 3]),
    ],
)
def test_strided(sizes, teachers):
    assert mapping.strided(*sizes) == list(enumerate(teachers))


@pytest.mark.parametrize("rule", [mapping.uniform, mapping.strided])
@pytest.mark.parametrize("students", range(1, 8))
def test_maps_end_at_the_end_and_never_go_back(rule, students):
    for teachers in range(1, 8):
        pairs = rule(students, teachers)
        assert pairs[-1] == (students - 1, teachers - 1)
        chosen = [teacher for _, teacher in pairs]
        assert chosen == sorted(chosen) and chosen[0] >= 0
        assert students > teachers or len(set(chosen)) == students


def test_layerwise_is_the_mean_over_pairs(key):
    student = jax.random.normal(key, (2, 3, 4, 5))
    teacher = jax.random.normal(jax.random.key(1), (4, 3, 4, 6))
    projections = jax.random.normal(jax.random.key(2), (3, 5, 6))
    mask = jnp.ones((3, 4)).at[0, 2:].set(0.0)
    pairs = [(0, 3), (1, 1), (1, 3)]
    loss = jax.jit(mapping.layerwise(features.hidden_mse, pairs))
    value, count = loss(student, teacher, mask, projection=projections)
    kept = np.asarray(mask) > 0
    expected = [
        np.mean((np.asarray(student[i] @ projections[n]) - np.asarray(teacher[j]))[kept] ** 2)
        for n, (i, j) in enumerate(pairs)
    ]
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-4)
    assert count == 10


def test_bad_pairs():
    with pytest.raises(ValueError, match="pairs: expected at least one"):
        mapping.layerwise(features.hidden_mse, [])
    stack = jnp.ones((2, 3, 4))
    for pairs, whose in (([(0, 2)], "teacher"), ([(2, 0)], "student"), ([(0, -1)], "teacher")):
        with pytest.raises(ValueError, match=rf"pairs: expected layers of the {whose} in \[0, 1\]"):
            mapping.layerwise(features.hidden_mse, pairs)(stack, stack)
    for sizes in ((0, 2), (2, 0)):
        with pytest.raises(ValueError, match="_layers: expected a whole number >= 1, got 0"):
            mapping.uniform(*sizes)
