"""Eight fake devices: the same losses as one, with parameters and rows where they were asked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxcompress import train
from tests.train import tiny

pytestmark = pytest.mark.slow

STEPS = 6


def fit(mesh=None, step=tiny.STEP, checkpoints=None, steps=STEPS, batch=8, noise=0.1):
    """The last state and the loss of every step.

    Losses are compared, not parameters: the biases of the keys change nothing, so that Adam divides
    a gradient of rounding errors by its own size.
    """
    losses = []
    state = train.fit(
        tiny.start(),
        step,
        tiny.data(noise),
        steps,
        batch=batch,
        chunk=1,
        every=3,
        mesh=mesh,
        checkpoints=checkpoints,
        loggers=[lambda name, step, row: losses.append(row["loss"])],
        progress=False,
    )
    return state, losses


@pytest.fixture(scope="module")
def alone():
    return fit()


@pytest.mark.parametrize("sizes", [(8, 1), (2, 4)])
def test_losses_are_those_of_one_device(alone, sizes):
    mesh = train.make_mesh(*sizes)
    state, losses = fit(mesh)
    np.testing.assert_allclose(losses, alone[1], atol=1e-5)
    assert losses[0] != losses[-1]
    placed = jax.tree.map(lambda leaf: leaf.sharding, state)
    same = jax.tree.map(
        lambda leaf, a, b: a.is_equivalent_to(b, leaf.ndim),
        state,
        placed,
        train.shardings(state, mesh),
    )
    assert all(jax.tree.leaves(same))


def test_parts_of_parameters(alone):
    """Each device holds a quarter of a kernel and of its moments."""
    mesh = train.make_mesh(2, 4)
    placed = train.shardings(alone[0], mesh)
    up = placed.params["blocks"]["mlp"]["up"]["kernel"]
    assert up.spec == P(None, None, "model")
    assert placed.opt_state[1][0].mu["blocks"]["mlp"]["up"]["kernel"] == up
    assert placed.params["embed"]["tokens"].spec == P("model")  # 12 tokens; width 8
    assert placed.step.spec == placed.key.spec == P()
    kernel = jax.device_put(alone[0].params["blocks"]["mlp"]["up"]["kernel"], up)
    assert {part.data.shape for part in kernel.addressable_shards} == {(2, 8, 4)}


def test_what_cannot_be_divided_is_whole():
    mesh = train.make_mesh(1, 4)
    placed = train.shardings({"a": jnp.ones((3, 6)), "b": jnp.ones((4, 4, 6))}, mesh)
    assert placed["a"].spec == P() and placed["b"].spec == P(None, "model")


def test_accumulation_on_a_mesh():
    step = train.make_step(tiny.loss, tiny.OPTIMIZER, accumulate=2)
    _, losses = fit(train.make_mesh(4), step, noise=0.0)
    _, expected = fit(noise=0.0)
    np.testing.assert_allclose(losses, expected, atol=1e-5)


def test_a_sharded_run_is_resumed_to_the_bit(tmp_path):
    mesh = train.make_mesh(2, 4)
    whole, _ = fit(mesh)
    fit(mesh, checkpoints=tmp_path, steps=3)
    resumed, losses = fit(mesh, checkpoints=tmp_path)
    assert len(losses) == 3
    for a, b in zip(jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True):
        assert a.sharding == b.sharding
        np.testing.assert_array_equal(a, b)


def test_wrong_meshes():
    with pytest.raises(ValueError, match=r"data \* model: expected at most 8 devices, got 16"):
        train.make_mesh(8, 2)
    with pytest.raises(ValueError, match=r"batch: expected a multiple of .*'data' \(8\), got 6"):
        fit(train.make_mesh(8), batch=6)
    other = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match="mesh: expected axes 'data' and 'model'"):
        fit(other)
    explicit = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with pytest.raises(ValueError, match="mesh: expected axes of AxisType.Auto"):
        fit(explicit)
