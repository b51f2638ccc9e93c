"""Tasks open in the order that was asked for, and share the examples by their frequencies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.data.curriculum import KINDS, curriculum, mixed

HARD, OFTEN = [4, 4, 8, 16], [1.0, 5.0, 2.0, 2.0]
OPEN = {  # at step 0, after a third, after two thirds
    "mixed": ["1111", "1111", "1111"],
    "easy_first": ["1100", "1110", "1111"],
    "hard_first": ["0001", "0011", "1111"],
    "by_frequency": ["0100", "0111", "1111"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_order(kind):
    found = curriculum(kind, HARD, steps=30, frequencies=OFTEN)
    for step, expected in zip((0, 10, 20), OPEN[kind], strict=True):
        shown = np.array([int(c) for c in expected]) * OFTEN
        np.testing.assert_allclose(found.weights(step), shown / shown.sum(), rtol=1e-6)
        if kind != "mixed" and step:
            assert (found.weights(step - 1) > 0).sum() < (shown > 0).sum()


def test_a_population_of_curricula():
    """Under jit and vmap over kinds, with a traced step."""
    several = [curriculum(kind, HARD, steps=30, frequencies=OFTEN) for kind in KINDS]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    weights = jax.jit(jax.vmap(lambda one, step: one.weights(step), (0, None)))(stacked, 10)
    expected = jnp.stack([one.weights(10) for one in several])
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_tasks_alone_are_shown_from_the_start():
    """Whatever their turn among the others was; they keep their order."""
    found = curriculum("easy_first", HARD, steps=30, frequencies=OFTEN).only([0, 0, 1, 1])
    np.testing.assert_allclose(found.weights(0), [0, 0, 1, 0])
    np.testing.assert_allclose(found.weights(10), [0, 0, 0.5, 0.5])


def test_bad_input():
    with pytest.raises(ValueError, match="did you mean 'easy_first'"):
        curriculum("easy first", HARD, steps=3)
    with pytest.raises(ValueError, match=r"frequencies: expected shape \(4,\)"):
        curriculum("mixed", HARD, steps=3, frequencies=[1.0])
    with pytest.raises(ValueError, match="frequencies: expected positive"):
        curriculum("mixed", HARD, steps=3, frequencies=[1.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="frequencies: expected different ones"):
        curriculum("by_frequency", HARD, steps=3)
    with pytest.raises(ValueError, match="tasks: expected at least one"):
        mixed(HARD).only([False] * 4)
    with pytest.raises(ValueError, match="difficulty: expected one finite number"):
        curriculum("mixed", [], steps=3)
