"""The calibrated score on made-up profiles and on a model in disguise; transport by brute force."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.align import Profile, algorithm, calibrated, disguise, mean_of, shares
from jaxcompress.align.causal import MARKS, marks, masses
from jaxcompress.align.matching import transport
from jaxcompress.cka import linear_cka, pairwise_cka
from jaxcompress.models import ModelConfig, create
from tests.align.made_up import COUNT, made_up


def test_a_model_against_itself_is_one_and_its_interval_is_a_point():
    one = made_up(0)
    found = calibrated(one, one, samples=50)
    assert found.value == pytest.approx(1.0, abs=1e-6)
    assert found.interval == pytest.approx((1.0, 1.0), abs=1e-6)
    np.testing.assert_allclose(found.plan.sum(axis=0), masses(one), atol=1e-9)
    assert all(value == pytest.approx(1.0, abs=1e-4) for value in found.variants.values())


def test_unrelated_models_are_near_zero_and_given_ones_set_the_null():
    teacher, student, other = made_up(0), made_up(1), made_up(2)
    assert calibrated(teacher, student, samples=50).value < 0.1
    found = calibrated(teacher, student, unrelated={"same": student, "other": other}, samples=20)
    assert found.null == pytest.approx(found.raw)
    assert found.value == 0.0
    # Where even the model itself is called unrelated, nothing can be told apart.
    assert calibrated(teacher, teacher, unrelated={"self": teacher}, samples=5).value == 0.0


def test_order_of_components_does_not_matter():
    teacher, student = made_up(0), mixed(made_up(0), made_up(1), 0.5)
    order = np.array([3, 1, 0, 2, 5, 4])
    moved = dataclasses.replace(
        student,
        effects=student.effects[order],
        logits=student.logits[order],
        written=(student.written[0][order[:4]], student.written[1][order[4:] - 4]),
        attention=student.attention[order[:4]],
        roles=student.roles[order[:4]],
    )
    a, b = (calibrated(teacher, one, samples=5) for one in (student, moved))
    assert a.raw == pytest.approx(b.raw, abs=1e-6)
    assert a.variants == pytest.approx(b.variants, abs=1e-5)
    assert 0.3 < a.raw < 0.9


def mixed(a: Profile, b: Profile, share: float) -> Profile:
    logits = (1 - share) * a.logits + share * b.logits
    return dataclasses.replace(a, logits=logits)


def test_the_score_falls_with_the_share_of_noise():
    teacher, noise = made_up(0), made_up(1)
    values = [
        calibrated(teacher, mixed(teacher, noise, share), samples=5).value
        for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    assert (np.diff(values) < 0).all()


def test_merged_components_keep_their_mass():
    teacher = made_up(0)
    # Heads 0 and 1 do the same in the teacher; one head of the student does the work of both.
    logits, effects = teacher.logits.copy(), teacher.effects.copy()
    logits[1], effects[1] = logits[0], effects[0]
    teacher = dataclasses.replace(teacher, logits=logits, effects=effects)
    merged = effects.copy()
    merged[0], merged[1] = 2 * effects[0], 0
    student = dataclasses.replace(teacher, effects=merged)
    found = calibrated(teacher, student, samples=5)
    assert found.raw == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(found.plan[0, :2], masses(teacher)[:2], atol=1e-9)


def test_where_nothing_matters_there_is_no_score():
    one = made_up(0)
    idle = dataclasses.replace(one, logits=1e-7 * one.logits, effects=1e-7 * one.effects)
    assert np.isnan(calibrated(idle, one, samples=10).value)
    assert calibrated(one, idle, samples=10).raw > 0.9  # alike, if small: scale does not count


def test_profiles_of_other_prompts_are_refused():
    other = dataclasses.replace(made_up(1), logits=made_up(1).logits[:, :5])
    with pytest.raises(ValueError, match="the same prompts and vocabulary for both models"):
        calibrated(made_up(0), other)


def test_across_lets_a_head_stand_for_an_mlp():
    teacher, student = made_up(0), made_up(1)
    logits = student.logits.copy()
    logits[0] = teacher.logits[5]
    student = dataclasses.replace(student, logits=logits)
    apart = marks(student, teacher, only=("causal",))["causal"]
    across = marks(student, teacher, across=True, only=("causal",))["causal"]
    assert apart[0, 5] == 0.0
    assert across[0, 5] == pytest.approx(1.0, abs=1e-6)
    assert set(marks(student, teacher)) == set(MARKS)
    with pytest.raises(ValueError, match="did you mean 'causal'"):
        marks(student, teacher, only=("casual",))


def test_attention_without_the_sink_forgets_the_first_position():
    teacher, student = made_up(0), made_up(0)
    rows = student.attention.copy()
    rows[..., 0] = 50.0
    found = marks(dataclasses.replace(student, attention=rows), teacher)
    np.testing.assert_allclose(np.diag(found["attention"]), 1.0, atol=1e-5)
    assert (np.diag(found["attention_with_sink"])[:4] < 0.9).all()


def test_mean_over_tasks_is_narrower_than_one_task():
    rng = np.random.default_rng(0)
    one = [(0.5, 0.5 + 0.1 * rng.normal(size=4000)) for _ in range(4)]
    value, (low, high) = mean_of(one)
    assert value == 0.5
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 2, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_transport_of_equal_masses_is_the_best_permutation(seed: int):
    similarity = np.random.default_rng(seed).random((4, 4))
    plan = transport(similarity, np.full(4, 0.25), np.full(4, 0.25))
    best = max(similarity[range(4), list(p)].sum() for p in itertools.permutations(range(4)))
    assert (plan * similarity).sum() == pytest.approx(best / 4, abs=1e-9)


def test_transport_leaves_what_is_not_alike_and_never_overfills():
    rng = np.random.default_rng(1)
    similarity = rng.uniform(-1, 1, (5, 3))
    rows, columns = rng.random(5), rng.random(3)
    plan = transport(similarity, rows, columns)
    assert (plan[similarity <= 0] == 0).all()
    assert (plan.sum(axis=1) <= rows + 1e-9).all()
    assert (plan.sum(axis=0) <= columns + 1e-9).all()
    assert not transport(-np.ones((2, 2)), [1, 1], [1, 1]).any()
    with pytest.raises(ValueError, match="similarity"):
        transport(similarity, columns, rows)


def test_shares_of_variance_on_a_grid_are_exact():
    a, b = np.divmod(np.arange(49), 7)
    wave = lambda x: np.cos(2 * np.pi * x / 7)  # noqa: E731
    effects = np.stack([wave(a), wave(a) + wave(a + b), wave(2 * (a - b)), np.ones(49)])
    factors = {"a": a, "b": b, "a + b": (a + b) % 7, "a - b": (a - b) % 7}
    expected = [[1, 0, 0, 0, 0], [0.5, 0, 0.5, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_allclose(shares(effects, factors), expected, atol=0.15)
    noise = np.random.default_rng(0).normal(size=(20, 49))
    # What many groups explain of noise is taken off again.
    assert shares(noise, factors)[:, -1].mean() > 0.7
    with pytest.raises(ValueError, match="factors"):
        shares(effects, {"a": a[:3]})


def test_algorithm_ignores_frequencies_and_sees_other_variables():
    found = {}
    for p in (7, 11):
        a, b = np.divmod(np.arange(p * p), p)
        factors = {"a + b": (a + b) % p, "a - b": (a - b) % p}
        for name, x in factors.items():
            waves = np.stack([np.cos(2 * np.pi * k * x / p) for k in (1, 2)])
            plain = Profile(("head 0.0", "mlp 0"), 1, waves, np.ones(p * p), None, None, None)
            found[p, name] = plain, factors
    (clock, one), (other, two), (pizza, _) = (
        found[7, "a + b"],
        found[11, "a + b"],
        found[11, "a - b"],
    )
    assert algorithm(clock, other, (one, two)) > 0.95
    assert algorithm(clock, pizza, (one, two)) == 0.0
    with pytest.raises(ValueError, match="for both"):
        algorithm(clock, other, (one, {"a + b": two["a + b"]}))


def test_pairwise_cka_is_the_debiased_one_of_every_pair():
    x, y = (jax.random.normal(jax.random.key(i), (2, 9, 3 + i)) for i in (0, 1))
    expected = [[linear_cka(p, q, debiased=True) for q in y] for p in x]
    np.testing.assert_allclose(pairwise_cka(x, y), expected, atol=1e-5)
    with pytest.raises(ValueError, match="at least 4"):
        pairwise_cka(x[:, :3], y[:, :3])


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "none"])
def test_a_disguise_changes_no_logit_and_every_weight(norm: str):
    config = ModelConfig(
        family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8, neurons=6, vocab=11,
        context=5, norm=norm,
    )  # fmt: skip
    made = create(config, key=jax.random.key(0))
    params = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), made.params
    )
    model = made.replace(params=params)
    other = create(*(lambda m: (m.config, m.params))(disguise(model, jax.random.key(1))))
    tokens = jnp.arange(10).reshape(2, 5)
    a, b = (m.apply(m.params, tokens).logits for m in (model, other))
    np.testing.assert_allclose(a, b, atol=2e-4)
    old, new = (m.params["blocks"]["attn"]["value"]["kernel"] for m in (model, other))
    assert float(jnp.abs(old - new).max()) > 0.1
    assert COUNT > 0


def test_a_disguise_of_another_kind_of_model_is_refused():
    config = ModelConfig(
        family="llama", layers=1, heads=2, kv_heads=1, head_dim=4, width=8, neurons=6, vocab=11,
        context=5, positions="rope",
    )  # fmt: skip
    with pytest.raises(ValueError, match="even pre-norm layers"):
        disguise(create(config, key=jax.random.key(0)), jax.random.key(1))
