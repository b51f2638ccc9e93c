"""One program for many networks: each is what it would be alone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress import tree
from jaxcompress.data import modular
from jaxcompress.narrow import addition
from jaxcompress.train import population
from jaxcompress.train.addition import Addition, train_addition

pytestmark = pytest.mark.slow

SMALL = Addition(p=7, width=8, heads=2, rate=1e-2, warmup=2, steps=6, every=3)


def test_members_are_runs_of_their_own():
    many = train_addition(
        SMALL, fractions=(0.4, 0.6), weight_decays=(0.5, 1.0), snapshots=True, progress=False
    )
    assert many.members["fraction"].tolist() == [0.4, 0.4, 0.6, 0.6]
    one = train_addition(SMALL, fractions=(0.4,), weight_decays=(1.0,), progress=False)
    for path, leaf in tree.paths(one.params).items():
        np.testing.assert_allclose(tree.paths(many.params)[path][1], leaf[0], atol=1e-5)
    np.testing.assert_allclose(
        many.history["test_loss"][:, 1], one.history["test_loss"][:, 0], rtol=1e-4
    )
    last = jax.tree.map(lambda leaf: leaf[-1], many.snapshots)
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(many.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_are_full_batch_adamw():
    """The same by hand, with the plain log-softmax, which is good enough at the start."""
    found = train_addition(
        SMALL, fractions=(0.5,), weight_decays=(1.0,), seeds=(3,), progress=False
    )
    model, table, chosen = found.model, modular.table(7), modular.split(7, 0.5, 3)
    np.testing.assert_array_equal(found.chosen(0), chosen)
    params = addition.redraw(model.params, jax.random.key(3))
    rates = optax.linear_schedule(0.0, 1e-2, 2)
    matrices = tree.nest({k: not k.endswith("bias") for k in tree.paths(params)})
    rule = optax.adamw(rates, b1=0.9, b2=0.98, weight_decay=1.0, mask=matrices)
    state = rule.init(params)

    def loss(params):
        logits = model.apply(params, table.tokens[chosen]).logits[:, -1]
        picked = jnp.take_along_axis(
            jax.nn.log_softmax(logits), jnp.asarray(table.answers)[chosen][:, None], 1
        )
        return -picked.mean()

    for _ in range(6):
        updates, state = rule.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    for path, leaf in tree.paths(params).items():
        np.testing.assert_allclose(
            tree.paths(found.model.params)[path], leaf, atol=2e-4, err_msg=path
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"config": dataclasses.replace(SMALL, p=6)}, "p: expected an odd modulus, got 6"),
        ({"fractions": (1.0,)}, "fraction"),
        ({"fractions": (0.001,)}, "at least 1 of 49 pairs"),
    ],
)
def test_bad_arguments(values, message, monkeypatch):
    monkeypatch.setattr(population, "train", None)  # refused before any training
    with pytest.raises(ValueError, match=message):
        train_addition(**{"config": SMALL, "progress": False} | values)
