"""Losses: golden values, limits, extreme logits, and padding that changes nothing."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress.distill import losses
from tests.distill import reference

# reference/compression.md B.9, computed in float64; equal to TRL's and TextBrewer's losses.
TEACHER = jnp.array([reference.GOLDEN_TEACHER])
STUDENT = jnp.array([reference.GOLDEN_STUDENT])


def random_logits(key, *shape, scale=1.0):
    return scale * jax.random.normal(key, shape)


# Each loss with the one that reference.py writes out.
DIVERGENCES = {
    "forward_kl": (losses.forward_kl, reference.forward_kl, {}),
    "forward_kl hot": (losses.forward_kl, reference.forward_kl, {"temperature": 2.0}),
    "reverse_kl": (losses.reverse_kl, reference.reverse_kl, {}),
    "reverse_kl hot": (losses.reverse_kl, reference.reverse_kl, {"temperature": 2.0}),
    "jsd": (losses.jsd, reference.jsd, {"beta": 0.1}),
    "total_variation": (losses.total_variation, reference.total_variation, {}),
    "top_k_kl": (losses.top_k_kl, reference.top_k_kl, {"k": 2}),
    "renormalised": (losses.top_k_kl, reference.top_k_kl, {"k": 2, "tail": "renormalise"}),
}
EACH = pytest.mark.parametrize("name", DIVERGENCES)
NAMES = pytest.mark.parametrize("name", [*DIVERGENCES, "cross_entropy", "mixed"])


def call(name, student, teacher, mask=None, labels=None):
    if name == "cross_entropy":
        return losses.cross_entropy(student, labels, mask)
    if name == "mixed":
        return losses.mixed(student, teacher, mask, labels, alpha=0.3)
    ours, _, options = DIVERGENCES[name]
    return ours(student, teacher, mask, **options)


@functools.cache
def program(name):
    """`call`, and the gradient with respect to student and teacher, compiled once."""
    whole = functools.partial(call, name)
    return jax.jit(jax.value_and_grad(whole, argnums=(0, 1), has_aux=True))


def batch(key, rows=3, length=4, vocab=7):
    student, teacher = jax.random.normal(key, (2, rows, length, vocab))
    labels = jax.random.randint(key, (rows, length), 0, vocab)
    return student, teacher, labels


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
    np.testing.assert_allclose(losses.reverse_kl(STUDENT, TEACHER)[0], 0.39079285, atol=1e-6)


# Never only 0.5: weights and mixture swapped against each other agree there. At the ends it is
# forward and reverse KL, as in TRL, where others return the formula's 0.
@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (0, 0.40755731),
        (0.1, 0.03585426),
        (0.3, 0.08112676),
        (0.5, 0.09514201),
        (0.9, 0.03469329),
        (1.0, 0.39079285),
    ],
)
def test_jsd_golden(beta, expected):
    np.testing.assert_allclose(losses.jsd(STUDENT, TEACHER, beta=beta)[0], expected, atol=1e-6)


def test_jsd_next_to_the_ends(key):
    """Divided by beta (1 - beta) it goes to forward (reverse) KL; turned round it is the same."""
    student, teacher = random_logits(key, 2, 3, 7)
    for beta, limit in ((1e-3, losses.forward_kl), (1 - 1e-3, losses.reverse_kl)):
        with pytest.warns(UserWarning, match=r"about 0.001 times (forward|reverse) KL"):
            value = losses.jsd(student, teacher, beta=beta)[0]
        np.testing.assert_allclose(value / 1e-3, limit(student, teacher)[0], rtol=2e-2)
        with pytest.warns(UserWarning, match="times"):
            turned = losses.jsd(teacher, student, beta=1 - beta)[0]
        np.testing.assert_allclose(value, turned, rtol=1e-3)


def test_total_variation_golden():
    np.testing.assert_allclose(losses.total_variation(STUDENT, TEACHER)[0], 0.38921673, atol=1e-6)


def test_total_variation_is_bounded(key):
    """By 1, which disjoint distributions reach, and by Pinsker's inequality."""
    apart = jnp.array([[200.0, 0.0]]), jnp.array([[0.0, 200.0]])
    np.testing.assert_allclose(losses.total_variation(*apart)[0], 1.0)
    pairs = random_logits(key, 2, 30, 7, scale=3.0)
    each = (
        jax.jit(jax.vmap(loss))(*pairs)[0] for loss in (losses.total_variation, losses.forward_kl)
    )
    variation, divergence = each
    assert (variation <= jnp.sqrt(divergence / 2)).all() and (variation > 0).all()


