"""The chunked loss is the plain one of hidden states times unembedding, without the logits."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxcompress import train
from jaxcompress.distill import chunked, losses
from scripts import bench_distill_loss
from tests.distill import reference

HOT = functools.partial(losses.forward_kl, temperature=2.0)
LOSSES = {
    "forward_kl": HOT,
    "mixed": functools.partial(losses.mixed, alpha=0.3, distillation=HOT),
    "jsd": functools.partial(losses.jsd, beta=0.1),
}


def inputs(key, positions=(2, 7), widths=(6, 4), vocab=11):
    """Student and teacher of different widths, a mask of weights, and labels."""
    keys = iter(jax.random.split(key, 6))
    pairs = [
        (
            jax.random.normal(next(keys), (*positions, width)),
            jax.random.normal(next(keys), (width, vocab)),
        )
        for width in widths
    ]
    mask = jax.random.uniform(next(keys), positions).at[..., -2:].set(0.0)
    return *pairs, mask, jax.random.randint(next(keys), positions, 0, vocab)


def plain(loss):
    return lambda student, teacher, *rest: loss(
        student[0] @ student[1], teacher[0] @ teacher[1], *rest
    )


@functools.cache
def program(name, chunk=None):
    """Value, count, and the gradient with respect to both pairs; the plain loss for no chunk."""
    loss = LOSSES[name]
    loss = chunked.chunked(loss, chunk) if chunk else plain(loss)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def arguments(name, key, **sizes):
    found = inputs(key, **sizes)
    return found if name == "mixed" else found[:-1]


def same(ours, theirs, atol=1e-6):
    """Value, count and the student's gradient; and none to the teacher."""
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    for a, b in zip(ours[1][0], theirs[1][0], strict=True):
        np.testing.assert_allclose(a, b, atol=atol)
    assert not any(gradient.any() for gradient in ours[1][1])


@pytest.mark.parametrize(("name", "chunk"), [("forward_kl", 3), ("mixed", 4), ("jsd", 64)])
def test_equal_to_the_plain_loss(name, chunk, key):
    """For chunks that divide the 14 tokens and others, and one that is larger."""
    given = arguments(name, key)
    same(program(name, chunk)(*given), program(name)(*given))


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_the_unembedding_is_added_to_in_rows(rows, key, monkeypatch):
    """Rows that divide the width of 6 and that leave some over."""
    given = arguments("forward_kl", key)
    monkeypatch.setattr(chunked, "ROWS", rows)
    loss = jax.value_and_grad(chunked.chunked(HOT, 4), argnums=(0, 1), has_aux=True)
    same(jax.jit(loss)(*given), program("forward_kl")(*given))


def test_golden():
    """With the identity as unembedding, hidden states are logits: the value of B.9 at T = 2."""
    pairs = [
        (jnp.array([logits]), jnp.eye(5))
        for logits in (reference.GOLDEN_STUDENT, reference.GOLDEN_TEACHER)
    ]
    loss, count = chunked.chunked(HOT, 2)(*pairs)
    np.testing.assert_allclose(loss, 0.39781950, atol=1e-6)
    assert count == 1


def test_without_a_gradient_it_is_the_same(key):
    given = arguments("mixed", key)
    value = jax.jit(chunked.chunked(LOSSES["mixed"], 4))(*given)
    np.testing.assert_allclose(value, program("mixed")(*given)[0], rtol=1e-5)


def test_as_part_of_a_larger_loss(key):
    """The gradient is scaled by what comes after."""
    student, teacher, mask = arguments("forward_kl", key)

    def tripled(loss):
        return jax.jit(jax.grad(lambda s: 3 * loss(s, teacher, mask)[0] ** 2))(student)

    ours, theirs = tripled(chunked.chunked(HOT, 4)), tripled(plain(HOT))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_logits_are_never_all_there(key):
    """No intermediate of value and gradient has all tokens and the whole vocabulary."""
    given = arguments("mixed", key, positions=(24,), vocab=50)

    def shapes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.shape for variable in equation.outvars)
            for inner in jax.tree.leaves(list(equation.params.values())):
                inner = getattr(inner, "jaxpr", inner)
                yield from shapes(inner) if hasattr(inner, "eqns") else ()

    def largest(name, chunk):
        jaxpr = jax.make_jaxpr(program(name, chunk))(*given)
        return max(int(np.prod(s[:-1])) for s in shapes(jaxpr.jaxpr) if s and s[-1] == 50)

    assert largest("mixed", None) == 24
    assert largest("mixed", 4) == 6  # the width, of the unembedding's gradient


