"""Labels are the parity of the bits that count; tasks come as often as asked."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.data import parity as data

CODES = [[0], [1], [0, 1]]
FAMILY = data.compositional(40, 2, 18, CODES)  # more than one word, and not a whole one


DRAW = jax.jit(data.sample, static_argnums=0)


def plain(family, batch):
    """Labels by adding up, in NumPy."""
    bits, task = np.asarray(batch.bits), np.asarray(batch.task)
    subsets = [set().union(*(family.subsets[atom] for atom in code)) for code in family.codes]
    return [int(row[sorted(subsets[t])].sum()) % 2 for row, t in zip(bits, task, strict=True)]


@pytest.mark.parametrize("family", [FAMILY, data.multitask(33, 6, 5, seed=1)])
def test_labels(family, key):
    task = data.choose(jnp.full(len(family.codes), 1 / len(family.codes)), 60)
    batch = DRAW(family, key, task)
    assert batch.bits.shape == (60, family.bits) and batch.bits.dtype == jnp.float32
    assert set(np.unique(batch.bits)) == {0.0, 1.0}
    assert batch.label.tolist() == plain(family, batch)


def test_inputs_are_control_bits_and_then_bits(key):
    batch = DRAW(FAMILY, key, jnp.array([2, 0]))
    x = np.asarray(data.inputs(FAMILY, batch))
    np.testing.assert_array_equal(x[:, :2], [[1, 1], [1, 0]])
    np.testing.assert_array_equal(x[:, 2:], batch.bits)
    assert x.shape == (2, FAMILY.inputs)


def test_bits_are_fair_and_independent(key):
    """Means, pair correlations, and a new draw for a new key."""
    batch = DRAW(FAMILY, key, jnp.zeros(20000, jnp.int32))
    signs = 2 * np.asarray(batch.bits) - 1
    assert np.abs(signs.mean(axis=0)).max() < 0.035
    correlation = signs.T @ signs / len(signs) - np.eye(40)
    assert np.abs(correlation).max() < 0.04
    other = DRAW(FAMILY, jax.random.key(1), jnp.zeros(20000, jnp.int32))
    assert abs((other.bits == batch.bits).mean() - 0.5) < 0.01


def test_the_papers_task():
    family = data.compositional(64, 4, 4, [[0], [1], [2], [3], [0, 1, 2, 3]])
    assert family.inputs == 68 and family.difficulty == (4, 4, 4, 4, 16)
    assert family.names == ("0", "1", "2", "3", "0+1+2+3")
    task = data.choose(jnp.full(5, 0.2), 10000)
    assert np.bincount(task).tolist() == [2000] * 5


def test_zipf_frequencies_are_met(key):
    share = data.zipf(6, 1.4)
    np.testing.assert_allclose(share[0] / share[3], 4**1.4, rtol=1e-6)
    exact = np.bincount(data.choose(share, 1000), minlength=6)
    np.testing.assert_allclose(exact, 1000 * share, atol=1)
    drawn = np.bincount(data.choose(share, 100000, key), minlength=6)
    np.testing.assert_allclose(drawn / 100000, share, atol=0.006)


def test_a_fixed_data_set():
    """A row is the same whenever it is asked for; tasks come by their weights; sets differ."""
    read = jax.jit(data.recall, static_argnums=0)
    share, rows = data.zipf(3, 1.0), jnp.arange(4000)
    batch = read(FAMILY, jax.random.key(0), rows, share)
    some = read(FAMILY, jax.random.key(0), jnp.array([7, 3999]), share)
    np.testing.assert_array_equal(some.bits, batch.bits[jnp.array([7, 3999])])
    assert some.task.tolist() == [batch.task[7], batch.task[3999]]
    assert batch.label.tolist() == plain(FAMILY, batch)
    assert len(np.unique(batch.bits, axis=0)) == 4000
    found = np.bincount(batch.task, minlength=3) / 4000
    np.testing.assert_allclose(found, share, atol=0.03)
    assert (
        abs((read(FAMILY, jax.random.key(1), rows, share).bits == batch.bits).mean() - 0.5) < 0.01
    )


def test_closed_tasks_are_not_chosen(key):
    for weights in itertools.permutations([0.0, 0.5, 0.5]):
        for source in (None, key):
            found = np.bincount(data.choose(jnp.array(weights), 200, source), minlength=3)
            assert found[weights.index(0.0)] == 0 and found.sum() == 200


def test_subsets_of_many_tasks():
    family = data.multitask(12, 40, 3, seed=3)
    assert len(set(family.subsets)) == 40
    assert all(len(set(s)) == 3 and max(s) < 12 for s in family.subsets)
    assert data.multitask(12, 40, 3, seed=3) == family != data.multitask(12, 40, 3, seed=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.compositional(8, 3, 3, [[0]]), "size: expected atoms .* 8 bits, got 3"),
        (lambda: data.compositional(8, 2, 3, [[0, 2]]), r"codes\[0\]: expected different atoms"),
        (lambda: data.compositional(8, 2, 3, [[0], []]), r"codes\[1\]: expected different atoms"),
        (lambda: data.compositional(8, 2, 3, [[1, 1]]), r"codes\[0\]: expected different atoms"),
        (lambda: data.compositional(8, 2, 3, []), "codes: expected at least one"),
        (lambda: data.multitask(4, 1, 5), r"size: expected a whole number in \[1, 4\], got 5"),
        (lambda: data.multitask(4, 4, 2), "tasks: expected at most half the subsets"),
        (lambda: data.zipf(0, 1.0), "count: expected a whole number >= 1"),
    ],
)
def test_impossible_tasks(make, message):
    with pytest.raises(ValueError, match=message):
        make()
