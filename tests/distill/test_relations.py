"""Losses on attention and relations: golden values, loops in NumPy, the future and padding."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.distill import relations
from tests.distill import reference
from tests.distill.reference import waves


def test_relation_golden():
    """MiniLMv2 of B.9: widths 4 and 6, two relation heads, all positions seen."""
    loss, count = relations.relation_kl(waves(5, 4, 0.2), waves(5, 6, 0.9), heads=2)
    np.testing.assert_allclose(loss, 0.31983226, atol=1e-6)
    assert count == 5


def relation(x, heads, seen):
    """Logarithms (head, position, position), one head after the other."""
    pieces = np.split(np.asarray(x, np.float64), heads, axis=-1)
    scores = [
        np.where(seen, piece @ piece.T / np.sqrt(piece.shape[-1]), -np.inf) for piece in pieces
    ]
    return reference.log_softmax(np.stack(scores))


def exact_relation(student, teacher, mask, heads, causal):
    """Mean over heads and kept positions; the padding is at the end and cut off."""
    total, count = 0.0, 0
    for s, t, n in zip(student, teacher, np.asarray(mask).sum(-1).astype(int), strict=True):
        seen = np.tril(np.ones((n, n), bool)) if causal else np.ones((n, n), bool)
        rows = reference.kl(*(relation(x[:n], heads, seen) for x in (t, s)))
        total, count = total + rows.mean(axis=0).sum(), count + n
    return total / count


@functools.cache
def relation_program(causal):
    loss = functools.partial(relations.relation_kl, heads=2, causal=causal)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


MASK = jnp.array([[1.0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.mark.parametrize("causal", [False, True])
def test_relation_kl(causal, key):
    """Value and slope against loops; junk in the padding; no gradient to the teacher."""
    student = jax.random.normal(key, (3, 4, 6))
    teacher = 2 * jax.random.normal(jax.random.key(1), (3, 4, 4))
    run = relation_program(causal)
    (value, count), (slope, none) = run(student, teacher, MASK)
    np.testing.assert_allclose(value, exact_relation(student, teacher, MASK, 2, causal), rtol=1e-5)
    expected = reference.slope(lambda s: exact_relation(s, teacher, MASK, 2, causal), student)
    np.testing.assert_allclose(slope, expected, atol=1e-6)
    assert count == 9 and not none.any()
    dirty = [jnp.where(MASK[..., None] > 0, x, jnp.nan) for x in (student, teacher)]
    (dirty_value, _), (dirty_slope, _) = run(*dirty, MASK)
    np.testing.assert_allclose(dirty_value, value, rtol=1e-6)
    np.testing.assert_allclose(dirty_slope, slope, atol=1e-7)
    (value, _), (slope, _) = run(student, teacher, 0 * MASK)
    assert value == 0 and not slope.any()
    (_, _), (slope, _) = run(100 * student, 100 * teacher, MASK)
    assert jnp.isfinite(slope).all()


def test_the_future_is_not_seen(key):
    """With `causal`, what stands later changes no earlier row: here there is only the first."""
    student, teacher = jax.random.normal(key, (2, 1, 4, 4))
    first = jnp.zeros((1, 4)).at[0, 0].set(1.0)
    run = relation_program(True)
    assert run(student, teacher, first)[0][0] == 0.0
    second = jnp.ones((1, 4)).at[0, 2:].set(0.0)
    changed = student.at[:, 2:].add(1.0)
    np.testing.assert_allclose(run(student, teacher, second)[0], run(changed, teacher, second)[0])


def test_minilm_v2_is_a_weighted_sum(key):
    student, teacher = jax.random.normal(key, (2, 3, 3, 4, 4))
    value, count = relations.minilm_v2(
        tuple(student), tuple(teacher), MASK, heads=2, alphas=(1.0, 0.5, 2.0), causal=True
    )
    terms = [
        relation_program(True)(s, t, MASK)[0][0] for s, t in zip(student, teacher, strict=True)
    ]
    np.testing.assert_allclose(value, terms[0] + 0.5 * terms[1] + 2 * terms[2], rtol=1e-5)
    assert count == 9


def maps(key, batch=3, heads=2, length=4):
    """Causal attention maps of student and teacher, and their scores."""
    scores = jax.random.normal(key, (2, batch, heads, length, length))
    past = jnp.tril(jnp.ones((length, length), bool)).reshape(1, 1, 1, length, length)
    scores = jnp.where(past, scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1), scores


def test_attention_kl(key):
    """Value against NumPy; the zeros of the future and junk in the padding change nothing."""
    (student, teacher), scores = maps(key)
    run = jax.jit(jax.value_and_grad(relations.attention_kl, argnums=(0, 1), has_aux=True))
    (value, count), (_, none) = run(student, teacher, MASK)
    rows = reference.kl(*(reference.log_softmax(x) for x in (scores[1], scores[0]))).mean(axis=1)
    kept = np.asarray(MASK)
    np.testing.assert_allclose(value, (rows * kept).sum() / kept.sum(), rtol=1e-5)
    assert count == 9 and not none.any()
    # A key that is padding is seen by no query that is kept, so junk in its column is fine too.
    pad = (MASK[:, None, :, None] * MASK[:, None, None, :]) == 0
    dirty = [jnp.where(pad, jnp.nan, x) for x in (student, teacher)]
    (dirty_value, _), (slope, _) = run(*dirty, MASK)
    np.testing.assert_allclose(dirty_value, value, rtol=1e-6)
    assert jnp.isfinite(slope).all()


def test_attention_kl_through_the_softmax(key):
    """The slope at the scores is (A_student - A_teacher) / rows / heads; finite on underflow."""
    (student, teacher), (scores, _) = maps(key)

    def loss(scores):
        return relations.attention_kl(jax.nn.softmax(scores, axis=-1), teacher)[0]

    slope = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(slope(scores), (student - teacher) / (2 * 12), atol=1e-6)
    assert jnp.isfinite(slope(scores.at[..., 0].set(-200.0))).all()


@pytest.mark.parametrize("causal", [False, True])
def test_attention_mse(causal, key):
    """On scores: pairs that are not seen, -inf or NaN, count neither above nor below the line."""
    student, teacher = jax.random.normal(key, (2, 3, 2, 4, 4))
    real = np.asarray(MASK)
    seen = real[:, None, :, None] * real[:, None, None, :] * np.ones((1, 2, 1, 1))
    seen = seen * np.tril(np.ones((4, 4))) if causal else seen
    loss = functools.partial(relations.attention_mse, causal=causal)
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    squares = (np.float64(student) - np.float64(teacher)) ** 2
    for junk in (-jnp.inf, jnp.nan, 0.0):
        dirty = [jnp.where(seen > 0, x, junk) for x in (student, teacher)]
        (value, count), (slope, none) = run(*dirty, MASK)
        np.testing.assert_allclose(value, (squares * seen).sum() / seen.sum(), rtol=1e-5)
        expected = 2 * (student - teacher) * seen / seen.sum()
        np.testing.assert_allclose(slope, expected, atol=1e-6)
        assert count == seen[:, 0].sum() and not none.any()


def test_minilm_is_maps_and_values(key):
    """Values of different head_dim; the relation of each head's values."""
    student, teacher = maps(key)[0]
    ours = jax.random.normal(key, (3, 4, 2, 3))
    theirs = jax.random.normal(jax.random.key(1), (3, 4, 2, 2))
    value, count = relations.minilm((student, ours), (teacher, theirs), MASK, causal=True)
    flat = [x.reshape(3, 4, -1) for x in (ours, theirs)]
    expected = relations.attention_kl(student, teacher, MASK)[0]
    expected += exact_relation(*flat, MASK, 2, True)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert count == 9


