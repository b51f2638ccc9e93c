"""The contract every family keeps with every kind of tokenizer."""

import jax
import numpy as np
import pytest

from jaxcompress import tasks

COUNT = 24


@pytest.fixture(params=tasks.NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def prompts(name, tokenizer, made):
    if name == "greater_than" and tokenizer.mask_token is not None:
        # WordPiece writes 1732 as one token: no start year, no continuation.
        pytest.skip("years are single tokens for BERT; see test_bert_has_no_greater_than")
    if (name, id(tokenizer)) not in made:
        made[name, id(tokenizer)] = tasks.get(name, tokenizer, COUNT, jax.random.key(0))
    return made[name, id(tokenizer)]


def test_bert_has_no_greater_than(bert):
    """WordPiece writes 1732 as one token: no start year, no continuation."""
    match = r"greater_than: expected 24 prompts .* got 0 of \d+\. '\d\d' merges with the text"
    with pytest.raises(ValueError, match=match):
        tasks.get("greater_than", bert, COUNT, jax.random.key(0))


def test_shapes_types_and_ranges(prompts, tokenizer):
    prompts.validate(vocab=len(tokenizer), context=64)
    assert len(prompts) == COUNT
    leaves = jax.tree.leaves(prompts)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == np.int32 for leaf in leaves)


def test_prompts_are_unique(prompts):
    assert len(np.unique(np.asarray(prompts.tokens), axis=0)) == COUNT


def test_answers_are_disjoint_and_known_words(prompts, tokenizer):
    for right, wrong in zip(np.asarray(prompts.correct), np.asarray(prompts.wrong), strict=True):
        right, wrong = set(right[right >= 0]), set(wrong[wrong >= 0])
        assert min(len(right), len(wrong)) > 0
        assert not right & wrong
        assert not (right | wrong) & set(tokenizer.all_special_ids)


def test_corrupted_differs_inside_the_prompt_only(prompts):
    clean, corrupted = np.asarray(prompts.tokens), np.asarray(prompts.corrupted)
    differs = clean != corrupted
    assert differs.any(axis=1).all()
    assert not (differs & (np.asarray(prompts.attention_mask) == 0)).any()
    rows = np.arange(COUNT)
    position = np.asarray(prompts.answer_position)
    assert not differs[rows, position].any()


def test_answer_position_is_the_mask_or_the_last_token(prompts, tokenizer):
    tokens, position = np.asarray(prompts.tokens), np.asarray(prompts.answer_position)
    if tokenizer.mask_token is None:
        assert (position == np.asarray(prompts.attention_mask).sum(axis=1) - 1).all()
    else:
        assert (tokens[np.arange(COUNT), position] == tokenizer.mask_token_id).all()
        assert ((tokens == tokenizer.mask_token_id).sum(axis=1) == 1).all()


def test_special_tokens_are_those_the_tokenizer_adds(prompts, tokenizer):
    tokens, mask = np.asarray(prompts.tokens), np.asarray(prompts.attention_mask)
    added = tokenizer("")["input_ids"]
    real = [row[m == 1].tolist() for row, m in zip(tokens, mask, strict=True)]
    if tokenizer.mask_token is not None:
        assert all([row[0], row[-1]] == added for row in real)
    else:
        assert all(row[: len(added)] == added for row in real)


def test_deterministic_by_key(name, prompts, tokenizer):
    same = tasks.get(name, tokenizer, COUNT, jax.random.key(0))
    other = tasks.get(name, tokenizer, COUNT, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, prompts, same)
    assert prompts.tokens.shape != other.tokens.shape or (prompts.tokens != other.tokens).any()


def test_key_implementation_does_not_matter(word_level):
    prompts = tasks.get("numerals", word_level, 2, jax.random.key(0, impl="rbg"))
    assert len(prompts) == 2


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing_but_where(gpt2, side):
    """Each row, stripped of padding, is the row of a batch of its own."""
    key = jax.random.key(3)
    pairs = [*tasks.texts("ioi", 8, key), *tasks.texts("months", 2, key)]
    batch = tasks.encode(pairs, gpt2, padding_side=side)
    lengths = np.asarray(batch.attention_mask).sum(axis=1)
    assert len(set(lengths.tolist())) > 1
    for i, pair in enumerate(pairs):
        alone = tasks.encode([pair], gpt2)
        keep = np.asarray(batch.attention_mask)[i] == 1
        np.testing.assert_array_equal(np.asarray(batch.tokens)[i][keep], alone.tokens[0])
        np.testing.assert_array_equal(np.asarray(batch.corrupted)[i][keep], alone.corrupted[0])
        offset = 0 if side == "right" else len(keep) - lengths[i]
        assert batch.answer_position[i] == alone.answer_position[0] + offset
        assert batch.correct[i, 0] == alone.correct[0, 0]


