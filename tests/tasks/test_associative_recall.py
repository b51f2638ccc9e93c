"""Associative recall: the value of the key that comes again, whichever pair it is of."""

import jax
import numpy as np
import pytest

from jaxcompress import tasks


class Letters:
    """27 characters: 0 starts, a to z are 1 to 26."""

    vocab_size, bos_token_id, all_special_ids, mask_token = 27, 0, (0,), None

    def __call__(self, text):
        return {"input_ids": [0, *(ord(letter) - 96 for letter in text)]}


@pytest.mark.parametrize("pairs", [2, 5, 13])
def test_structure(pairs):
    prompts = tasks.get("associative_recall", Letters(), 50, jax.random.key(0), pairs=pairs)
    tokens, corrupted = np.asarray(prompts.tokens), np.asarray(prompts.corrupted)
    assert tokens.shape == (50, 2 * pairs + 2)
    assert not tokens[:, 0].any()
    assert (np.asarray(prompts.answer_position) == 2 * pairs + 1).all()
    np.testing.assert_array_equal(tokens[:, 1::2], corrupted[:, 1::2])  # the keys, and the question
    for row in range(50):
        seen, changed = (
            dict(one[row, 1:-1].reshape(-1, 2).tolist()) for one in (tokens, corrupted)
        )
        assert len({*seen, *seen.values()}) == 2 * pairs  # no token twice
        assert sorted(seen.values()) == sorted(changed.values())
        asked, right, wrong = tokens[row, -1], prompts.correct[row, 0], prompts.wrong[row, 0]
        assert (seen[asked], changed[asked]) == (right, wrong)
        assert sum(seen[key] != changed[key] for key in seen) == 2


def test_every_pair_is_asked_for():
    """Otherwise the answer would stand at one place."""
    prompts = tasks.get("associative_recall", Letters(), 200, jax.random.key(0), pairs=4)
    keys, asked = np.asarray(prompts.tokens)[:, 1:-1:2], np.asarray(prompts.tokens)[:, -1:]
    counts = (keys == asked).sum(axis=0)
    assert counts.sum() == 200
    assert counts.min() > 30


def test_bert_frame(bert):
    prompts = tasks.get("associative_recall", bert, 4, jax.random.key(0), pairs=3)
    tokens = np.asarray(prompts.tokens)
    assert tokens.shape == (4, 1 + 6 + 1 + 1 + 1)
    assert (tokens[:, [0, -1]] == [[bert.cls_token_id, bert.sep_token_id]]).all()
    assert (tokens[:, -2] == bert.mask_token_id).all()
    assert (np.asarray(prompts.answer_position) == 8).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pairs": 14}, r"pairs: expected at most 13, got 14 with 26 ordinary tokens"),
        ({"pairs": 1}, r"pairs: expected a whole number >= 2, got 1"),
        ({"pairs": 2, "vocabulary": range(1, 5)}, r"count: expected at most \d+, got 500"),
        ({"context": 8}, r"prompts: expected at most 8 tokens, got 12 tokens"),
    ],
)
def test_errors(options, match):
    with pytest.raises(ValueError, match=match):
        tasks.get("associative_recall", Letters(), 500, jax.random.key(0), **options)