@pytest.mark.parametrize("junk", [jnp.nan, 1e30])
def test_padding_changes_nothing(junk, key):
    student, teacher, mask, labels = inputs(key)
    given = student, teacher, mask, labels
    (hidden, unembedding), (other, other_unembedding) = student, teacher
    hidden, other = (x.at[mask == 0].set(junk) for x in (hidden, other))
    dirty = (hidden, unembedding), (other, other_unembedding), mask, labels.at[:, -2:].set(-100)
    ours = program("mixed", 4)(*dirty)
    same(ours, program("mixed")(*given))
    assert not ours[1][0][0][:, -2:].any()


def test_nothing_to_average_is_zero(key):
    student, teacher, mask, labels = inputs(key)
    (value, count), (gradient, _) = program("mixed", 4)(student, teacher, 0 * mask, labels)
    assert value == 0 and count == 0
    assert not any(x.any() for x in gradient)


def test_no_mask_is_all(key):
    student, teacher, mask = arguments("forward_kl", key)
    loss = chunked.chunked(HOT, 4)
    value, count = loss(student, teacher)
    np.testing.assert_allclose(value, loss(student, teacher, jnp.ones(mask.shape))[0], rtol=1e-6)
    assert count == 14


def test_bfloat16(key):
    """The value as exact as of float32 logits, the gradients to about what bfloat16 holds."""
    wide = arguments("forward_kl", key)
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), wide[:2])
    exact = program("forward_kl")(*jax.tree.map(lambda x: x.astype(jnp.float32), narrow), wide[2])
    value, (gradient, _) = program("forward_kl", 4)(*narrow, wide[2])
    np.testing.assert_allclose(value, exact[0], rtol=1e-5)
    for a, b in zip(gradient, exact[1][0], strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=float(abs(b).max()) * 2**-7)


def test_vmap(key):
    """Over the leading axis, of hidden states and mask only."""
    student, teacher, mask, labels = inputs(key)
    loss = chunked.chunked(LOSSES["mixed"], 4)

    def total(student, teacher):
        axes = ((0, None), (0, None), 0, 0)
        means, counts = jax.vmap(loss, in_axes=axes)(student, teacher, mask, labels)
        return (means * counts).sum() / counts.sum(), counts.sum()

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    same(run(student, teacher), program("mixed")(student, teacher, mask, labels))


def test_bad_input(key):
    student, teacher, mask, labels = inputs(key)
    with pytest.raises(ValueError, match="chunk: expected a whole number >= 1, got 0"):
        chunked.chunked(HOT, 0)
    loss = chunked.chunked(LOSSES["mixed"], 4)
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 7\)"):
        loss(student, teacher, mask.T, labels)
    with pytest.raises(ValueError, match=r"more: expected shape \(2, 7\).*got shape \(7, 2\)"):
        loss(student, teacher, mask, labels.T)
    with pytest.raises(
        ValueError, match=r"the teacher's hidden states: expected shape \(2, 7, 4\)"
    ):
        loss(student, (teacher[0][:1], teacher[1]), mask, labels)
    with pytest.raises(ValueError, match=r"the student's unembedding: expected shape \(6, 6\)"):
        loss((student[0], student[1].T), teacher, mask, labels)


def test_the_benchmark_runs(capsys):
    bench_distill_loss.main(bench_distill_loss.Args(quick=True))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {"memory_ratio", "time_ratio", "device"}
    assert result["memory_ratio"] > 1


def test_parts_lie_on_devices_of_their_own(key):
    """Equal to the plain loss, and no hidden state or unembedding gradient of a chunk travels."""
    given = arguments("forward_kl", key, positions=(4, 7))
    loss = chunked.chunked(LOSSES["forward_kl"], 3, parts=2)
    split = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    same(split(*given), program("forward_kl")(*given))

    mesh = train.make_mesh(2)
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    student, teacher, mask = given
    placed = [
        (jax.device_put(hidden, rows), jax.device_put(table, whole))
        for hidden, table in (student, teacher)
    ]
    program_text = split.lower(*placed, jax.device_put(mask, rows)).compile().as_text()
    assert "all-reduce" in program_text and "all-gather" not in program_text
    same(split(*placed, jax.device_put(mask, rows)), program("forward_kl")(*given))


@pytest.mark.parametrize("parts", [0, 3])
def test_parts_have_equally_many_rows(parts, key):
    with pytest.raises(ValueError, match="parts: expected"):
        chunked.chunked(LOSSES["forward_kl"], 3, parts=parts)(*arguments("forward_kl", key))
