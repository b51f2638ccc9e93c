"""The synthetic language: its tokenizer, its documents, and what is held out of it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from transformers import AutoTokenizer

from jaxcompress import tasks
from jaxcompress.data import filler, language
from jaxcompress.data.text import BOUNDARY, word_level
from jaxcompress.tasks import greater_than, sequences

TEXT_FAMILIES = [name for name in language.SHARES if name not in ("induction", "filler")]


@pytest.fixture(scope="module")
def tokenizer():
    return word_level(language.texts(), context=48)


@pytest.fixture(scope="module")
def corpus(tokenizer):
    return language.corpus(tokenizer, 200, jax.random.key(0), pool=100)


def text_of(tokenizer, ids):
    return [word for word in tokenizer.convert_ids_to_tokens(list(map(int, ids)))]


def split(tokenizer, row):
    """The documents of a row, as lists of ids without the boundary."""
    documents, start = [], tokenizer.bos_token_id
    for token in row.tolist():
        documents.append([]) if token == start else documents[-1].append(token)
    return documents


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("from 1732 to", ["from", "17", "32", "to"]),
        ("in 10.", ["in", "10", "."]),
        ("in 5.", ["in", "5", "."]),
        ("Then, Tom", ["Then", ",", "Tom"]),
        ("", []),
        ("xyzzy", ["<unk>"]),
    ],
)
def test_numbers_are_pairs_of_digits(tokenizer, text, pieces):
    assert text_of(tokenizer, tokenizer(text)["input_ids"]) == [BOUNDARY, *pieces]


def test_the_tokenizer_survives_a_file(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert len(again) == len(tokenizer) < 1000
    lines = filler.sentences(50, np.random.default_rng(0))
    assert again(list(lines))["input_ids"] == tokenizer(list(lines))["input_ids"]
    for name in ("bos", "eos", "pad", "unk"):
        assert getattr(again, f"{name}_token_id") == getattr(tokenizer, f"{name}_token_id")


@pytest.mark.parametrize("name", TEXT_FAMILIES)
def test_every_word_of_every_family_is_known(tokenizer, name):
    for pair in tasks.texts(name, 300, jax.random.key(1)):
        for text in (pair.clean, pair.corrupted, *pair.correct, *pair.wrong):
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], text


def test_texts_come_back_from_their_ids(tokenizer, corpus):
    for row in corpus.tokens[:20]:
        text = tokenizer.decode(row, skip_special_tokens=True)
        assert tokenizer(text)["input_ids"][1:] == [i for i in row if i != tokenizer.bos_token_id]


def test_words_are_needed():
    with pytest.raises(ValueError, match="texts: expected at least one word"):
        word_level([" "])


@pytest.mark.parametrize("name", language.SHARES)
def test_documents_are_made_of_the_language(tokenizer, name):
    found = language.documents(name, tokenizer, 60, jax.random.key(2))
    assert len(found) >= 40
    for document in found:
        assert document.ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in document.ids
        assert len(document.ids) <= 40
        assert all(0 < place < len(document.ids) for place in document.answers)
    assert any(document.answers for document in found) == (name != "filler")


@pytest.mark.parametrize("name", sequences.MEMBERS)
def test_sequences_are_continued(tokenizer, name):
    members, disordered = sequences.MEMBERS[name], 0
    for document in language.documents(name, tokenizer, 200, jax.random.key(3)):
        words = text_of(tokenizer, document.ids)
        places = [i + 1 for i, word in enumerate(words) if word == "in"][-5:]
        values = [members.index(words[i]) for i in places]
        if document.answers:
            assert values == list(range(values[0], values[0] + 5))
            assert list(document.answers) == places[2:]
        disordered += not document.answers
    assert 0.1 < disordered / 200 < 0.3


def test_the_receiver_is_the_other_name(tokenizer):
    for document in language.documents("ioi", tokenizer, 100, jax.random.key(3)):
        words, (place,) = text_of(tokenizer, document.ids), document.answers
        names = [word for word in words[:place] if word in tasks.words.NAMES][-3:]
        assert place == len(words) - 2
        assert sorted(names).count(names[2]) == 2
        assert words[place] in names and words[place] != names[2]


def test_years_end_after_they_begin(tokenizer):
    ends = []
    for document in language.documents("greater_than", tokenizer, 300, jax.random.key(3)):
        words, (place,) = text_of(tokenizer, document.ids), document.answers
        assert words[place - 1] == words[place - 6]
        assert 0 < int(words[place]) - int(words[place - 5]) <= 30
        ends.append(int(words[place]))
    # No single guess is right: that is what the limit of 30 years is for.
    starts = np.array(greater_than.YEARS)
    assert max(np.mean((starts < end) & (end <= starts + 30)) for end in range(100)) < 0.35
    assert min(ends) < 20 and max(ends) == 99


def test_sequences_are_repeated(tokenizer):
    for document in language.documents("induction", tokenizer, 100, jax.random.key(3)):
        for place in document.answers:
            token, before = document.ids[place], document.ids[place - 1]
            earlier = document.ids.index(before)
            assert earlier < place - 1 and document.ids[earlier + 1] == token


def test_held_out_prompts_are_never_trained_on(tokenizer):
    """Checked on ids: no document of greater-than, of which most of all are made, has one."""
    trained = language.documents("greater_than", tokenizer, 1500, jax.random.key(4))
    bodies = {tuple(document.ids[-13:-2]) for document in trained}
    assert len(bodies) > 1200
    prompts = language.evaluation("greater_than", tokenizer, 100, jax.random.key(4))
    assert len(prompts) == 100
    length = int(prompts.attention_mask[0].sum())
    assert length == 13
    rows = {tuple(row[1:].tolist()) for row in np.asarray(prompts.tokens)}
    assert not {row[-11:] for row in rows} & bodies


@pytest.mark.parametrize("name", [name for name in TEXT_FAMILIES if name != "known_facts"])
def test_evaluation_is_the_held_out_part_of_the_task(tokenizer, name):
    key = jax.random.key(5)
    prompts = language.evaluation(name, tokenizer, 16, key)
    all_texts = tasks.texts(name, 384, key)
    held_out = [pair for pair in all_texts if language.held_out(pair.clean)][:16]
    np.testing.assert_array_equal(prompts.tokens, tasks.encode(held_out, tokenizer).tokens)
    trained = language.documents(name, tokenizer, 384, key)
    assert len(trained) == sum(not language.held_out(pair.clean) for pair in all_texts)


def test_not_enough_held_out_prompts(tokenizer, monkeypatch):
    few = tasks.texts("months", 40, jax.random.key(0))
    monkeypatch.setattr(tasks, "texts", lambda *args, **options: few)
    with pytest.raises(ValueError, match=r"count: expected at most \d held-out prompts, got 20"):
        language.evaluation("months", tokenizer, 20, jax.random.key(0))


def test_pools_must_not_be_empty(tokenizer, monkeypatch):
    monkeypatch.setattr(language, "held_out", lambda text: True)
    assert language.documents("months", tokenizer, 5, jax.random.key(0)) == ()
    with pytest.raises(ValueError, match="pool: expected enough for one document of 'numerals'"):
        language.corpus(tokenizer, 5, jax.random.key(0), pool=5)


def test_rows_are_whole_documents_and_filler(tokenizer, corpus):
    assert corpus.tokens.shape == corpus.answers.shape == (200, 48)
    assert (corpus.tokens[:, 0] == tokenizer.bos_token_id).all()
    assert not np.isin(corpus.tokens, [tokenizer.pad_token_id, tokenizer.unk_token_id]).any()
    assert 0.1 < corpus.answers.mean() < 0.4
    assert not corpus.answers[:, 0].any()


def test_the_key_decides(tokenizer):
    first, again, other = (
        language.corpus(tokenizer, 5, jax.random.key(seed), pool=5).tokens for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_families_can_be_left_out(tokenizer):
    found = language.corpus(tokenizer, 5, jax.random.key(0), pool=5, shares={"ioi": 1.0})
    assert (found.answers.sum(axis=1) == 1).all()


def test_rows_must_hold_a_document(tokenizer):
    with pytest.raises(ValueError, match="context: expected a whole number >= 40"):
        language.corpus(tokenizer, 5, jax.random.key(0), context=32)
    with pytest.raises(ValueError, match="family: expected one of"):
        language.documents("numeral", tokenizer, 5, jax.random.key(0))
