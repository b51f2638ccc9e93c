"""The loss is that of float64, value and gradient, where float32's log-softmax has nothing left."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxcompress.narrow.entropy import accuracy, cross_entropy, mean_over


def drawn(margin):
    rng = np.random.default_rng(0)
    logits, answers = rng.standard_normal((40, 6)), rng.integers(0, 6, 40)
    logits[np.arange(40), answers] += margin
    return logits.astype(np.float32), answers


def expected(logits, answers):
    """In float64, as softplus would be: log1p of the wrong exponentials over the right one."""
    wide = logits.astype(np.float64)
    wrong = np.where(np.eye(6, dtype=bool)[answers], -np.inf, wide)
    return np.logaddexp(0, scipy.special.logsumexp(wrong, axis=1) - wide[np.arange(40), answers])


def test_values_at_any_confidence():
    for margin in (-20.0, 0.0, 5.0, 30.0, 60.0):
        logits, answers = drawn(margin)
        found = cross_entropy(jnp.asarray(logits), jnp.asarray(answers))
        np.testing.assert_allclose(found, expected(logits, answers), rtol=2e-5)
    logits, answers = drawn(30.0)
    plain = -jax.nn.log_softmax(logits)[np.arange(40), answers]
    assert (np.asarray(plain) == 0).any()  # What this is for.


def test_gradient_of_a_sure_answer():
    logits, answers = drawn(30.0)
    slope = jax.grad(lambda x: cross_entropy(x, jnp.asarray(answers)).sum())(jnp.asarray(logits))
    wide = logits.astype(np.float64)
    probability = scipy.special.softmax(wide, axis=1)
    right = np.eye(6, dtype=bool)[answers]
    np.testing.assert_allclose(np.asarray(slope)[~right], probability[~right], rtol=1e-4)
    sure = -probability[~right].reshape(40, 5).sum(1)
    np.testing.assert_allclose(np.asarray(slope)[right], sure, rtol=1e-4)


def test_masked_mean_and_accuracy():
    values, chosen = jnp.arange(4.0), jnp.array([True, False, False, True])
    assert float(mean_over(values, chosen)) == 1.5
    logits = jnp.array([[0.0, 1.0], [3.0, 2.0]])
    np.testing.assert_array_equal(accuracy(logits, jnp.array([1, 1])), [1, 0])