def test_bfloat16_and_vmap(key):
    student, teacher = jax.random.normal(key, (2, 3, 4, 4)).astype(jnp.bfloat16)
    run = relation_program(False)
    (value, _), (slope, _) = run(student, teacher, MASK)
    wide = run(student.astype(jnp.float32), teacher.astype(jnp.float32), MASK)
    np.testing.assert_allclose(value, wide[0][0], rtol=1e-5)
    assert value.dtype == jnp.float32 and slope.dtype == jnp.bfloat16
    each = jax.jit(jax.vmap(functools.partial(relations.relation_kl, heads=2)))
    means, counts = each(student, teacher, MASK)
    np.testing.assert_allclose((means * counts).sum() / counts.sum(), value, rtol=1e-5)


def test_bad_input(key):
    x, pattern = jnp.ones((3, 4, 6)), jnp.ones((3, 2, 4, 4))
    with pytest.raises(ValueError, match="heads: expected a divisor of the width 6, got 4"):
        relations.relation_kl(x, x, heads=4)
    with pytest.raises(ValueError, match="heads: expected a divisor"):
        relations.relation_kl(x, x, heads=0)
    with pytest.raises(ValueError, match=r"teacher: expected shape \(3, 4, 6\)"):
        relations.relation_kl(x, x[:1], heads=2)
    with pytest.raises(ValueError, match=r"mask: expected shape \(3, 4\)"):
        relations.relation_kl(x, x, jnp.ones((4, 3)), heads=2)
    for loss in (relations.attention_kl, relations.attention_mse):
        with pytest.raises(ValueError, match=r"teacher: expected shape \(3, 2, 4, 4\)"):
            loss(pattern, pattern[:, :1])
        with pytest.raises(ValueError, match=r"mask: expected shape \(3, 4\)"):
            loss(pattern, pattern, jnp.ones((3, 2)))
    values = jnp.ones((3, 4, 2, 3))
    with pytest.raises(ValueError, match="the teacher's values: expected shape"):
        relations.minilm((pattern, values), (pattern, values[:, :, :1]))
    with pytest.raises(ValueError, match="student, teacher and alphas: expected one length"):
        relations.minilm_v2((x, x, x), (x, x), heads=2)
