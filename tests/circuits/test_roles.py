"""Patterns that are made by hand have the roles they were made for, and no others."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import io
from jaxcompress.circuits.role_patterns import read_patterns, repeated, without_sink
from jaxcompress.circuits.roles import attended, roles
from jaxcompress.types import Output
from tests import families

pytestmark = pytest.mark.slow

N = 4
SIZE = 1 + 2 * N


def heads() -> dict[str, np.ndarray]:
    """(query, key) patterns on [bos] and two copies of N tokens."""
    places = np.arange(SIZE)
    made = {
        "previous": np.maximum(places - 1, 0),
        "current": places,
        "duplicate": np.where(places > N, places - N, 0),
        "induction": np.where(places > N, places - N + 1, 0),
        "sink": 0 * places,
    }
    return {name: np.eye(SIZE)[keys] for name, keys in made.items()}


def test_hand_made_heads():
    made = heads()
    pattern = np.stack(list(made.values()))[None, None].repeat(3, 1)
    data, bare = read_patterns(pattern, N)
    for i, name in enumerate(made):
        scores = {role: float(data[role][0, i]) for role in made}
        assert scores[name] == 1.0, name
        # The token after the copy of the last token is the first token again, seen from there.
        others = [score for role, score in scores.items() if role != name]
        assert max(others) <= 0.55, (name, scores)
    far = np.asarray(data["distance"][0])
    np.testing.assert_allclose(far[:2], [1, 0])
    np.testing.assert_allclose(far[4], np.mean(np.arange(1, SIZE)))
    assert bare["induction"][0, 3] == 1.0 and bare["previous"][0, 4] == 0.0


def test_without_the_sink_what_is_left_counts():
    half = 0.75 * heads()["sink"] + 0.25 * heads()["induction"]
    data, bare = read_patterns(half[None, None, None], N)
    np.testing.assert_allclose(data["induction"], 0.25)
    np.testing.assert_allclose(bare["induction"], 1.0)
    np.testing.assert_allclose(without_sink(jnp.asarray([[1.0, 0.0]])), 0)


class Fixed:
    """A model whose head 0 looks at places, and head 1 at the earliest even token in sight."""

    def __init__(self):
        self.config = families.config(
            "research", layers=1, heads=2, kv_heads=2, context=SIZE, vocab=12, head="none",
            positions="none", causal=True,
        )  # fmt: skip
        self.params = families.randomized(self.config)
        self.tokenizer = None

    def apply(self, params, tokens, taps=()):
        batch, size = tokens.shape
        sight = jnp.tril(jnp.ones((size, size)))
        places = jnp.broadcast_to(jnp.eye(size), (batch, size, size))
        even = (tokens % 2 == 0)[:, None, :] * sight[None]
        first = jax.nn.one_hot(jnp.where(even.any(-1), even.argmax(-1), 0), size)
        return Output(None, {"pattern": jnp.stack([places, first], axis=1)[None]})


def test_positional_similar_member_and_rare():
    text = np.tile(np.array([[0, 3, 1, 5, 1, 3, 1, 5, 3]]), (4, 1))  # 0 is the rarest
    found = roles(
        Fixed(), key=jax.random.key(0), members=[[2, 4, 6, 8, 10]], text=text, count=40, batch=7,
        vocabulary=list(range(1, 12)),
    )  # fmt: skip
    data = found.data
    np.testing.assert_allclose(data["positional"][0, 0], 1.0)
    assert data["positional"][0, 1] < 0.7
    # The earliest even token is an earlier member for all members but the first.
    assert data["similar_member"][0, 1] > 0.99 and data["similar_member"][0, 0] == 0
    np.testing.assert_allclose(data["rare"][0], [0, 1])
    assert found.best("rare") == (0, 1) and len(found.rows()) == 2
    assert found.weights == {}
    with pytest.raises(ValueError, match="role"):
        found.best("copying")


@pytest.mark.parametrize("name", families.NAMES)
def test_every_family(name):
    model = families.model(name)
    found = roles(model, key=jax.random.key(0), count=3, members=[[1, 2, 3]], batch=2)
    shape = (3, 4)
    assert all(score.shape == shape for score in {**found.data, **found.weights}.values())
    assert {"previous", "induction", "positional", "similar_member"} <= set(found.data)
    causal = model.config.head == "linear"
    assert ("copying" in found.weights) == causal
    assert ("previous" in found.weights) == (model.config.positions == "learned")
    if name == "uneven":
        assert np.isnan(found.weights["copying"][2]).all()
        assert (found.data["previous"][2] == 0).all()


def test_repeated_tokens_and_bad_input():
    tokens, n = repeated(np.random.default_rng(0), 5, range(3, 9), context=13, start=1)
    assert n == 6 and tokens.shape == (5, 13) and (tokens[:, 0] == 1).all()
    np.testing.assert_array_equal(np.sort(tokens[:, 1:7], axis=1), np.tile(np.arange(3, 9), (5, 1)))
    np.testing.assert_array_equal(tokens[:, 1:7], tokens[:, 7:])
    with pytest.raises(ValueError, match="room for repeated tokens"):
        repeated(np.random.default_rng(0), 1, range(9), context=3)
    with pytest.raises(ValueError, match="length"):
        repeated(np.random.default_rng(0), 1, range(9), context=9, length=5)


def test_the_trained_induction_model(shared_data):
    model = io.load(shared_data / "induction")
    found = roles(model, key=jax.random.key(0), start=0, length=5)
    assert found.best("induction") == (1, 0) and found.best("previous") == (0, 0)
    assert found.data["induction"][1, 0] > 0.93 and found.data["induction"][0, 0] < 0.05
    assert found.data["previous"][0, 0] > 0.85
    assert found.weights["previous"][0, 0] > 0.4 > found.weights["previous"][1, 0]
    # The published score: on its own strings, attention to whatever followed an earlier copy.
    lines = (shared_data / "induction" / "induction.txt").read_text().split()[:200]
    text = np.array([[0, *(ord(c) - 96 for c in line)] for line in lines if len(line) == 31])
    after = np.tril(np.ones((32, 32), bool), -1)
    same = text[:, :, None] == np.pad(text, ((0, 0), (1, 0)))[:, None, :-1]
    score = attended(model, text, same & (after | np.eye(32, dtype=bool)), batch=64)
    np.testing.assert_allclose(score[1, 0], 0.974, atol=0.02)
    bare = dataclasses.asdict(found)["no_sink"]["induction"]
    assert bare[1, 0] > found.data["induction"][1, 0]
