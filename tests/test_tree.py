"""Trees with a leading layer axis."""

from __future__ import annotations

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jaxcompress import tree


def layers(count):
    rng = np.random.default_rng(count)
    return [
        {"attn": {"w": jnp.asarray(rng.normal(size=(2, 3)))}, "b": jnp.asarray(rng.normal(size=4))}
        for _ in range(count)
    ]


@hypothesis.given(st.integers(1, 5))
@hypothesis.settings(max_examples=5)
def test_unstack_inverts_stack(count):
    trees = layers(count)
    stacked = tree.stack(trees)
    assert stacked["attn"]["w"].shape == (count, 2, 3)
    for one, again in zip(trees, tree.unstack(stacked), strict=True):
        chex.assert_trees_all_equal(one, again)


def test_index_may_be_traced():
    stacked = tree.stack(layers(3))
    for i in range(3):
        chex.assert_trees_all_equal(jax.jit(tree.index)(stacked, i), tree.index(stacked, i))
    every = jax.vmap(lambda i: tree.index(stacked, i))(jnp.arange(3))
    chex.assert_trees_all_equal(every, stacked)


def test_paths_are_in_tree_order():
    nested = {"b": [1, (2, 3)], "a": {"c": None, "d": 4}}
    assert list(tree.paths(nested).items()) == [("a/d", 4), ("b/0", 1), ("b/1/0", 2), ("b/1/1", 3)]


def test_counts_and_bytes():
    params = {"w": jnp.zeros((3, 2), jnp.bfloat16), "n": np.zeros(5, np.int8), "none": None}
    assert tree.count(params) == 11
    assert tree.nbytes(params) == 12 + 5
    assert tree.count({}) == tree.nbytes({}) == 0
    shapes = jax.eval_shape(lambda: jnp.zeros((4, 4), jnp.float32))
    assert (tree.count(shapes), tree.nbytes(shapes)) == (16, 64)