@pytest.mark.parametrize(
    ("tail", "expected"), [("bucket", 0.37589401), ("renormalise", 0.46211716)]
)
def test_top_k_kl_golden(tail, expected):
    value = losses.top_k_kl(STUDENT, TEACHER, k=2, tail=tail)[0]
    np.testing.assert_allclose(value, expected, atol=1e-6)


def test_mass_in_the_tail_costs():
    """The student moves to a token outside the top 2: the bucket sees it, renormalised is blind."""
    away = STUDENT.at[0, 3].set(8.0)
    before, after = (losses.top_k_kl(s, TEACHER, k=2)[0] for s in (STUDENT, away))
    assert after > before + 1
    blind = functools.partial(losses.top_k_kl, k=2, tail="renormalise")
    np.testing.assert_allclose(blind(away, TEACHER)[0], blind(STUDENT, TEACHER)[0], atol=1e-6)


def test_top_k_kl_lies_between_zero_and_forward_kl(key):
    """It grows with k, up to forward KL for all tokens; the truncated sum goes below 0."""
    student, teacher = random_logits(key, 2, 40, 6, scale=3.0)
    values = np.array(
        [
            jax.jit(jax.vmap(lambda s, t, k=k: losses.top_k_kl(s, t, k=k)[0]))(student, teacher)
            for k in (1, 2, 5, 6)
        ]
    )
    assert (values >= 0).all()
    assert (np.diff(values, axis=0) > -1e-5).all()
    whole = jax.vmap(lambda s, t: losses.forward_kl(s, t)[0])(student, teacher)
    np.testing.assert_allclose(values[-1], whole, rtol=1e-5, atol=1e-6)
    log_p, log_q = (np.asarray(jax.nn.log_softmax(x)) for x in (teacher, student))
    first = log_p.argmax(axis=1)[:, None]
    truncated = [np.take_along_axis(log, first, 1) for log in (log_p, log_q)]
    assert (np.exp(truncated[0]) * (truncated[0] - truncated[1])).min() < 0


def test_mixed_is_the_weighted_sum(key):
    student, teacher = random_logits(key, 2, 3, 7)
    labels, mask = jnp.array([1, 6, 0]), jnp.array([1.0, 0.0, 2.0])
    hot = functools.partial(losses.reverse_kl, temperature=3.0)
    value, count = losses.mixed(student, teacher, mask, labels, alpha=0.7, distillation=hot)
    soft, hard = hot(student, teacher, mask)[0], losses.cross_entropy(student, labels, mask)[0]
    np.testing.assert_allclose(value, 0.7 * soft + 0.3 * hard, rtol=1e-6)
    assert count == 3


def test_forward_kl_of_itself_is_zero(key):
    logits, _, labels = batch(key)
    (loss, _), (grad, _) = program("forward_kl")(logits, logits, jnp.ones(labels.shape), labels)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    np.testing.assert_allclose(grad, 0.0, atol=1e-7)


def test_forward_kl_gradient(key):
    """dL/dz = T (q - p), divided by the number of positions.

    For T -> infinity this is the gradient of half the mean square of centred differences.
    """
    student, teacher = np.asarray(random_logits(key, 2, 6, 7))
    slope = jax.jit(
        jax.grad(lambda s, t: losses.forward_kl(s, jnp.asarray(teacher), temperature=t)[0])
    )
    for temperature in (1.0, 2.0, 5.0):
        q, p = (np.exp(reference.log_softmax(z / temperature)) for z in (student, teacher))
        np.testing.assert_allclose(
            slope(student, temperature), temperature * (q - p) / 6, atol=1e-6
        )
    ours, theirs = (z - z.mean(axis=1, keepdims=True) for z in (student, teacher))
    np.testing.assert_allclose(slope(student, 1e3), (ours - theirs) / 7 / 6, atol=4e-4)


def test_forward_kl_divides_by_positions_not_by_vocabulary():
    # Model-Optimizer's reduction="mean" comes out V times too small.
    many = losses.forward_kl(jnp.tile(STUDENT, (6, 1)), jnp.tile(TEACHER, (6, 1)))
    np.testing.assert_allclose(many[0], 0.40755731, atol=1e-6)
    assert many[1] == 6


@EACH
def test_values_and_slopes(name, key):
    """Against float64 and its central differences; and nothing flows to the teacher."""
    _, exact, options = DIVERGENCES[name]
    student, teacher, labels = batch(key)
    mask = jnp.ones(labels.shape)
    (value, _), (slope, none) = program(name)(student, teacher, mask, labels)
    np.testing.assert_allclose(value, exact(student, teacher, **options).mean(), rtol=1e-5)
    expected = reference.slope(lambda s: exact(s, teacher, **options).mean(), student)
    np.testing.assert_allclose(slope, expected, atol=2e-6)
    assert not none.any()


