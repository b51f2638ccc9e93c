"""Clock and pizza: the definitions, and the published networks' published numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import io
from jaxcompress.data import modular
from jaxcompress.models import ModelConfig, create
from jaxcompress.narrow import symmetry
from jaxcompress.narrow.addition import network
from jaxcompress.narrow.reading import reading

P = 7


def test_distance_irrelevance_by_loops():
    logits = np.random.default_rng(0).standard_normal((P * P, P + 1)).astype(np.float32)
    grid = np.zeros((P, P))
    for a in range(P):
        for b in range(P):
            grid[(a + b) % P, (a - b) % P] = logits[a * P + b, (a + b) % P]
    expected = np.mean([grid[:, d].std() for d in range(P)]) / grid.std()
    np.testing.assert_allclose(symmetry.distance_irrelevance(logits, P), expected, rtol=1e-5)


def test_gradient_symmetry_by_differences():
    model = create(network(P, width=8, heads=2), key=jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf * 3, model.params)
    model = model.replace(params=params)
    tokens, c, step = np.array([[2, 5, P]]), 4, 1e-2
    resid = model.apply(params, tokens, taps=("resid",)).taps["resid"][0]

    def logit(stream):
        return float(model.resume(params, stream, 0).logits[0, -1, c])

    slopes = np.zeros((2, 8))
    for place, unit in np.ndindex(2, 8):
        moved = [logit(resid.at[0, place, unit].add(sign * step)) for sign in (1, -1)]
        slopes[place, unit] = (moved[0] - moved[1]) / (2 * step)
    expected = slopes[0] @ slopes[1] / np.linalg.norm(slopes[0]) / np.linalg.norm(slopes[1])
    found = symmetry.gradient_symmetry(model, tokens, np.array([c]))
    np.testing.assert_allclose(found, [expected], atol=5e-3)


def test_what_treats_both_inputs_alike_has_symmetry_one():
    """Uniform attention without positions adds a and b; the last position's own path is cut."""
    config = ModelConfig(
        family="research", layers=1, heads=1, kv_heads=1, head_dim=8, width=8, neurons=16,
        vocab=P + 1, context=3, activation="relu", norm="none", final_norm=False, causal=False,
        positions="none", tied=False, attention_coefficient=0.0,
    )  # fmt: skip
    model = create(config, key=jax.random.key(1))
    found = symmetry.gradient_symmetry(model, np.array([[1, 4, P], [2, 2, P]]), np.array([3, 0]))
    np.testing.assert_allclose(found, 1.0, atol=1e-5)


def test_circularity_of_circles_and_noise():
    angle = 2 * np.pi * np.outer(np.arange(P), [1, 2]) / P
    circles = np.concatenate([3 * np.cos(angle), 3 * np.sin(angle)], axis=1)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    # The two circles have different sizes, or principal components could mix them.
    sized = circles * [1, 2, 1, 2]
    np.testing.assert_allclose(symmetry.circularity(jnp.asarray(sized @ rotation)), 1, atol=1e-4)
    noise = np.random.default_rng(1).standard_normal((P, 6)).astype(np.float32)
    assert symmetry.circularity(noise) < 0.9


@pytest.mark.parametrize(
    ("name", "coefficient", "gradient", "distance", "circle", "algorithm"),
    [
        ("p99zdpze5l", 0.0, 0.9937, 0.1717, 0.9978, "pizza"),
        ("l8k1hzciux", 1.0, 0.3336, 0.8483, 0.9989, "clock"),
    ],
)
def test_published_networks(shared_data, name, coefficient, gradient, distance, circle, algorithm):
    model = io.from_transformer_lens(
        np.load(shared_data / "clock_pizza" / f"{name}.npz"),
        layout="grokking", causal=False, attention_coefficient=coefficient,
    )  # fmt: skip
    table, triples = modular.table(59, equals=False), modular.triples(59, 100, 42)
    logits = model.apply(model.params, table.tokens).logits[:, -1]
    irrelevance = symmetry.distance_irrelevance(logits, 59)
    similar = symmetry.gradient_symmetry(model, triples[:, :2], triples[:, 2]).mean()
    np.testing.assert_allclose(irrelevance, distance, atol=6e-5)
    np.testing.assert_allclose(similar, gradient, atol=6e-5)
    found = symmetry.circularity(model.params["embed"]["tokens"])
    np.testing.assert_allclose(found, circle, atol=6e-5)
    assert symmetry.algorithm(float(similar), float(irrelevance)) == algorithm


@pytest.mark.parametrize(
    ("seed", "keys", "clusters"),
    [(0, [1, 8, 15, 18, 56], [103, 72, 149, 117, 71]), (1, [1, 30, 38, 49], [137, 178, 75, 122])],
)
def test_published_additions(shared_data, seed, keys, clusters):
    """Key frequencies carry the answer; without them nothing is left. Clusters of all neurons."""
    model = io.from_transformer_lens(np.load(shared_data / "modadd113" / f"seed{seed}.npz"))
    found = reading(model.apply, model.params, modular.table(113))
    assert (np.flatnonzero(found["keys"]) + 1).tolist() == keys
    assert found["restricted_loss"] <= found["loss"] < 0.03
    assert found["excluded_loss"] > 8 and found["accuracy"] >= 0.999
    assert (found["excluded_each"][np.array(keys) - 1] > 2 * found["loss"]).all()
    others = np.delete(found["excluded_each"], np.array(keys) - 1)
    assert (others < 3 * found["loss"]).all()
    biggest = np.bincount(found["neurons"].argmax(1), minlength=56)
    np.testing.assert_allclose(biggest[np.array(keys) - 1], clusters, atol=2)
    assert sum(clusters) == 512
    assert found["neurons"].max(1).mean() > 0.85


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symmetry.distance_irrelevance(np.ones((16, 4)), 4), "p: expected an odd modulus"),
        (lambda: symmetry.distance_irrelevance(np.ones((9, 5)), 5), "logits"),
        (lambda: symmetry.circularity(np.ones((5, 3)), 4), "components"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
