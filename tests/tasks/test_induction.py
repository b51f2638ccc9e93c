"""Induction: what followed last time follows now, and the corrupted prompt has nothing to copy."""

import jax
import numpy as np
import pytest

from jaxcompress import tasks


class Letters:
    """The 27 characters of the small induction model: 0 starts, a to z are 1 to 26."""

    vocab_size, bos_token_id, all_special_ids, mask_token = 27, 0, (0,), None

    def __call__(self, text):
        return {"input_ids": [0, *(ord(letter) - 96 for letter in text)]}


class NoStart(Letters):
    def __call__(self, text):
        return {"input_ids": super().__call__(text)["input_ids"][1:]}


@pytest.mark.parametrize(("length", "repeat"), [(4, 1), (4, 3), (10, None), (13, 12)])
@pytest.mark.parametrize(("kind", "start"), [(Letters, 1), (NoStart, 0)])
def test_structure(length, repeat, kind, start):
    prompts = tasks.get("induction", kind(), 50, jax.random.key(0), length=length, repeat=repeat)
    repeat = length // 2 if repeat is None else repeat
    tokens, corrupted = np.asarray(prompts.tokens), np.asarray(prompts.corrupted)
    assert tokens.shape == (50, start + length + repeat)
    assert not tokens[:, :start].any()
    assert not corrupted[:, :start].any()
    first, second = tokens[:, start : start + length], tokens[:, start + length :]
    other = corrupted[:, start : start + length]
    assert (second == first[:, :repeat]).all()
    np.testing.assert_array_equal(corrupted[:, start + length :], second)
    assert (np.asarray(prompts.answer_position) == tokens.shape[1] - 1).all()
    for row in range(50):
        right, wrong = int(prompts.correct[row, 0]), int(prompts.wrong[row, 0])
        assert len({*first[row], *other[row]}) == 2 * length  # no token twice, none in both
        # The induction rule by hand: the token after the earlier occurrence of the last token.
        assert right == first[row][list(first[row]).index(tokens[row, -1]) + 1]
        assert right not in corrupted[row]
        assert wrong in set(first[row]) - {right, tokens[row, -1]}
        assert 0 not in (*first[row], *other[row])


def test_bert_frame(bert):
    prompts = tasks.get("induction", bert, 4, jax.random.key(0), length=6, repeat=2)
    tokens = np.asarray(prompts.tokens)
    assert tokens.shape == (4, 1 + 6 + 2 + 1 + 1)
    assert (tokens[:, [0, -1]] == [[bert.cls_token_id, bert.sep_token_id]]).all()
    assert (tokens[:, -2] == bert.mask_token_id).all()
    assert (np.asarray(prompts.answer_position) == 9).all()
    pieces = bert.convert_ids_to_tokens(tokens[:, 1:-2].ravel().tolist())
    assert not any(piece.startswith("[unused") for piece in pieces)


def test_vocabulary_option(gpt2):
    ids = list(range(100, 140))
    prompts = tasks.get("induction", gpt2, 8, jax.random.key(0), vocabulary=ids)
    assert np.isin(np.asarray(prompts.tokens), ids).all()
    assert np.isin(np.asarray(prompts.corrupted), ids).all()


def test_every_successor_and_token_occurs():
    prompts = tasks.get("induction", Letters(), 400, jax.random.key(0), length=4)
    assert set(np.asarray(prompts.correct).ravel().tolist()) == set(range(1, 27))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"length": 14}, r"length: expected at most 13, got 14 with 26 ordinary tokens"),
        ({"length": 2}, r"length: expected a whole number >= 3, got 2"),
        ({"length": 4, "repeat": 4}, r"repeat: expected a whole number in \[1, 3\], got 4"),
        ({"length": 4, "repeat": 0}, r"repeat: expected a whole number in \[1, 3\], got 0"),
        ({"length": 3, "vocabulary": range(1, 7)}, r"count: expected at most \d+, got 500"),
        ({"length": 10, "context": 8}, r"prompts: expected at most 8 tokens, got 16 tokens"),
    ],
)
def test_errors(options, match):
    with pytest.raises(ValueError, match=match):
        tasks.get("induction", Letters(), 500, jax.random.key(0), **options)