EXTREMES = [
    ([200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]),
    ([-200.0, 200.0, 0.0], [-200.0, 200.0, 0.0]),
    ([1.0, 2.0, -jnp.inf], [2.0, 1.0, -jnp.inf]),
    ([1.0, 2.0, 3.0], [2.0, 1.0, -jnp.inf]),
    ([0.0, 1.0, 200.0], [-jnp.inf, 0.0, -jnp.inf]),
    ([-jnp.inf, 0.0, -jnp.inf], [-jnp.inf, 0.0, -jnp.inf]),
]


# A student that rules out what is right: its cost may be infinite, its gradient not.
WRONG = ([0.0, 1.0, -jnp.inf], [0.0, 1.0, 2.0])


@EACH
def test_extreme_logits(name):
    """Underflow and ruled-out tokens: the exact value, and a finite gradient."""
    ours, exact, options = DIVERGENCES[name]
    student, teacher = (jnp.array(rows) for rows in zip(*EXTREMES, WRONG, strict=True))
    each = jax.vmap(jax.value_and_grad(lambda s, t: ours(s, t, **options)[0]))
    value, slope = jax.jit(each)(student, teacher)
    np.testing.assert_allclose(value, exact(student, teacher, **options), rtol=1e-5, atol=1e-6)
    assert jnp.isfinite(slope).all()
    assert (value > -1e-6).all()


