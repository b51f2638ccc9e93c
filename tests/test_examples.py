"""Data by name: what is held out is not trained on, and gates in one program are gates by hand."""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import ablate, gated, io, prune
from jaxcompress.examples import Data, batches, together
from jaxcompress.gated import (
    accuracy,
    as_measure,
    each_removed,
    harm,
    mean_loss,
    similarity,
    under_gates,
)
from jaxcompress.models import Gates, create
from tests import families


@pytest.fixture(scope="module")
def student():
    return io.load("builtin:student")


@pytest.fixture
def rows(tmp_path):
    """An npz file of 40 rows of tokens, the last ones short."""
    tokens = np.random.default_rng(0).integers(5, 11, (40, 9)).astype(np.int32)
    np.savez(tmp_path / "rows.npz", tokens=tokens, lengths=np.r_[np.full(30, 9), np.full(10, 4)])
    return str(tmp_path / "rows.npz")


def model(name="gpt2", **changes):
    config = families.config(name, **changes)
    params = families.randomized(config)
    return create(config, params, tokenizer=types.SimpleNamespace(mask_token_id=4))


def test_held_out_prompts_are_not_trained_on(student):
    data = Data(tasks=("months", "ioi"), count=60)
    seen, held = (batches(student, data, held_out=out)[0] for out in (False, True))
    known = {row.tobytes() for batch in seen for row in np.asarray(batch.tokens)}
    assert not any(row.tobytes() in known for batch in held for row in np.asarray(batch.tokens))
    assert sum(len(batch) for batch in held) > 60


def test_tasks_share_a_program(student):
    """Prompts of all lengths are measured in one, and so is a model with other parameters."""
    data = Data(tasks=("months", "ioi"), count=4, batch=4)
    found, loss = batches(student, data)
    assert len({batch.tokens.shape for batch in found}) == 1
    gated._measured.clear_cache()
    before = mean_loss(student, found, loss)
    assert gated._measured._cache_size() == 1
    halved = student.replace(params=jax.tree.map(lambda leaf: leaf / 2, student.params))
    assert mean_loss(halved, found, loss) != before
    assert gated._measured._cache_size() == 1


def test_rows_of_tokens_need_no_tokenizer(rows):
    causal = dataclasses.replace(model(), tokenizer=None)
    data = Data(text=rows, count=12, batch=5)
    (first, *_), loss = batches(causal, data)
    assert loss is prune.next_token and first.tokens.shape == (5, 9)
    held = np.concatenate([b.tokens for b in batches(causal, data, held_out=True)[0]])
    every = np.load(rows)["tokens"][9::10]
    assert {row.tobytes() for row in held} == {row.tobytes() for row in every}


def test_several_texts(rows, tmp_path):
    np.savez(tmp_path / "few.npz", tokens=np.full((20, 9), 5, np.int32), lengths=np.full(20, 9))
    both = Data(text=(rows, str(tmp_path / "few.npz")), count=30, batch=30)
    (first, second), loss = batches(model(), both)
    assert loss is prune.next_token and len(first.tokens) == 30 and len(second.tokens) == 18
    assert (second.tokens == 5).all() and not (first.tokens == 5).all(axis=1).any()
    every, sizes = together(model(), both)
    assert sizes == (30, 18)
    np.testing.assert_array_equal(every.tokens, np.concatenate([first.tokens, second.tokens]))
    np.savez(tmp_path / "few.npz", tokens=np.full((20, 8), 5, np.int32), lengths=np.full(20, 8))
    with pytest.raises(
        ValueError, match=r"data.text: expected files .* of one length, got \[8, 9\]"
    ):
        batches(model(), both)


def test_models_that_see_both_ways_are_asked_for_hidden_tokens(rows):
    bert = model("bert")
    found, loss = batches(bert, Data(text=rows, count=36, batch=36))
    labels, tokens = found[0].labels, found[0].tokens
    assert loss is prune.masked_token and 0.08 < (labels >= 0).mean() < 0.25
    assert (tokens[labels >= 0] == 4).all() and (tokens[labels < 0] != 4).all()
    assert (labels[found[0].attention_mask == 0] == -1).all()
    out = bert.apply(bert.params, tokens, attention_mask=found[0].attention_mask)
    logs = np.asarray(jax.nn.log_softmax(out.logits))
    at = np.argwhere(labels >= 0)
    expected = -np.mean([logs[b, t, labels[b, t]] for b, t in at])
    np.testing.assert_allclose(mean_loss(bert, found, loss), expected, rtol=1e-5)


def test_encoders_without_a_head_are_scored_by_their_embeddings(rows):
    encoder = model("bert", head="none")
    found, loss = batches(encoder, Data(text=rows, count=8, batch=8))
    scores = prune.score(encoder, found, "fisher", loss=loss, progress=False)
    assert loss is prune.embedding and (np.asarray(scores.heads) > 0).all()
    heads = jnp.stack([jnp.ones((3, 4)), jnp.ones((3, 4)).at[0, 1].set(0)])
    kept = under_gates(encoder, found, similarity, Gates(heads=heads))
    np.testing.assert_allclose(kept[0], 1, atol=1e-6)
    assert kept[1] < 1 - 1e-5


def test_rows_of_padding_are_no_rows(rows):
    encoder = model("bert", head="none")
    found, loss = batches(encoder, Data(text=rows, count=8, batch=8))
    more = jax.tree.map(lambda leaf: np.pad(leaf, ((0, 3), (0, 0))), found)
    nats = [mean_loss(encoder, one, loss) for one in (found, more)]
    np.testing.assert_allclose(*nats, rtol=1e-5)


