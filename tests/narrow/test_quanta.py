"""Gradients of single tokens, their cosines by blocks, and clusters of a known truth."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tree
from jaxcompress.models import create
from jaxcompress.narrow import clustering, contexts, quanta, texts
from tests import families

CONFIG = families.config("gpt2")
MODEL = create(CONFIG, key=jax.random.key(0))
TOKENS = np.asarray(jax.random.randint(jax.random.key(1), (5, 5), 0, CONFIG.vocab))
PLACES = np.array([1, 2, 3, 4, 4])


def flat_gradient(row, place):
    """By `jax.grad` of the whole loss with respect to all parameters, then left out by name."""

    def loss(params):
        logits = MODEL.apply(params, row[None]).logits[0, place - 1]
        return -jax.nn.log_softmax(logits)[row[place]]

    found = tree.paths(jax.grad(loss)(MODEL.params))
    kept = [v for k, v in found.items() if not ("embed" in k or "head" in k or "norm" in k)]
    flat = np.concatenate([np.asarray(leaf).ravel() for leaf in kept])
    return flat / np.linalg.norm(flat)


def test_gradients_are_those_of_single_tokens():
    found = quanta.gradients(MODEL.apply, MODEL.params, TOKENS, PLACES)
    expected = np.stack([flat_gradient(r, p) for r, p in zip(TOKENS, PLACES, strict=True)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("memory", [0, 10**9])
def test_blocks_are_the_whole(memory):
    unit = np.asarray(quanta.gradients(MODEL.apply, MODEL.params, TOKENS, PLACES))
    found = quanta.cosines(
        MODEL.apply, MODEL.params, TOKENS, PLACES, block=2, memory=memory, progress=False
    )
    np.testing.assert_allclose(found, unit @ unit.T, atol=1e-5)
    np.testing.assert_array_equal(found, found.T)


def test_losses_of_tokens():
    losses = quanta.token_losses(MODEL.apply, MODEL.params, TOKENS, chunk=2)
    logits = np.asarray(jax.nn.log_softmax(MODEL.apply(MODEL.params, TOKENS).logits))
    expected = -np.take_along_axis(logits[:, :-1], TOKENS[:, 1:, None], 2)[..., 0]
    np.testing.assert_allclose(losses[:, 1:], expected, atol=1e-5)
    assert np.isinf(losses[:, 0]).all()


def test_clusters_of_a_known_truth():
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((20, 3)))[0].T
    truth = np.repeat([0, 1, 2], [12, 9, 6])[rng.permutation(27)]
    points = centres[truth] + 0.1 * rng.standard_normal((27, 20))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels = clustering.clusters(clustering.angular(points @ points.T), 3)
    assert clustering.agreement(labels, truth) == (1.0, 1.0)
    assert np.bincount(labels).tolist() == [12, 9, 6]
    np.testing.assert_array_equal(
        labels, clustering.clusters(clustering.angular(points @ points.T), 3)
    )


def test_agreement_is_corrected_for_chance():
    truth = np.repeat([0, 1], 50)
    assert clustering.agreement(np.zeros(100, int), truth) == (0.5, 0.0)
    indices = [
        clustering.agreement(np.random.default_rng(i).permutation(truth), truth).adjusted_rand
        for i in range(50)
    ]
    assert abs(np.mean(indices)) < 0.02


def test_chosen_tokens_are_well_predicted_and_new():
    rows = np.array([[1, 2, 3, 1, 2, 3], [4, 5, 6, 5, 5, 5]])
    given = texts.Texts(rows, np.ones(rows.shape, bool), ["a", "b"])

    class Output:
        def __init__(self, tokens):
            sure = 9.0 * jax.nn.one_hot(tokens, 8)
            # The logits at a position are for the next token; the token 6 is never expected.
            self.logits = jnp.where(jnp.arange(8) == 6, -9.0, jnp.roll(sure, -1, axis=1))

    def apply(params, tokens):
        return Output(tokens)

    found = contexts.well_predicted(apply, {}, given, count=99)
    places = {name: set() for name in "ab"}
    for name, place in zip(found.families, found.places.tolist(), strict=True):
        places[name].add(place)
    assert places == {"a": {1, 2, 3, 4}, "b": {1, 3, 4, 5}}
    kept = contexts.well_predicted(apply, {}, given, count=99, repeats=True)
    assert len(kept.places) == len(found.places) + 1
    few = contexts.well_predicted(apply, {}, given, count=4)
    assert few.families == ["a", "a", "b", "b"] and few.rows.shape == (4, 6)


def test_stored_rows(tmp_path):
    np.savez(tmp_path / "rows.npz", tokens=np.arange(12).reshape(3, 4), lengths=[4, 2, 1])
    found = texts.stored(tmp_path / "rows.npz", context=3)
    np.testing.assert_array_equal(found.rows[1], [4, 5, 6])
    np.testing.assert_array_equal(found.wanted.sum(1), [3, 2, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clustering.clusters(np.eye(3), 4), "count"),
        (lambda: clustering.clusters(-np.eye(3), 2), "similarity: expected numbers at least 0"),
        (lambda: clustering.clusters(np.ones((2, 3)), 1), "similarity"),
        (lambda: clustering.agreement([0, 1], [0]), "truth"),
        (lambda: quanta.cosines(MODEL.apply, {}, TOKENS, PLACES + 1), "places: .* in \\[1, 4\\]"),
        (lambda: quanta.gradients(MODEL.apply, {"embed": jnp.ones(2)}, TOKENS, PLACES), "params"),
        (
            lambda: contexts.well_predicted(
                MODEL.apply, MODEL.params,
                texts.Texts(TOKENS, np.ones((5, 5), bool), [""] * 5), count=3, limit=1e-9,
            ),
            "limit: .* none of the text below 1e-09",
        ),
    ],
)  # fmt: skip
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
