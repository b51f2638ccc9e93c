"""Metrics by hand, as sets, under every transform, and their identities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tasks


def _prompts(correct, wrong):
    correct, wrong = jnp.asarray(correct), jnp.asarray(wrong)
    rows = jnp.zeros((correct.shape[0], 1), jnp.int32)
    return tasks.Prompts(rows, rows, rows + 1, rows[:, 0], correct, wrong)


LOGITS = jnp.log(jnp.asarray([[0.5, 0.2, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]))
ONE = _prompts([[0], [1]], [[1], [3]])
SETS = _prompts([[0, 2], [3, -1]], [[1, -1], [0, 1]])


def _close(got, want):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-6, atol=1e-7)


def test_logit_difference():
    _close(tasks.logit_difference(LOGITS, ONE), np.log([0.5 / 0.2, 0.2 / 0.4]))
    _close(tasks.logit_difference(LOGITS, SETS), np.log([0.7 / 0.2, 0.4 / 0.3]))


def test_logit_difference_is_plain_for_single_answers():
    logits = jax.random.normal(jax.random.key(0), (2, 4))
    _close(
        tasks.logit_difference(logits, ONE),
        [logits[0, 0] - logits[0, 1], logits[1, 1] - logits[1, 3]],
    )


def test_probability():
    _close(tasks.probability(LOGITS, ONE), [0.5, 0.2])
    _close(tasks.probability(LOGITS, SETS), [0.7, 0.4])


def test_probability_difference():
    _close(tasks.probability_difference(LOGITS, ONE), [0.3, -0.2])
    _close(tasks.probability_difference(LOGITS, SETS), [0.5, 0.1])


def test_accuracy():
    assert tasks.accuracy(LOGITS, ONE).tolist() == [1.0, 0.0]
    assert tasks.accuracy(LOGITS, SETS).tolist() == [1.0, 1.0]


def test_accuracy_never_matches_the_padding():
    last = _prompts([[0, -1]], [[1, -1]])
    assert tasks.accuracy(jnp.asarray([[0.0, 0.0, 9.0]]), last).tolist() == [0.0]


def test_kl():
    _close(tasks.kl(LOGITS, ONE, LOGITS), [0.0, 0.0])
    uniform = jnp.zeros((2, 4))
    clean = np.exp(np.asarray(LOGITS))
    _close(tasks.kl(uniform, ONE, LOGITS), (clean * np.log(4 * clean)).sum(axis=1))
    other = jax.random.normal(jax.random.key(1), (2, 4))
    assert (np.asarray(tasks.kl(other, ONE, LOGITS)) > 0).all()


def test_kl_is_of_the_clean_run_first():
    """KL(clean || run), not the other way round: they differ."""
    forward, backward = (
        tasks.kl(*args)
        for args in ((jnp.zeros((2, 4)), ONE, LOGITS), (LOGITS, ONE, jnp.zeros((2, 4))))
    )
    clean = np.exp(np.asarray(LOGITS))
    _close(backward, (-0.25 * np.log(4 * clean)).sum(axis=1))
    assert (np.abs(np.asarray(forward - backward)) > 1e-3).all()


@pytest.fixture(params=tasks.METRICS)
def metric(request):
    return tasks.get_metric(request.param)


def test_a_constant_on_all_logits_changes_nothing(metric):
    for prompts in (ONE, SETS):
        shifted = metric(LOGITS + 3.0, prompts, LOGITS - 2.0)
        np.testing.assert_allclose(shifted, metric(LOGITS, prompts, LOGITS), atol=1e-6)


def test_answer_padding_and_order_change_nothing(metric):
    wider = dataclasses.replace(
        SETS,
        correct=jnp.asarray([[2, -1, 0, -1], [-1, -1, 3, -1]]),
        wrong=jnp.asarray([[-1, 1, -1], [1, -1, 0]]),
    )
    clean = jnp.zeros((2, 4))
    _close(metric(LOGITS, wider, clean), metric(LOGITS, SETS, clean))


def test_jit_vmap_and_rows(metric):
    clean = jax.random.normal(jax.random.key(1), (2, 4))
    want = metric(LOGITS, SETS, clean)
    assert want.shape == (2,)
    assert want.dtype == jnp.float32
    _close(jax.jit(metric)(LOGITS, SETS, clean), want)
    many = jnp.stack([LOGITS, clean, -LOGITS])
    batched = jax.vmap(metric, (0, None, None))(many, SETS, clean)
    _close(batched, jnp.stack([metric(logits, SETS, clean) for logits in many]))
    for row in range(2):
        one = slice(row, row + 1)
        _close(metric(LOGITS[one], SETS[one], clean[one]), want[one])


def test_gradients_are_finite_and_right(metric):
    clean = jax.random.normal(jax.random.key(1), (2, 4))

    def total(logits):
        return metric(logits, SETS, clean).sum()

    gradient = jax.grad(total)(LOGITS)
    assert np.isfinite(np.asarray(gradient)).all()
    if metric is not tasks.accuracy:  # which is flat
        direction = jax.random.normal(jax.random.key(2), (2, 4))
        step = 1e-2
        difference = (
            (total(LOGITS + step * direction) - total(LOGITS - step * direction)) / step / 2
        )
        np.testing.assert_allclose((gradient * direction).sum(), difference, rtol=1e-2, atol=1e-3)


def test_extreme_logits_stay_finite(metric):
    logits = jnp.asarray([[1e4, -1e4, 0.0, 0.0], [-1e4, 1e4, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda x: metric(x, SETS, LOGITS).sum())(logits)
    assert np.isfinite(np.asarray(value))
    assert np.isfinite(np.asarray(gradient)).all()


def test_get_metric():
    assert tasks.get_metric("kl") is tasks.kl
    assert tasks.get_metric(tasks.accuracy) is tasks.accuracy
    with pytest.raises(ValueError, match="metric: expected one of .* did you mean 'accuracy'"):
        tasks.get_metric("acuracy")