def test_a_student_that_rules_out_all_of_the_top():
    """Its cost is infinite; beside another position the gradient of that one is as it was."""
    student = jnp.array([[-jnp.inf, -jnp.inf, 0.0], [1.0, 0.0, 0.0]])
    teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 1.0, -1.0]])
    for tail in losses.TAILS:
        loss = lambda s, t, tail=tail: losses.top_k_kl(s, t, k=2, tail=tail)[0]  # noqa: E731
        value, slope = jax.value_and_grad(loss)(student, teacher)
        assert value == jnp.inf and jnp.isfinite(slope).all()
        alone = jax.grad(loss)(student[1:], teacher[1:])
        np.testing.assert_allclose(slope[1:], alone / 2, rtol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_a_term_without_a_share_may_be_infinite(traced):
    student, surprised = jnp.array([[0.0, 1.0, -jnp.inf]]), jnp.array([[0.0, 1.0, 2.0]])

    def mix(student, teacher, alpha, label):
        return losses.mixed(student, teacher, None, label, alpha=alpha)[0]

    for alpha, teacher, label, finite in (
        (0.0, surprised, 1, True),
        (0.5, surprised, 1, False),
        (1.0, student, 2, True),
        (0.5, student, 2, False),
    ):
        share = jnp.asarray(alpha) if traced else alpha
        value, slope = jax.value_and_grad(mix)(student, teacher, share, jnp.array([label]))
        assert jnp.isfinite(value) == finite and jnp.isfinite(slope).all()


@EACH
def test_bfloat16_logits_are_computed_in_float32(name, key):
    student, teacher, labels = batch(key)
    student, teacher = student.astype(jnp.bfloat16), teacher.astype(jnp.bfloat16)
    mask = jnp.ones(labels.shape)
    (value, _), (slope, _) = program(name)(student, teacher, mask, labels)
    wide = (x.astype(jnp.float32) for x in (student, teacher))
    np.testing.assert_allclose(value, program(name)(*wide, mask, labels)[0][0], rtol=1e-6)
    assert value.dtype == jnp.float32
    assert slope.dtype == jnp.bfloat16


@pytest.mark.torch
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_against_torch(temperature, key):
    """F.kl_div with logarithms of both and reduction="batchmean", either way round."""
    import torch
    from torch.nn import functional

    student, teacher = random_logits(key, 2, 4, 6, scale=3.0)
    theirs = torch.tensor(np.asarray(student), requires_grad=True)
    q = functional.log_softmax(theirs / temperature, -1)
    p = functional.log_softmax(torch.tensor(np.asarray(teacher)) / temperature, -1)
    for ours, pair in ((losses.forward_kl, (q, p)), (losses.reverse_kl, (p, q))):
        expected = functional.kl_div(*pair, reduction="batchmean", log_target=True)
        expected = expected * temperature**2
        (slope,) = torch.autograd.grad(expected, theirs, retain_graph=True)
        value, gradient = jax.value_and_grad(
            lambda s, ours=ours: ours(s, teacher, temperature=temperature)[0]
        )(student)
        np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
        np.testing.assert_allclose(gradient, slope, atol=2e-6)


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


@NAMES
def test_padding_changes_nothing(name, key):
    """Appended padding, whatever it holds, changes neither value, count nor gradient."""
    student, teacher, labels = batch(key)
    mask = jnp.ones(labels.shape)
    (value, count), (grad, _) = program(name)(student, teacher, mask, labels)

    def padded(x, value):
        return jnp.concatenate([x, jnp.full_like(x, value)], axis=1)

    for junk in (0.0, 1e30, jnp.nan, jnp.inf):
        wide = [padded(x, junk) for x in (student, teacher)]
        wide += [padded(mask, 0), padded(labels, -100)]
        (wide_value, wide_count), (wide_grad, _) = program(name)(*wide)
        np.testing.assert_allclose(value, wide_value, rtol=1e-6)
        np.testing.assert_allclose(grad, wide_grad[:, :4], rtol=1e-5, atol=1e-7)
        assert not wide_grad[:, 4:].any()
        assert count == wide_count == 12


@NAMES
def test_masks_are_weights(name, key):
    student, teacher, labels = batch(key)

    def run(mask):
        return program(name)(student, teacher, mask, labels)[0]

    weights = jnp.zeros(labels.shape).at[0, 1].set(3.0).at[2, 2].set(1.0)
    single = [run(weights.at[place].set(0.0))[0] for place in ((2, 2), (0, 1))]
    value, count = run(weights)
    np.testing.assert_allclose(value, (3 * single[0] + single[1]) / 4, rtol=1e-6)
    assert count == 4


@NAMES
def test_nothing_to_average_is_zero(name, key):
    student, teacher, labels = batch(key)
    mask = jnp.zeros(labels.shape)
    (value, count), (grad, _) = program(name)(student, teacher, mask, labels)
    assert value == 0 and count == 0 and not grad.any()


@NAMES
def test_transforms(name, key):
    """The same number without jit, and as one of a vmapped batch; bools are weights 1 and 0."""
    student, teacher, labels = batch(key)
    mask = labels > 1
    (expected, count), _ = program(name)(student, teacher, mask.astype(float), labels)
    plain = call(name, student, teacher, mask, labels)
    np.testing.assert_allclose(plain, (expected, count), rtol=1e-5)
    rows = jax.jit(jax.vmap(functools.partial(call, name)))(student, teacher, mask, labels)
    means, counts = (np.asarray(x) for x in rows)
    np.testing.assert_array_equal(counts, mask.sum(axis=1))
    np.testing.assert_allclose((means * counts).sum() / counts.sum(), expected, rtol=1e-5)


def test_temperature_may_be_traced(key):
    student, teacher, _ = batch(key)
    hot = jax.jit(lambda t: losses.forward_kl(student, teacher, temperature=t)[0])
    np.testing.assert_allclose(
        hot(3.0), losses.forward_kl(student, teacher, temperature=3.0)[0], rtol=1e-6
    )


@pytest.mark.parametrize("loss", [losses.forward_kl, losses.reverse_kl])
@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan"), np.float32(0)])
def test_temperature_is_positive(loss, temperature):
    with pytest.raises(ValueError, match="temperature: expected a number above 0"):
        loss(STUDENT, TEACHER, temperature=temperature)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (losses.jsd, {"beta": 1.5}, r"beta: expected a number in \[0, 1\], got 1.5"),
        (losses.jsd, {"beta": float("nan")}, "beta: expected"),
        (losses.mixed, {"labels": jnp.array([0]), "mask": None, "alpha": -1}, "alpha: expected"),
        (losses.mixed, {"labels": jnp.array([0]), "mask": None, "alpha": np.float32(2)}, "alpha"),
        (losses.top_k_kl, {"k": 0}, r"k: expected a whole number in \[1, 5\], got 0"),
        (losses.top_k_kl, {"k": 6}, "k: expected"),
        (losses.top_k_kl, {"k": 2, "tail": "truncate"}, "tail: expected one of"),
    ],
)
def test_bad_options(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(STUDENT, TEACHER, **options)


@EACH
def test_teachers_are_not_broadcast(name):
    ours, _, options = DIVERGENCES[name]
    many = jnp.tile(STUDENT, (3, 1))
    with pytest.raises(ValueError, match=r"teacher_logits: expected shape \(3, 5\).*\(1, 5\)"):
        ours(many, TEACHER, **options)


@NAMES
def test_masks_are_not_broadcast(name, key):
    student, teacher, labels = batch(key)
    with pytest.raises(ValueError, match=r"mask: expected shape \(3, 4\).*got shape \(4,\)"):
        call(name, student, teacher, jnp.ones(4), labels)
