"""Pruned networks are those of the nested gates; recovery trains only what is left."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.data import parity as data
from jaxcompress.data.curriculum import curriculum
from jaxcompress.models import MLPConfig
from jaxcompress.narrow import skills
from jaxcompress.train import parity as lab
from jaxcompress.train import population, pulling
from jaxcompress.train.two_skills import Networks, TwoSkills

FAMILY = data.compositional(4, 2, 1, [[0], [1]])
SHAPE = MLPConfig(FAMILY.inputs, 8, 3)
KEYS = jax.random.split(jax.random.key(0), 2)
KEPT = (2, 6, 16)
TWO = TwoSkills(bits=4, atoms=2, size=1, widths=(8,), kept=(4, 16), steps=100, tuning=100)


def train(**options):
    options = {"keys": KEYS, "batch": 40, "every": 50, "rate": 0.01, "progress": False} | options
    return lab.train(FAMILY, SHAPE, **options)


@pytest.fixture(scope="module")
def trained():
    """The second network has half the width."""
    params, gates = lab.initial(SHAPE, KEYS, [8, 4])
    params, history = train(params=params, hyper={"gates": gates}, steps=300, test=100)
    return params, gates, history


@pytest.fixture(scope="module")
def pulled(trained):
    return pulling.pull(
        FAMILY, SHAPE, *trained[:2], kept=KEPT, task=0, measured=(0, 1), criterion="ablation",
        keys=KEYS, scored=100, test=100, recovery=50, batch=100, rate=0.01, progress=False,
    )  # fmt: skip


def test_networks_learn_and_keep_their_width(trained):
    params, gates, history = trained
    assert (history["accuracy"][-1, 0] > 0.98).all()
    start, _ = lab.initial(SHAPE, KEYS, [8, 4])
    same = params["first"]["kernel"][1] == start["first"]["kernel"][1]
    assert same[:, 4:].all() and not same[:, :4].all(axis=0).any()
    assert gates.sum(axis=(1, 2)).tolist() == [16, 8]


def test_gates_are_nested_and_inside_the_network(trained, pulled):
    gates = pulled["gates"]
    assert gates.sum(axis=(2, 3)).tolist() == [[2, 6, 16], [2, 6, 8]]
    assert (np.diff(gates, axis=1) >= 0).all() and (gates <= np.asarray(trained[1])[:, None]).all()


def test_accuracies(trained, pulled):
    """Unpruned as trained; two neurons are not enough; recovery helps the skill it trains."""
    assert pulled["pruned"].shape == pulled["recovered"].shape == (2, 3, 2)
    np.testing.assert_allclose(pulled["pruned"][:, 2], trained[2]["accuracy"][-1], atol=0.15)
    assert (pulled["pruned"][:, 0].min(axis=1) < 0.9).all()
    # Three in four neurons of the first network are gone: what is left can learn the other skill.
    assert pulled["recovered"][0, 1, 1] > pulled["pruned"][0, 1, 1] + 0.02
    rows = pulling.as_rows(pulled, {"seed": [3, 4]}, names=("a", "b"))
    assert len(rows) == 24
    wanted = {"stage": "recovered", "seed": 4, "kept": 6, "skill": "b"}
    [row] = [row for row in rows if wanted.items() <= row.items()]
    assert row["accuracy"] == pytest.approx(pulled["recovered"][1, 1, 1])


def test_locality_of_disjoint_skills():
    """Two halves of a network that each know one bit share no neuron."""
    params = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape[1:])), lab.initial(SHAPE, KEYS)[0])
    # Bit i is on if its control bit is: relu(bit + control - 1), carried to the output.
    first, hidden, last = (params[name]["kernel"] for name in ("first", "hidden", "last"))
    for i in (0, 1):
        first = first.at[0, [i, 2 + i], i].set(1.0)
        hidden = hidden.at[0, 0, i, i].set(1.0)
        last = last.at[0, i, 1].set(8.0)
    params["first"] = {"kernel": first, "bias": params["first"]["bias"].at[0, :2].set(-1.0)}
    params["hidden"]["kernel"] = hidden
    params["last"] = {"kernel": last, "bias": jnp.array([[4.0, 0.0]])}
    gates, options = jnp.ones((1, 2, 8)), {"keys": KEYS[:1], "scored": 100, "test": 100}
    [found] = pulling.locality(FAMILY, SHAPE, params, gates, tasks=(0, 1), **options)
    assert found["sizes"] == (2, 2) and found["overlap"] == 0 and found["chance"] > 0
    none = jax.tree.map(jnp.zeros_like, params)
    [found] = pulling.locality(FAMILY, SHAPE, none, gates, tasks=(0, 1), **options)
    assert np.isnan(found["overlap"])


def test_a_curriculum_decides_what_is_shown():
    plan = curriculum("by_frequency", [1, 1], steps=100, frequencies=[1.0, 3.0])
    hyper = {"plan": jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), plan)}
    _, history = train(hyper=hyper, steps=100)
    np.testing.assert_allclose(history["shown"][0], [[0, 1]] * 2)
    np.testing.assert_allclose(history["shown"][1], [[0.25, 0.75]] * 2, atol=0.02)


def test_a_finite_data_set_is_learned_by_heart():
    hyper = {"examples": jnp.array([6, 100000]), "data": KEYS}
    family = data.compositional(16, 2, 8, [[0], [1]])
    shape = MLPConfig(family.inputs, 32, 2)
    _, history = lab.train(
        family, shape, keys=KEYS, hyper=hyper, batch=20, every=150, steps=300, rate=0.01, test=200,
        progress=False,
    )  # fmt: skip
    assert history["loss"][-1, 0] < 0.1 < 0.5 < history["loss"][-1, 1]
    assert history["accuracy"][-1, 0].mean() < 0.7


def test_each_member_has_its_rate():
    """A rate of 0 leaves a network as it was; the other learns."""
    params, _ = lab.initial(SHAPE, KEYS)
    hyper = {"rate": np.array([0.0, 0.01], np.float32)}
    after, _ = train(params=params, hyper=hyper, steps=50)
    before, after = params["first"]["kernel"], after["first"]["kernel"]
    np.testing.assert_array_equal(after[0], before[0])
    assert (after[1] != before[1]).any()


def test_one_width_is_tuned_with_a_batch_of_its_own(monkeypatch):
    """On one task as many examples as asked for; on all tasks `batch` of each."""
    seen = []

    def fake(*arguments, keys, hyper, **options):
        seen.append((hyper["gates"].sum(axis=(1, 2)).tolist(), options["batch"], options["eps"]))
        return (None, None)

    monkeypatch.setattr(lab, "train", fake)
    config = TwoSkills(bits=4, atoms=2, size=1, widths=(2, 3, 4), kept=(2, 8), seeds=2, batch=10,
                       tuned_width=3)  # fmt: skip
    for tuning_batch in (None, 7):
        networks = Networks(dataclasses.replace(config, tuning_batch=tuning_batch))
        for task in (0, None):
            networks.tuned("tune", None, skills.lasso, 0.1, task, 1e-5)
    assert seen == [([6, 6], batch, 1e-5) for batch in (40, 40, 7, 40)]
    with pytest.raises(ValueError, match=r"tuned_width: expected one of \(2, 3, 4\), got 5"):
        Networks(dataclasses.replace(config, tuned_width=5))


def test_an_empty_layer_is_told():
    gates = np.zeros((1, 2, 2, 3))
    gates[0, 0, 1, :2], gates[0, 1, :, 0] = 1, 1  # two in the second layer; one in each
    found = {"gates": gates, "pruned": np.ones((1, 2, 1))}
    rows = pulling.as_rows(found, {"seed": [0]}, names=["a"])
    assert [(row["kept"], row["empty"]) for row in rows] == [(2, True), (2, False)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lab.initial(SHAPE, KEYS, [0, 4]), r"widths: expected a whole number in \[1, 8\]"),
        (lambda: lab.initial(SHAPE, KEYS, [8, 16]), "widths: expected a whole number"),
        (lambda: train(steps=50, batch=1), "batch: expected at least one example of each of 2"),
        (lambda: train(steps=50, batch=4, parts=4), "batch: expected at least one example of each"),
        (lambda: train(steps=50, batch=5, parts=2), r"batch: expected a multiple of parts \(2\)"),
        (lambda: train(steps=50, hyper={"rates": KEYS}), "hyper: .* did you mean 'rate'"),
        (lambda: Networks(dataclasses.replace(TWO, tuning=50)), "tuning: expected a multiple"),
        (lambda: Networks(dataclasses.replace(TWO, kept=(1,))), "kept: expected a whole number"),
        (lambda: Networks(dataclasses.replace(TWO, kept=(17,))), "kept: expected a whole number"),
        (lambda: Networks(dataclasses.replace(TWO, widths=(0,))), "widths: expected a whole"),
        (lambda: Networks(dataclasses.replace(TWO, widths=())), "widths: expected at least one"),
        (lambda: Networks(dataclasses.replace(TWO, atoms=1)), "atoms: expected a whole number"),
        (lambda: Networks(dataclasses.replace(TWO, size=3)), "size: expected atoms"),
    ],
)
def test_bad_input_is_refused_before_training(call, message, monkeypatch):
    monkeypatch.setattr(population, "train", None)
    with pytest.raises(ValueError, match=message):
        call()
