"""Members in one vmap train as they would alone, whatever the devices; resumed runs are bitwise."""

from __future__ import annotations

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress.data.parity import compositional
from jaxcompress.io import checkpoint
from jaxcompress.models import MLPConfig
from jaxcompress.narrow import skills
from jaxcompress.train import parity as lab
from jaxcompress.train import population

COUNT, TRACES = 8, []


def loss(params, key, hyper):
    """Least squares on data drawn from the key; a mask makes the network narrower."""
    TRACES.append(1)
    x = jax.random.normal(key, (5, 3))
    hidden = jnp.tanh(x @ params["up"]) * hyper["mask"][None]
    error = hidden @ params["down"] - jnp.sin(x.sum(axis=1))
    return (error**2).mean(), {"size": jnp.abs(params["up"]).mean()}


def measure(params, key, hyper):
    return {"noise": jax.random.normal(key, (2,)), "first": params["down"][0]}


def optimizer(hyper):
    return optax.adam(hyper["rate"])


def members(count=COUNT):
    keys = jax.random.split(jax.random.key(0), count)
    draw = jax.vmap(
        lambda key: {"up": jax.random.normal(key, (3, 4)), "down": jax.random.normal(key, (4,))}
    )
    rates = jnp.linspace(0.001, 0.1, count)
    mask = (jnp.arange(4)[None] <= (jnp.arange(count) % 4)[:, None]).astype(jnp.float32)
    return keys, draw(keys), {"rate": rates, "mask": mask}


def train(rows=slice(None), steps=12, **options):
    keys, params, hyper = members()
    params, hyper = jax.tree.map(lambda leaf: leaf[rows], (params, hyper))
    options = {"every": 4, "measure": measure, "progress": False, "hyper": hyper} | options
    return population.train(loss, params, optimizer, keys=keys[rows], steps=steps, **options)


@pytest.fixture(scope="module")
def whole():
    return train()


def assert_close(found, expected, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), found, expected)


def test_members_are_what_a_loop_trains(whole):
    """Each member by itself in plain Python: the same parameters, losses and measurements."""
    keys, params, hyper = members()
    final, history = whole
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for i in (0, 5):
        w, h = jax.tree.map(lambda leaf, i=i: leaf[i], (params, hyper))
        tool, losses = optimizer(h), []
        state = tool.init(w)
        for step in range(12):
            (value, _), slope = gradient(w, jax.random.fold_in(keys[i], step), h)
            updates, state = tool.update(slope, state, w)
            w, losses = optax.apply_updates(w, updates), [*losses, float(value)]
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], final), w)
        assert_close(history["loss"][:, i], np.reshape(losses, (3, 4)).mean(axis=1))
        assert_close(history["first"][-1, i], w["down"][0])
    assert history["step"].tolist() == [4, 8, 12]
    assert history["noise"].shape == (3, COUNT, 2)
    assert len(np.unique(history["noise"])) == 3 * COUNT * 2


def test_masked_neurons_stay(whole):
    _, params, hyper = members()
    away = np.asarray(hyper["mask"]) == 0
    np.testing.assert_array_equal(whole[0]["down"][away], params["down"][away])
    assert (np.asarray(whole[0]["down"])[~away] != np.asarray(params["down"])[~away]).all()


def test_devices_and_groups_change_nothing(whole):
    assert len(whole[0]["up"].sharding.device_set) == 8
    alone, history = train(devices=jax.devices()[:1])
    assert len(alone["up"].sharding.device_set) == 1
    assert_close((alone, history), whole)
    assert_close(train(devices=jax.devices()[:2], together=2), whole)
    few, _ = train(slice(0, 6))
    assert len(few["up"].sharding.device_set) == 6
    assert_close(few, jax.tree.map(lambda leaf: leaf[:6], whole[0]))


def test_parts(whole):
    """Means over calls with keys of their own, on one device or spread over eight."""
    keys, params, hyper = members()
    one, history = train(slice(3, 4), parts=8, steps=1, every=1, measure=None)
    assert len(one["up"].sharding.device_set) == 8
    w, h = jax.tree.map(lambda leaf: leaf[3], (params, hyper))
    key = jax.random.fold_in(keys[3], 0)
    losses = [loss(w, jax.random.fold_in(key, i), h)[0] for i in range(8)]
    np.testing.assert_allclose(history["loss"][0, 0], np.mean(losses), rtol=1e-5)
    few = train(slice(2, 4), parts=4)  # two members times four parts
    assert len(few[0]["up"].sharding.device_set) == 8
    assert_close(few, train(slice(2, 4), parts=4, devices=jax.devices()[:1]), 1e-5)


def test_measurements_draw_with_keys_of_their_own():
    """No part of any step has the key of a measurement."""
    keys, _, _ = members()

    def seen(params, key, hyper):
        return {"key": jax.random.key_data(key)}

    found = train(steps=4, every=1, measure=seen)[1]["key"][:, 0].tolist()
    steps = [jax.random.fold_in(keys[0], step) for step in range(8)]
    parts = [jax.random.fold_in(key, part) for key in steps for part in range(8)]
    drawn = [jax.random.key_data(key).tolist() for key in steps + parts]
    assert not [key for key in found if key in drawn]


