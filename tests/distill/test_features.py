"""Losses on activations: golden values, NumPy written out, padding, slopes where roots end."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.distill import features
from tests.distill import reference
from tests.distill.reference import waves

LOSSES = {
    "hidden_mse": features.hidden_mse,
    "hidden_cosine": features.hidden_cosine,
    "attention_transfer": features.attention_transfer,
}
EACH = pytest.mark.parametrize("name", LOSSES)


@functools.cache
def program(name):
    """Value and count, and the gradient with respect to student and teacher."""
    whole = jax.value_and_grad(LOSSES[name], argnums=(0, 1), has_aux=True)
    return jax.jit(whole)


def exact(name, student, teacher):
    """Written out in float64, the mean over positions or, for attention transfer, examples."""
    student, teacher = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    if name == "hidden_mse":
        return ((student - teacher) ** 2).mean()
    if name == "attention_transfer":
        both = ((x**2).sum(-1) for x in (student, teacher))
        ours, theirs = (q / np.linalg.norm(q, axis=-1, keepdims=True) for q in both)
        return np.linalg.norm(ours - theirs, axis=-1).mean()
    norms = np.linalg.norm(student, axis=-1) * np.linalg.norm(teacher, axis=-1)
    return (1 - (student * teacher).sum(-1) / norms).mean()


def test_hidden_mse_golden():
    """Through a projection; and the projection learns."""
    student, teacher, projection = waves(5, 4, 0.2), waves(5, 6, 0.9), 0.5 * waves(4, 6, 0.4)
    whole = jax.value_and_grad(lambda p: features.hidden_mse(student, teacher, projection=p)[0])
    value, slope = jax.jit(whole)(projection)
    np.testing.assert_allclose(value, 0.5875878, atol=1e-6)
    exactly = np.asarray(student, np.float64)
    expected = reference.slope(lambda p: exact("hidden_mse", exactly @ p, teacher), projection)
    np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_hidden_cosine_golden():
    student, teacher = waves(5, 4, 0.2), waves(5, 4, 0.9)
    value, count = features.hidden_cosine(student, teacher)
    np.testing.assert_allclose(value, 0.22843955, atol=1e-6)
    assert count == 5
    same = features.hidden_cosine(student, 7 * student @ jnp.eye(4), projection=2 * jnp.eye(4))
    np.testing.assert_allclose(same[0], 0.0, atol=1e-6)


def test_attention_transfer_golden():
    """One example of five positions; the number of channels may differ."""
    value, count = features.attention_transfer(waves(5, 4, 0.2), waves(5, 6, 0.9))
    np.testing.assert_allclose(value, 0.14598738, atol=1e-6)
    assert count == 1


def pair(key):
    return jax.random.normal(key, (2, 3, 4, 5))


@EACH
def test_values_and_slopes(name, key):
    """Against float64 and its central differences; nothing flows to the teacher."""
    student, teacher = pair(key)
    mask = jnp.ones((3, 4))
    (value, count), (slope, none) = program(name)(student, teacher, mask)
    np.testing.assert_allclose(value, exact(name, student, teacher), rtol=1e-5)
    expected = reference.slope(lambda s: exact(name, s, teacher), student)
    np.testing.assert_allclose(slope, expected, atol=1e-6)
    assert not none.any()
    assert count == (3 if name == "attention_transfer" else 12)


@EACH
def test_padding_changes_nothing(name, key):
    student, teacher = pair(key)
    mask = jnp.ones((3, 4)).at[1, 2:].set(0.0)
    value, (slope, _) = program(name)(student, teacher, mask)
    for junk in (jnp.nan, 1e30, 0.0):
        dirty = [x.at[1, 2:].set(junk) for x in (student, teacher)]
        dirty_value, (dirty_slope, _) = program(name)(*dirty, mask)
        np.testing.assert_allclose(dirty_value, value, rtol=1e-6)
        np.testing.assert_allclose(dirty_slope, slope, rtol=1e-6)
    assert not slope[1, 2:].any()
    if name == "attention_transfer":  # a mean over examples, of 4, 2 and 4 positions
        rows = zip(student, teacher, (4, 2, 4), strict=True)
        each = [exact(name, s[:n], t[:n]) for s, t, n in rows]
    else:
        kept = np.asarray(mask) > 0
        each = [exact(name, np.asarray(student)[kept], np.asarray(teacher)[kept])]
    np.testing.assert_allclose(value[0], np.mean(each), rtol=1e-5)


@EACH
def test_equal_and_zero_states_have_finite_slopes(name, key):
    """Where a root or a norm is 0 the gradient is finite; and so it is with nothing to average."""
    student, _ = pair(key)
    mask = jnp.ones((3, 4))
    (value, _), (slope, _) = program(name)(student, student, mask)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    assert jnp.isfinite(slope).all()
    for zero in ((0 * student, student), (student, 0 * student), (0 * student, 0 * student)):
        (value, _), (slope, _) = program(name)(*zero, mask)
        assert jnp.isfinite(value) and jnp.isfinite(slope).all()
    (value, count), (slope, _) = program(name)(student, 0 * student, 0 * mask)
    assert value == 0 and count == 0 and not slope.any()


@EACH
def test_bfloat16_and_vmap(name, key):
    student, teacher = pair(key).astype(jnp.bfloat16)
    mask = jnp.ones((3, 4))
    (value, _), (slope, _) = program(name)(student, teacher, mask)
    wide = program(name)(*(x.astype(jnp.float32) for x in (student, teacher)), mask)
    np.testing.assert_allclose(value, wide[0][0], rtol=1e-5)
    assert value.dtype == jnp.float32 and slope.dtype == jnp.bfloat16
    means, counts = jax.jit(jax.vmap(LOSSES[name]))(student, teacher, mask)
    np.testing.assert_allclose((means * counts).sum() / counts.sum(), value, rtol=1e-5)


@EACH
def test_bad_shapes(name, key):
    student, teacher = pair(key)
    with pytest.raises(ValueError, match=r"teacher: expected shape \(3, 4, 5\)"):
        LOSSES[name](student, teacher[:1])
    with pytest.raises(ValueError, match=r"mask: expected shape \(3, 4\)"):
        LOSSES[name](student, teacher, jnp.ones((4, 3)))


def test_bad_projections(key):
    student, teacher = pair(key)
    with pytest.raises(ValueError, match=r"teacher: expected shape \(3, 4, 5\).*\(3, 4, 2\)"):
        features.hidden_mse(student, teacher[..., :2])
    with pytest.raises(ValueError, match=r"projection: expected shape \(5, 2\).*\(2, 5\)"):
        features.hidden_mse(student, teacher[..., :2], projection=jnp.ones((2, 5)))