def test_gates_in_one_program_are_gates_one_by_one(rows):
    causal = model()
    found, loss = batches(causal, Data(text=rows, count=36, batch=16))
    heads = jax.random.uniform(jax.random.key(0), (2, 3, 4))
    stacked = Gates(heads=heads)
    together = under_gates(causal, found, lambda out, batch, _: loss(out, batch), stacked, chunk=2)
    apart = [mean_loss(causal, found, loss, Gates(heads=one)) for one in heads]
    np.testing.assert_allclose(together, apart, rtol=1e-5)
    whole = mean_loss(causal, found, loss)
    np.testing.assert_allclose(whole, mean_loss(causal, found, loss, Gates.ones(causal.config)))


def test_accuracy_counts_right_answers(student):
    found, _ = batches(student, Data(tasks=("months",), count=8))
    one = jax.tree.map(lambda leaf: leaf[:2], found[0])
    wrong = dataclasses.replace(one, correct=one.wrong[:, :1], wrong=one.correct)
    out = student.apply(student.params, one.tokens, attention_mask=one.attention_mask)
    assert accuracy(out, one).tolist() == [1, 1] and accuracy(out, wrong).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(), "data: expected either tasks or text, got neither"),
        (Data(text="nowhere.npz"), r"nowhere.npz: expected an npz file of tokens, lengths, got"),
        (Data(tasks=("months",), count=0), "data.count: expected"),
    ],
)
def test_bad_input(student, data, message):
    with pytest.raises(ValueError, match=message):
        batches(student, data)


@pytest.mark.parametrize(
    ("tokens", "lengths", "message"),
    [
        (np.full((20, 9), -1), np.full(20, 9), r"tokens of .*: .* in \[0, 10\], got -1 to -1"),
        (np.full((20, 9), 11), np.full(20, 9), "tokens of .*, got 11 to 11"),
        (np.full((20, 9), 3.7), np.full(20, 9), "tokens of .*, got 180 of float64"),
        (np.ones(20, int), np.full(20, 9), r"tokens of .* \(row, position\), got shape \(20,\)"),
        (np.ones((20, 9), int), np.full(5, 9), r"lengths of .* shape \(20,\) \(row,\), got"),
        (np.ones((20, 9), int), np.full(20, 10), r"lengths of .* in \[1, 9\], got 10 to 10"),
        (np.ones((20, 9), int), np.zeros(20, int), r"lengths of .* in \[1, 9\], got 0 to 0"),
    ],
)
def test_rows_that_are_no_tokens_are_refused(tmp_path, tokens, lengths, message):
    np.savez(tmp_path / "rows.npz", tokens=tokens, lengths=lengths)
    with pytest.raises(ValueError, match=message):
        batches(model(), Data(text=str(tmp_path / "rows.npz")))
    padded = np.pad(np.ones((20, 4), int), ((0, 0), (0, 5)), constant_values=-100)
    np.savez(tmp_path / "rows.npz", tokens=padded, lengths=np.full(20, 4))
    assert batches(model(), Data(text=str(tmp_path / "rows.npz")))  # whatever padding is


def test_a_text_too_short_to_hold_out(tmp_path):
    np.savez(tmp_path / "few.npz", tokens=np.ones((9, 4), int), lengths=np.full(9, 4))
    with pytest.raises(ValueError, match=r"data.text: expected at least 10 rows, got 9"):
        batches(model(), Data(text=str(tmp_path / "few.npz")), held_out=True)


def nats(logits, prompts, clean):
    """The answer's surprise, for the sweep."""
    logs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(logs, prompts.correct, axis=1)[:, 0]


@pytest.mark.parametrize("name", ["gpt2", "uneven"])
def test_each_removed_as_the_sweep(name):
    one, prompts = families.model(name), families.prompts("left")
    found = each_removed(
        one, [prompts], as_measure(prune.answer), ["heads", "mlps"], progress=False
    )
    for field in ("heads", "mlps"):
        effects = ablate.sweep(
            one, prompts, field, replacement="zero", metric=nats, progress=False
        ).mean
        expected = np.nan_to_num(effects, nan=np.inf)
        np.testing.assert_allclose(getattr(found, field), expected, atol=1e-5)


def test_each_removed_on_text():
    one, loss = families.model("gpt2"), as_measure(prune.next_token)
    rows = [prune.Text(families.tokens(i), families.mask("right")) for i in (0, 1)]
    every = ("heads", "neurons", "attns", "mlps", "width")
    found = each_removed(one, rows, loss, every, progress=False)
    whole = under_gates(one, rows, loss, Gates())[0]
    for name, place in (
        ("heads", (1, 2)), ("neurons", (2, 5)), ("attns", (0,)), ("mlps", (2,)), ("width", (7,)),
    ):  # fmt: skip
        off = np.ones(getattr(found, name).shape, np.float32)
        off[place] = 0
        without = under_gates(one, rows, loss, Gates(**{name: off[None]}))[0]
        np.testing.assert_allclose(getattr(found, name)[place], without - whole, atol=1e-6)


def test_encoders_are_harmed_where_their_embeddings_turn():
    one = families.model("bert", head="none", unembed_bias=False)
    rows = [prune.Text(families.tokens(), np.ones_like(families.tokens()))]
    found = each_removed(one, rows, harm(prune.embedding), ["mlps"], progress=False)
    assert (found.mlps > 0).all()
