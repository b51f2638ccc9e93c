"""Progress measures of a trajectory are those of its snapshots, one by one."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcompress import tree
from jaxcompress.data import modular
from jaxcompress.models import create
from jaxcompress.narrow import addition, fourier, grokking, reading
from jaxcompress.narrow.entropy import cross_entropy

pytestmark = pytest.mark.slow

P = 7


def test_published_network():
    config = addition.network(113)
    model = create(config, key=jax.random.key(0))
    # 226,816 parameters; the mask is none. Ours has no position more than a, b and "=".
    assert tree.count(model.params) == 226_816
    drawn = tree.paths(addition.redraw(model.params, jax.random.key(1)))
    for path, leaf in drawn.items():
        scale = 0 if path.endswith("bias") else 114**-0.5 if path == "head/kernel" else 128**-0.5
        np.testing.assert_allclose(leaf.std(), scale, rtol=0.15)


@pytest.mark.parametrize("keys", [None, np.array([1.0, 0.0, 1.0], np.float32)])
def test_trajectory_is_a_loop(keys):
    model = create(addition.network(P, width=8, heads=2), key=jax.random.key(0))
    snapshots = [addition.redraw(model.params, jax.random.key(i)) for i in range(3)]
    table, chosen = modular.table(P), modular.split(P, 0.4, 0)
    found = grokking.trajectory(model.apply, tree.stack(snapshots), table, chosen, keys, together=2)
    if keys is None:
        last = model.apply(snapshots[-1], table.tokens).logits[:, -1]
        keys = np.asarray(fourier.sum_shares(last, P) > reading.KEY_SHARE, np.float32)
    np.testing.assert_array_equal(found["keys"], keys)
    for i, params in enumerate(snapshots):
        logits = model.apply(params, table.tokens).logits[:, -1]
        one = grokking.measures(logits, table.answers, chosen, keys)
        one |= grokking.spectra(params, P)
        one["shares"] = fourier.sum_shares(logits, P)
        one["coefficients"] = fourier.cosine_coefficients(logits, P)
        without = fourier.excluded(logits, P, np.eye(3)[1])
        losses = cross_entropy(without, table.answers)
        np.testing.assert_allclose(found["excluded_each"][i, 1], losses[chosen].mean(), rtol=1e-4)
        for name, value in one.items():
            np.testing.assert_allclose(found[name][i], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_measures_of_a_network_that_adds():
    """Three exact frequencies: nothing is lost by the restriction, everything by the exclusion."""
    table, chosen = modular.table(P), modular.split(P, 0.5, 0)
    distance = table.answers[:, None] - np.arange(P + 1)
    logits = 4.0 * sum(np.cos(2 * np.pi * k * distance / P) for k in (1, 2, 3))
    logits = np.where(np.arange(P + 1) == P, -9.0, logits).astype(np.float32)
    found = grokking.measures(logits, table.answers, chosen, np.ones(3, np.float32))
    assert found["test_accuracy"] == 1
    np.testing.assert_allclose(found["restricted_loss"], found["test_loss"], rtol=1e-3)
    np.testing.assert_allclose(found["excluded_loss"], np.log(P), rtol=1e-4)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads: expected a divisor of the width 10, got 4"):
        addition.network(7, width=10, heads=4)
