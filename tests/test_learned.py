"""Gates and masks that are trained: they reach their target and keep what matters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import io, prune
from jaxcompress.examples import Data, batches, together
from jaxcompress.gated import mean_loss
from jaxcompress.learned import LearnConfig, learned_scores, movement
from jaxcompress.models import Gates

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def student():
    return io.load("builtin:student")


def test_learned_gates_keep_what_the_task_needs(student):
    data = Data(tasks=("months",), count=32, batch=32)
    config = LearnConfig(steps=60, batch=8, rate=0.2)
    scores = learned_scores(
        student, together(student, data)[0], ["heads"], 0.5, config, progress=False
    )
    found, loss = batches(student, data, held_out=True)
    ours, flipped = (
        mean_loss(student, found, loss, prune.select(Gates(heads=s), 0.5))
        for s in (scores.heads, -scores.heads)
    )
    assert ours < flipped - 0.5
    # The Lagrangian holds the expected share of open gates near its target.
    assert abs(float(prune.l0.expected_open(scores.heads).mean()) - 0.5) < 0.2


def test_movement_reaches_its_share_and_zeros_are_zero(student):
    data = Data(tasks=("months",), count=8, batch=8)
    config = LearnConfig(steps=8, batch=4, rate=1e-3)
    params, masks = movement(student, together(student, data)[0], 0.75, config, progress=False)
    assert len(masks) == 6
    for path, mask in masks.items():
        leaf = params
        for part in path.split("/"):
            leaf = leaf[part]
        assert ((np.asarray(leaf) != 0) <= np.asarray(mask)).all()
        np.testing.assert_allclose(mask.mean(), 0.25, atol=1e-3)
    embedding = params["embed"]["tokens"]
    assert embedding.shape == student.params["embed"]["tokens"].shape


def test_scores_move_with_weights_away_from_zero():
    """dL/dscore = dL/d(masked weight) * weight: falling loss and growing |weight| raise a score."""
    weight, score = jnp.array([[2.0, -1.0]]), jnp.zeros((1, 2))
    pull = jnp.array([[1.0, 1.0]])  # the gradient of the loss at the masked weight

    def loss(score):
        mask = prune.regularizers.straight_through(jnp.ones((1, 2), bool), score)
        return (weight * mask * pull).sum()

    np.testing.assert_allclose(-jax.grad(loss)(score), -pull * weight)


@pytest.mark.parametrize(
    ("over", "sparsity", "message"),
    [(["heads"], 1.0, "sparsity: expected a number in"), (["haeds"], 0.5, "over: expected")],
)
def test_bad_input(student, over, sparsity, message):
    with pytest.raises(ValueError, match=message):
        learned_scores(student, None, over, sparsity, LearnConfig())
