"""Losses: golden values, limits, extreme logits, and padding that changes nothing."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress.distill import losses

# reference/compression.md B.9, computed in float64; equal to TRL's and TextBrewer's losses.
TEACHER = jnp.array([[2.0, 1.0, 0.0, -1.0, 0.5]])
STUDENT = jnp.array([[0.5, 1.5, -0.5, 0.0, 0.25]])


def random_logits(key, *shape, scale=1.0):
    return scale * jax.random.normal(key, shape)


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, 0.40755731), (2.0, 0.39781950), (4.0, 0.38551097)]
)
def test_forward_kl_golden(temperature, expected):
    loss, count = losses.forward_kl(STUDENT, TEACHER, temperature=temperature)
    np.testing.assert_allclose(loss, expected, atol=1e-6)
    assert count == 1


def test_forward_is_not_reverse():
    # KL(S||T) of B.9: which of the two is "forward" has been got wrong before.
    np.testing.assert_allclose(losses.forward_kl(TEACHER, STUDENT)[0], 0.39079285, atol=1e-6)


def test_forward_kl_of_itself_is_zero(key):
    logits = random_logits(key, 3, 4, 7)
    loss, grad = jax.value_and_grad(lambda s: losses.forward_kl(s, logits)[0])(logits)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    np.testing.assert_allclose(grad, 0.0, atol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_forward_kl_gradient(key, temperature):
    """dL/dz = T (q - p), divided by the number of positions."""
    teacher, student = random_logits(key, 2, 6, 7)
    grad = jax.grad(lambda s: losses.forward_kl(s, teacher, temperature=temperature)[0])(student)
    q, p = (jax.nn.softmax(z / temperature) for z in (student, teacher))
    np.testing.assert_allclose(grad, temperature * (q - p) / 6, atol=1e-6)


def test_hot_forward_kl_matches_centred_logits(key):
    """For T -> infinity the gradient is that of half the mean square of centred differences."""
    teacher, student = random_logits(key, 2, 1, 7)
    grad = jax.grad(lambda s: losses.forward_kl(s, teacher, temperature=1e3)[0])(student)
    centred = (student - student.mean()) - (teacher - teacher.mean())
    np.testing.assert_allclose(grad, centred / 7, atol=2e-3)


def test_no_gradient_to_the_teacher(key):
    teacher, student = random_logits(key, 2, 4, 5)
    assert not jax.grad(lambda t: losses.forward_kl(student, t)[0])(teacher).any()


def test_forward_kl_divides_by_positions_not_by_vocabulary():
    # Model-Optimizer's reduction="mean" comes out V times too small.
    many = losses.forward_kl(jnp.tile(STUDENT, (6, 1)), jnp.tile(TEACHER, (6, 1)))
    np.testing.assert_allclose(many[0], 0.40755731, atol=1e-6)
    assert many[1] == 6


EXTREMES = [
    ([200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]),
    ([-200.0, 200.0, 0.0], [-200.0, 200.0, 0.0]),
    ([1.0, 2.0, -jnp.inf], [2.0, 1.0, -jnp.inf]),
    ([1.0, 2.0, 3.0], [2.0, 1.0, -jnp.inf]),
    ([0.0, 1.0, 200.0], [-jnp.inf, 0.0, -jnp.inf]),
]


@pytest.mark.parametrize(("student", "teacher"), EXTREMES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_forward_kl_stays_finite(student, teacher, temperature):
    student, teacher = jnp.array([student]), jnp.array([teacher])
    value, grad = jax.value_and_grad(
        lambda s: losses.forward_kl(s, teacher, temperature=temperature)[0]
    )(student)
    assert jnp.isfinite(value) and value >= 0
    assert jnp.isfinite(grad).all()
    exact_s, exact_t = np.float64(student[0]) / temperature, np.float64(teacher[0]) / temperature
    log_p, log_q = (z - np.logaddexp.reduce(z) for z in (exact_t, exact_s))
    p = np.exp(log_p)
    expected = temperature**2 * sum(
        a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True) if a > 0
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("student", [row for row, _ in EXTREMES])
def test_cross_entropy_stays_finite(student):
    logits, labels = jnp.array([student]), jnp.array([1])
    value, grad = jax.value_and_grad(lambda s: losses.cross_entropy(s, labels)[0])(logits)
    assert jnp.isfinite(value) and jnp.isfinite(grad).all()


def test_cross_entropy_is_optax(key):
    logits, labels = random_logits(key, 3, 5, 7), jnp.arange(15).reshape(3, 5) % 7
    each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    mean, count = losses.cross_entropy(logits, labels)
    np.testing.assert_allclose(mean, each.mean(), rtol=1e-6)
    assert count == 15


def loss_of(name, teacher, labels):
    if name == "forward_kl":
        return lambda logits, mask: losses.forward_kl(logits, teacher, mask, temperature=2.0)
    return lambda logits, mask: losses.cross_entropy(logits, labels, mask)


NAMES = pytest.mark.parametrize("name", ["forward_kl", "cross_entropy"])


def batch(key, rows=3, length=4, vocab=7):
    student, teacher = jax.random.normal(key, (2, rows, length, vocab))
    labels = jax.random.randint(key, (rows, length), 0, vocab)
    return student, teacher, labels


@NAMES
@pytest.mark.parametrize("junk", [0.0, 1e30, jnp.nan, jnp.inf])
def test_padding_changes_nothing(name, key, junk):
    """Appended padding, whatever it holds, changes neither value, count nor gradient."""
    student, teacher, labels = batch(key)
    mask = jnp.ones(labels.shape)
    plain = loss_of(name, teacher, labels)

    def padded(x, value):
        return jnp.concatenate([x, jnp.full_like(x, value)], axis=1)

    more = loss_of(name, padded(teacher, junk), padded(labels, -100))
    wide, wide_mask = padded(student, junk), padded(mask, 0)
    value, grad = jax.value_and_grad(lambda s: plain(s, mask)[0])(student)
    wide_value, wide_grad = jax.value_and_grad(lambda s: more(s, wide_mask)[0])(wide)
    np.testing.assert_allclose(value, wide_value, rtol=1e-6)
    np.testing.assert_allclose(grad, wide_grad[:, :4], rtol=1e-5, atol=1e-7)
    assert not wide_grad[:, 4:].any()
    assert plain(student, mask)[1] == more(wide, wide_mask)[1] == 12


@NAMES
def test_masks_are_weights(name, key):
    student, teacher, labels = batch(key)
    loss = loss_of(name, teacher, labels)
    weights = jnp.zeros(labels.shape).at[0, 1].set(3.0).at[2, 2].set(1.0)
    single = [loss(student, weights.at[i, j].set(0.0) > 0)[0] for i, j in ((2, 2), (0, 1))]
    value, count = loss(student, weights)
    np.testing.assert_allclose(value, (3 * single[0] + single[1]) / 4, rtol=1e-6)
    assert count == 4


@NAMES
def test_nothing_to_average_is_zero(name, key):
    student, teacher, labels = batch(key)
    loss = loss_of(name, teacher, labels)
    mask = jnp.zeros(labels.shape, bool)
    value, grad = jax.value_and_grad(lambda s: loss(s, mask)[0])(student)
    assert value == 0 and not grad.any()
    assert loss(student, mask)[1] == 0


@NAMES
def test_transforms(name, key):
    """The same number by itself, under jit, and as one of a vmapped batch."""
    student, teacher, labels = batch(key)
    mask = labels > 1
    expected = loss_of(name, teacher, labels)(student, mask)
    np.testing.assert_allclose(
        jax.jit(loss_of(name, teacher, labels))(student, mask), expected, rtol=1e-6
    )
    target = teacher if name == "forward_kl" else labels
    function = functools.partial(getattr(losses, name))
    means, counts = jax.vmap(function)(student, target, mask)
    looped = [function(*row) for row in zip(student, target, mask, strict=True)]
    np.testing.assert_allclose(means, [mean for mean, _ in looped], rtol=1e-6)
    np.testing.assert_array_equal(counts, [count for _, count in looped])


def test_temperature_may_be_traced(key):
    student, teacher, _ = batch(key)
    hot = jax.jit(lambda t: losses.forward_kl(student, teacher, temperature=t)[0])
    np.testing.assert_allclose(
        hot(3.0), losses.forward_kl(student, teacher, temperature=3.0)[0], rtol=1e-6
    )


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan")])
def test_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="temperature: expected a number above 0"):
        losses.forward_kl(STUDENT, TEACHER, temperature=temperature)


@NAMES
def test_masks_are_not_broadcast(name, key):
    student, teacher, labels = batch(key)
    with pytest.raises(ValueError, match=r"mask: expected shape \(3, 4\).*got shape \(4,\)"):
        loss_of(name, teacher, labels)(student, jnp.ones(4))
