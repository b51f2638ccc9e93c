"""What heads look at: attention put in known places, and nothing lost or counted twice."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.align.habits import HABITS, habits, in_common
from jaxcompress.align.profile import profile
from tests import families

#        0  1  2  3  4  5  6  7
ROW = [[9, 1, 2, 3, 4, 1, 2, 5]]


def shares(pairs, tokens=ROW, mask=None):
    """Of a head whose queries look at one key each."""
    pattern = np.zeros((1, 1, 1, len(tokens[0]), len(tokens[0])), np.float32)
    for query, key in pairs:
        pattern[0, 0, 0, query, key] = 1
    found = np.asarray(habits(jnp.asarray(pattern), jnp.array(tokens), mask))[0, 0]
    return {name: float(share) for name, share in zip(HABITS, found, strict=True) if share}


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ((5, 5), "current"), ((5, 4), "previous"), ((4, 5), "next"), ((5, 1), "duplicate"),
        ((1, 5), "duplicate"), ((5, 2), "induction"), ((1, 6), "induction"), ((5, 3), "elsewhere"),
        ((2, 3), "next"),
    ],
)  # fmt: skip
def test_one_look(pair, expected):
    assert shares([pair]) == {expected: 1.0}


def test_the_first_position_and_its_query_are_left_out():
    assert shares([(5, 0), (0, 3)]) == {}
    assert shares([(5, 0), (5, 1), (6, 4), (7, 3)]) == pytest.approx(
        {"duplicate": 1 / 3, "elsewhere": 2 / 3}
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_looked_at(side):
    pad, shift = [[1, 1]], 2 if side == "left" else 0
    tokens = [[*pad[0], *ROW[0]] if side == "left" else [*ROW[0], *pad[0]]]
    mask = np.array([[0] * 2 + [1] * 8]) if side == "left" else np.array([[1] * 8 + [0] * 2])
    looks = [(5, 1), (5, 2), (5, 4), (6, 3)]
    moved = [(query + shift, key + shift) for query, key in looks]
    junk = [(5 + shift, 0 if side == "left" else 9)]
    assert shares([*moved, *junk], tokens, mask) == pytest.approx(shares(looks))


@pytest.mark.parametrize("name", ["gpt2", "bert", "uneven"])
def test_profiles_have_them(name):
    model = families.model(name)
    prompts = families.prompts("left", causal=model.config.causal)
    found = profile(model, prompts, progress=False)
    assert found.roles.shape == (found.heads, len(HABITS))
    np.testing.assert_allclose(found.roles.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.diag(in_common(found.roles, found.roles)), 1, atol=1e-5)


def test_heads_that_look_at_the_first_position_alone_are_alike():
    resting, other = np.zeros((1, 6)), np.eye(6)[:1]
    assert in_common(resting, resting) == 1 and in_common(resting, other) == 0
