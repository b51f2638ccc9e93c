"""Which scores survive: exact counts, ties, groups along the inputs."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.prune import patterns

SHAPE = (2, 6, 4)
SCORES = st.lists(st.integers(-2, 3), min_size=48, max_size=48).map(
    lambda values: np.array(values, np.float32).reshape(SHAPE)
)
SPARSITY = st.floats(0, 1, exclude_max=True)
FEW = hypothesis.settings(max_examples=20)


def lowest(scores, pruned):
    """True for all but the lowest of one axis; of equal ones the later go first."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i], -i))
    return np.isin(np.arange(len(scores)), order[:pruned], invert=True)


def along(scores, axis, pruned):
    return np.apply_along_axis(lambda row: lowest(row, pruned), axis, scores)


@FEW
@hypothesis.given(SCORES, SPARSITY)
def test_per_tensor(scores, sparsity):
    kept = np.asarray(patterns.per_tensor(jnp.array(scores), sparsity))
    expected = along(scores.reshape(2, 24), 1, round(sparsity * 24)).reshape(SHAPE)
    np.testing.assert_array_equal(kept, expected)
    assert ((~kept).sum(axis=(1, 2)) == round(sparsity * 24)).all()


@FEW
@hypothesis.given(SCORES, SPARSITY)
def test_per_row(scores, sparsity):
    """A row is an output: the same number goes of every one, whatever the others' scores."""
    kept = patterns.per_row(jnp.array(scores), sparsity)
    np.testing.assert_array_equal(kept, along(scores, 1, round(sparsity * 6)))
    assert (kept.sum(axis=1) == 6 - round(sparsity * 6)).all()


@FEW
@hypothesis.given(SCORES, SPARSITY)
def test_global(scores, sparsity):
    parts = {"a": scores[0], "b": [scores[1, :2], scores[1, 2:].ravel()]}
    kept = patterns.global_(jax.tree.map(jnp.array, parts), sparsity)
    assert jax.tree.map(np.shape, kept) == jax.tree.map(np.shape, parts)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(kept)])
    np.testing.assert_array_equal(flat, lowest(scores.ravel(), round(sparsity * 48)))


@FEW
@hypothesis.given(SCORES, st.sampled_from([(1, 2), (2, 2), (1, 3), (2, 3), (1, 6), (5, 6)]))
def test_n_of_m(scores, pair):
    keep, of = pair
    kept = np.asarray(patterns.n_of_m(jnp.array(scores), keep=keep, of=of))
    grouped = scores.reshape(2, 6 // of, of, 4)
    np.testing.assert_array_equal(kept, along(grouped, 2, of - keep).reshape(SHAPE))


def test_one_of_four_keeps_one():
    """2:4 is the same read either way, 1:4 is not: `keep` is the number that stays."""
    scores = jnp.arange(16.0).reshape(8, 2)
    kept = patterns.n_of_m(scores, keep=1, of=4)
    assert kept[:, 0].astype(int).tolist() == [0, 0, 0, 1, 0, 0, 0, 1]
    assert patterns.n_of_m(scores, keep=3, of=4).mean() == 0.75


def test_groups_run_along_the_inputs():
    scores = jnp.array([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    kept = patterns.n_of_m(scores, keep=1, of=2)
    assert kept.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_rows_are_not_the_tensor():
    """An output of small weights loses all of them per tensor, and half of them per row."""
    scores = jnp.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    assert patterns.per_tensor(scores, 0.5).sum(axis=0).tolist() == [0, 4]
    assert patterns.per_row(scores, 0.5).sum(axis=0).tolist() == [2, 2]


ALL = {
    "per_tensor": patterns.per_tensor,
    "per_row": patterns.per_row,
    "global": patterns.global_,
}
EACH = pytest.mark.parametrize("select", ALL.values(), ids=ALL)


@EACH
@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.0, 1.5, float("nan")])
def test_sparsity_is_checked(select, sparsity):
    with pytest.raises(ValueError, match=r"sparsity: expected a number in \[0, 1\)"):
        select(jnp.ones((2, 2)), sparsity)


@EACH
def test_sparsity_may_be_traced(select):
    scores = jax.random.normal(jax.random.key(0), (6, 4))
    traced = jax.jit(jax.vmap(select, in_axes=(None, 0)))
    levels = [0.0, 0.3, 0.5, 0.9]
    for kept, level in zip(traced(scores, jnp.array(levels)), levels, strict=True):
        np.testing.assert_array_equal(kept, select(scores, level))


@EACH
def test_trees_and_empty_matrices(select):
    scores = {"a": [jnp.arange(4.0).reshape(2, 2)], "none": jnp.zeros((8, 0))}
    kept = select(scores, 0.5)
    assert kept["a"][0].sum() == 2 and kept["none"].shape == (8, 0)


@EACH
def test_infinities_and_nan_have_a_place(select):
    """-inf goes first, NaN last, and no gradient comes back."""
    scores = jnp.array([[jnp.nan], [-jnp.inf], [0.0], [jnp.inf]])
    assert select(scores, 0.25).ravel().tolist() == [True, False, True, True]
    assert select(scores, 0.75).ravel().tolist() == [True, False, False, False]
    grad = jax.grad(lambda s: jnp.where(select(s, 0.5), 1.0, 0.0).sum())(scores)
    assert not grad.any()


@pytest.mark.parametrize(("keep", "of"), [(0, 4), (5, 4), (2, 0), (1.0, 4), (True, 4)])
def test_groups_are_checked(keep, of):
    with pytest.raises((ValueError, TypeError)):
        patterns.n_of_m(jnp.ones((4, 2)), keep=keep, of=of)


def test_groups_fill_the_inputs():
    with pytest.raises(ValueError, match="scores: expected a multiple of 4 inputs, got 6"):
        patterns.n_of_m(jnp.ones((6, 4)), keep=2, of=4)
