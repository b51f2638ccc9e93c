"""The published score and ours: stored figures, bounds, identities, and nulls that behave."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcompress.align import profile, score, similarities
from jaxcompress.align.score import influence, overlap, published, weighted
from jaxcompress.models import ModelConfig, create
from jaxcompress.tasks import Prompts

CONFIG = ModelConfig(
    family="gpt2",
    layers=3,
    heads=4,
    kv_heads=4,
    head_dim=4,
    width=16,
    neurons=32,
    vocab=23,
    context=8,
)
# Of the notebooks: score, mean similarity, mean |difference of influence|, pairs, total variation.
STORED = {
    "number words": (0.8954, 0.9038, 0.0097, 114, 0.55),
    "IOI": (0.9005, 0.9096, 0.0132, 78, 0.52),
    "SimpleQA": (0.9436, 0.9563, 0.0152, 85, 0.65),
}


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    rng = np.random.default_rng(0)
    tokens, corrupted = rng.integers(0, 23, (2, 12, 6))
    mask = np.ones((12, 6), np.int32)
    mask[3, 4:] = 0
    position = mask.sum(axis=1) - 1
    correct, wrong = rng.integers(0, 23, (2, 12, 1))
    return Prompts(tokens, corrupted, mask, position, correct, wrong)


def model(seed: int, **changes: int | str):
    made = create(
        ModelConfig(**(CONFIG.__dict__ | changes)), key=jax.random.key(seed), name=f"seed {seed}"
    )
    return made.replace(params=jax.tree.map(lambda x: 3 * x, made.params))


@pytest.mark.parametrize("task", STORED)
def test_arithmetic_of_the_stored_figures(task: str):
    stored, similarity, difference, pairs, variation = STORED[task]
    # Two influence distributions over the pairs with the stored distance: half of it on either
    # side of the uniform one.
    student = np.full(pairs, 1.0)
    teacher = np.full(pairs, 1.0)
    half = pairs // 2
    teacher[:half] += difference * pairs * pairs / (2 * half)
    teacher[-half:] -= difference * pairs * pairs / (2 * half)
    assert np.abs(student / pairs - teacher / pairs).mean() == pytest.approx(difference, rel=1e-3)
    assert 0.5 * np.abs(student - teacher).sum() / pairs == pytest.approx(variation, abs=0.006)
    got = published(np.full(pairs, similarity), student, teacher)
    assert got == pytest.approx(stored, abs=0.004)
    assert similarity - 2 / pairs <= stored <= similarity


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_published_lies_within_two_over_pairs_of_the_mean_similarity(seed: int, pairs: int):
    rng = np.random.default_rng(seed)
    similarity, student, teacher = rng.random((3, pairs)) ** 3
    value, mean = published(similarity, student, teacher), similarity.mean()
    assert mean - 2 / pairs - 1e-12 <= value <= mean + 1e-12


def test_scores_by_hand():
    similarity, student, teacher = [0.8, 0.4], [3.0, 1.0], [1.0, 1.0]
    assert published(similarity, student, teacher) == pytest.approx((0.8 * 0.75 + 0.4 * 0.75) / 2)
    assert weighted(similarity, student, teacher) == pytest.approx(0.625 * 0.8 + 0.375 * 0.4)
    assert overlap(similarity, [0.75, 0.25], [0.5, 0.5]) == pytest.approx(0.5 * 0.8 + 0.25 * 0.4)
    assert overlap([1.7], [1.0], [1.0]) == 1.0  # rescaled similarities may leave [0, 1]


def test_influence_is_absolute_rounded_percent():
    assert influence([-0.5, 0.25, -0.123456], 2.0).tolist() == [25.0, 12.5, 6.17]
    assert influence([-0.5], -2.0).tolist() == [25.0]
    assert influence([-0.5, 0.25], 0.0).tolist() == [0.5, 0.25]


def test_a_model_with_itself(prompts: Prompts):
    found = score(model(0), model(0), prompts, samples=50)
    assert found.published == pytest.approx(1.0, abs=1e-6)
    assert found.overlap == pytest.approx(1.0, abs=1e-6)
    assert found.influence_part == pytest.approx(0.0, abs=1e-9)
    assert all(pair.student == pair.teacher for pair in found.pairs)
    assert found.nulls["teacher_itself"]["published"] == found.published


def test_models_in_bfloat16_are_measured_in_float32(prompts: Prompts):
    rounded = jax.tree.map(lambda x: x.astype("bfloat16"), model(0).params)
    low = model(0, dtype="bfloat16").replace(params=rounded)
    high = model(0).replace(params=jax.tree.map(lambda x: x.astype("float32"), rounded))
    assert score(low, low, prompts, samples=5).published == pytest.approx(1.0, abs=1e-5)
    ours, theirs = profile(low, prompts), profile(high, prompts)
    for name in ("outputs", "attention", "logits"):
        one, other = (np.asarray(getattr(p, name)) for p in (ours, theirs))
        assert one.dtype == np.float32
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97
    assert {one.dtype for one in ours.written} == {np.dtype("float32")}


def test_reordering_heads_changes_no_score(prompts: Prompts):
    teacher, student = model(0), model(1)
    order = np.array([2, 0, 3, 1])
    attn = student.params["blocks"]["attn"]
    moved = {
        part: {
            "kernel": attn[part]["kernel"][:, :, order],
            "bias": attn[part]["bias"][:, order],
        }
        for part in ("query", "key", "value")
    }
    moved["output"] = attn["output"] | {"kernel": attn["output"]["kernel"][:, order]}
    blocks = student.params["blocks"] | {"attn": moved}
    shuffled = student.replace(params=student.params | {"blocks": blocks})
    a, b = (score(teacher, s, prompts, samples=20) for s in (student, shuffled))
    for name in ("published", "mean_similarity", "weighted", "overlap"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=2e-4)


def test_models_of_other_shapes_can_be_aligned(prompts: Prompts):
    found = score(model(0), model(1, layers=2, width=12, heads=2, kv_heads=2), prompts, samples=20)
    assert len(found.pairs) == 2 * 2 + 2
    assert 0.0 <= found.overlap <= 1.0
    assert found.published <= found.mean_similarity


def test_nulls(prompts: Prompts):
    teacher, student = model(0), model(1)
    found = score(teacher, student, prompts, others={"untrained_student": model(2)}, samples=400)
    assert set(found.nulls) == {
        "permuted_influences",
        "random_matching",
        "untrained_student",
        "teacher_itself",
    }
    # Random partners are less alike than best ones, by construction.
    assert found.nulls["random_matching"]["mean_similarity"]["mean"] < found.mean_similarity
    for null in ("permuted_influences", "random_matching"):
        for figures in found.nulls[null].values():
            assert 1 / 401 <= figures["p"] <= 1.0
    # A model against itself: permuting influences can only make it worse.
    own = score(teacher, teacher, prompts, samples=400).nulls["permuted_influences"]
    assert own["published"]["p"] < 0.01
    assert own["overlap"]["mean"] < 0.95
    low, high = found.interval
    assert low <= high


def test_same_seed_same_result(prompts: Prompts):
    a, b = (score(model(0), model(1), prompts, samples=30, seed=3) for _ in range(2))
    assert a == b


def test_profiles_of_different_prompts_are_refused(prompts: Prompts):
    short = prompts[np.array([3])]
    trimmed = Prompts(
        short.tokens[:, :4],
        short.corrupted[:, :4],
        short.attention_mask[:, :4],
        short.answer_position,
        short.correct,
        short.wrong,
    )
    with pytest.raises(ValueError, match="expected the same prompts for both models"):
        similarities(profile(model(0), prompts), profile(model(0), trimmed))