def test_one_program_for_all_chunks():
    train(steps=4, every=2)
    before = len(TRACES)
    train(steps=40, every=2)
    assert len(TRACES) == before


def test_resumed_to_the_bit(tmp_path, whole):
    train(steps=8, checkpoints=tmp_path, save_every=8)
    assert checkpoint.latest(tmp_path) == 8
    params, history = train(checkpoints=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, (params, history), whole)
    again, same = train(checkpoints=tmp_path)  # nothing is left to do
    jax.tree.map(np.testing.assert_array_equal, (again, same), whole)


def test_networks_of_one_hidden_layer_are_resumed(tmp_path):
    """Their kernels between hidden layers have no element."""
    parity, keys = compositional(4, 2, 1, [[0], [1]]), jax.random.split(jax.random.key(0), 2)

    def run(steps, checkpoints=None):
        return lab.train(
            parity, MLPConfig(parity.inputs, 4, 2), keys=keys, steps=steps, batch=4, every=2,
            checkpoints=checkpoints, progress=False,
        )  # fmt: skip

    run(4, tmp_path)
    assert checkpoint.latest(tmp_path) == 4
    jax.tree.map(np.testing.assert_array_equal, run(6, tmp_path), run(6))


def test_checkpoints_of_another_population_are_refused(tmp_path):
    train(steps=4, checkpoints=tmp_path)
    _, _, hyper = members()
    other = hyper | {"rate": 2 * hyper["rate"]}
    with pytest.raises(ValueError, match="expected a checkpoint of this run, got one with another"):
        train(steps=8, checkpoints=tmp_path, hyper=other)
    with pytest.raises(ValueError, match="one with another every"):
        train(steps=8, checkpoints=tmp_path, every=2)
    with pytest.raises(ValueError, match="steps: expected at least 4, those of .*/4, got 0"):
        train(steps=0, checkpoints=tmp_path)


def test_parity_checkpoints_of_other_settings_are_refused(tmp_path):
    """Nothing of these is in the start, the keys or `hyper`, and all change the numbers."""
    parity, keys = compositional(4, 2, 1, [[0], [1]]), jax.random.split(jax.random.key(0), 2)

    def run(tasks=parity, **changes):
        options = {"batch": 4, "steps": 2, "every": 2, "checkpoints": tmp_path, "progress": False}
        hyper = {"penalty": jnp.ones(2)}
        shape = MLPConfig(6, 4, 2)
        return lab.train(tasks, shape, keys=keys, hyper=hyper, **options | changes)

    run()
    for changes, name in (
        ({"batch": 8}, "batch"),
        ({"eps": 1e-8}, "eps"),
        ({"stratified": False}, "stratified"),
        ({"tasks": compositional(4, 2, 1, [[1], [0]])}, "parity"),
        ({"penalty": skills.lasso}, "penalty"),
    ):
        with pytest.raises(ValueError, match=f"got one with another {name}. Choose"):
            run(**changes)


def test_sigterm_saves(tmp_path, whole, monkeypatch):
    """A signal that arrives during the first chunk is obeyed after it."""
    chunk = population._chunk

    def interrupted(*arguments, **options):
        if not isinstance(arguments[-1], jax.core.Tracer):
            signal.raise_signal(signal.SIGTERM)
        return chunk(*arguments, **options)

    monkeypatch.setattr(population, "_chunk", interrupted)
    with pytest.raises(SystemExit) as exit_:
        train(checkpoints=tmp_path)
    monkeypatch.undo()
    assert exit_.value.code == 0 and checkpoint.latest(tmp_path) == 4
    jax.tree.map(np.testing.assert_array_equal, train(checkpoints=tmp_path), whole)


def test_grid():
    rows = population.grid(width=[8, 16, 32], seed=range(2))
    assert rows["width"].tolist() == [8, 8, 16, 16, 32, 32]
    assert rows["seed"].tolist() == [0, 1, 0, 1, 0, 1]


def test_bad_input(tmp_path):
    keys, params, hyper = members()

    def call(**changes):
        arguments = {"loss": loss, "params": params, "optimizer": optimizer, "keys": keys}
        arguments |= {"hyper": hyper, "steps": 4, "every": 2, "progress": False} | changes
        return population.train(**arguments)

    with pytest.raises(ValueError, match=r"steps: expected a multiple of every \(3\), got 4"):
        call(every=3)
    with pytest.raises(ValueError, match=r"keys: expected typed PRNG keys of shape \(member,\)"):
        call(keys=jax.random.key(0))
    with pytest.raises(ValueError, match=r"hyper\['rate'\]: expected a leading axis of 8 members"):
        call(hyper=hyper | {"rate": 0.1})
    with pytest.raises(
        ValueError, match="devices: expected a number that divides 8 members times 1"
    ):
        call(devices=jax.devices()[:3])
    with pytest.raises(ValueError, match="save_every: expected a multiple of every"):
        call(checkpoints=tmp_path, save_every=3)
    with pytest.raises(ValueError, match="measure: expected names that the loss does not use"):
        call(measure=lambda params, key, hyper: {"loss": params["down"]})