def test_legacy_key_refused(word_level, name):
    with pytest.raises(ValueError, match=r"key: expected a typed jax PRNG key, got uint32"):
        tasks.get(name, word_level, 2, jax.random.PRNGKey(0))


@pytest.mark.parametrize(("key", "got"), [(0, "int"), (None, "NoneType")])
def test_no_key_refused(word_level, key, got):
    with pytest.raises(ValueError, match=rf"got {got}\. Make one with jax.random.key"):
        tasks.get("ioi", word_level, 2, key)


def test_batch_of_keys_refused(word_level):
    with pytest.raises(ValueError, match=r"key: expected one key, shape \(\), got shape \(2,\)"):
        tasks.get("ioi", word_level, 2, jax.random.split(jax.random.key(0)))


def test_unknown_names_and_options_refused(word_level):
    with pytest.raises(ValueError, match="did you mean 'numerals'"):
        tasks.get("numeral", word_level, 2, jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"'ioi'\): expected options: names, order, templates, got 'template'"
    ):
        tasks.get("ioi", word_level, 2, jax.random.key(0), template=1)
    with pytest.raises(ValueError, match="options: ahead, shown, verbs, got 'members'"):
        tasks.get("numerals", word_level, 2, jax.random.key(0), members="months")
    with pytest.raises(ValueError, match="count: expected a whole number >= 1, got 0"):
        tasks.get("ioi", word_level, 0, jax.random.key(0))
    with pytest.raises(ValueError, match="padding_side: expected one of"):
        tasks.get("ioi", word_level, 2, jax.random.key(0), padding_side="both")
    with pytest.raises(ValueError, match="task: expected one of"):
        tasks.texts("induction", 2, jax.random.key(0))


def test_too_long_for_the_context(word_level, name):
    with pytest.raises(ValueError, match=r"prompts: expected at most 5 tokens, got \d+ tokens"):
        tasks.get(name, word_level, 2, jax.random.key(0), context=5)
    length = tasks.get(name, word_level, 8, jax.random.key(0)).tokens.shape[1]
    assert len(tasks.get(name, word_level, 8, jax.random.key(0), context=length)) == 8


def _letters(text):
    return {"input_ids": [ord(letter) for letter in text]}


@pytest.mark.parametrize("name", ["numerals", "number_words", "months", "ioi"])
def test_too_few_says_how_many_and_why(name):
    match = rf"{name}: expected 4 prompts .*answers .*, got 0 of \d+\. '.*' is \d+ tokens \(32 \d"
    with pytest.raises(ValueError, match=match):
        tasks.get(name, _letters, 4, jax.random.key(0))


def test_error_mode_names_the_answer_and_its_pieces():
    match = r"answers: expected single tokens.*' 4' is 2 tokens \(32 52\)"
    with pytest.raises(ValueError, match=match):
        tasks.get("numerals", _letters, 4, jax.random.key(0), on_multi_token="error")
    pairs = tasks.texts("numerals", 4, jax.random.key(0))
    with pytest.raises(ValueError, match=match):
        tasks.encode(pairs, _letters, on_multi_token="error")
    with pytest.raises(ValueError, match="on_multi_token: expected one of"):
        tasks.encode(pairs, _letters, on_multi_token="drop")


def test_small_family_repeats_clean_prompts_only_when_it_must(gpt2):
    key = jax.random.key(0)
    few = np.asarray(tasks.get("known_facts", gpt2, 40, key).tokens)
    assert len(np.unique(few, axis=0)) == 40
    many = tasks.get("known_facts", gpt2, 150, key)
    both = np.concatenate([many.tokens, many.corrupted], axis=1)
    assert len(np.unique(both, axis=0)) == 150
    with pytest.raises(ValueError, match=r"known_facts: expected 5000 prompts .*, got \d+ of \d+"):
        tasks.get("known_facts", gpt2, 5000, key)


def test_texts_are_what_get_encodes(gpt2):
    key = jax.random.key(5)
    pairs = tasks.texts("ioi", 8, key)
    prompts = tasks.get("ioi", gpt2, 8, key)
    assert {
        gpt2.decode(row[mask == 1])
        for row, mask in zip(
            np.asarray(prompts.tokens), np.asarray(prompts.attention_mask), strict=True
        )
    } == {pair.clean for pair in pairs}
