"""Greater-than: sets of years as answers, against the data of EAP-IG."""

import csv

import jax
import numpy as np
import pytest

from jaxcompress import tasks
from jaxcompress.tasks import greater_than


def test_published_prompts(shared_data):
    with open(shared_data / "tasks" / "greater_than_data.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1000
    for row in rows:
        event, century, year = greater_than.parse(row["clean"])
        assert greater_than.parse(row["corrupted"]) == (event, century, 1)
        assert year == int(row["label"])
        assert century in greater_than.CENTURIES
    assert {int(row["label"]) for row in rows} == set(greater_than.YEARS)


def test_pairs():
    pairs = greater_than.pairs(64, np.random.default_rng(0))
    assert len({pair.clean for pair in pairs}) == 64
    for pair in pairs:
        event, century, year = greater_than.parse(pair.clean)
        assert greater_than.parse(pair.corrupted) == (event, century, 1)
        assert [int(end) for end in pair.correct] == list(range(year + 1, 100))
        assert [int(end) for end in pair.wrong] == list(range(year + 1))
        assert all(len(end) == 2 for end in (*pair.correct, *pair.wrong))


def test_gpt2_tokens(gpt2):
    prompts = tasks.get("greater_than", gpt2, 12, jax.random.key(0))
    for row in range(12):
        ids = np.asarray(prompts.tokens[row])
        text = gpt2.decode(ids)
        _, century, year = greater_than.parse(text)
        # Start year and century are tokens of their own: " 17", "32", ..., " 17".
        assert [gpt2.decode([token]) for token in ids[[-6, -5, -1]]] == [
            f" {century}",
            f"{year:02d}",
            f" {century}",
        ]
        changed = ids != np.asarray(prompts.corrupted[row])
        assert np.flatnonzero(changed).tolist() == [len(ids) - 5]
        assert gpt2.decode([int(prompts.corrupted[row, -5])]) == "01"
        for side, right in ((prompts.correct[row], True), (prompts.wrong[row], False)):
            years = [gpt2.decode([int(token)]) for token in side if token >= 0]
            assert all(len(end) == 2 and (int(end) > year) is right for end in years)


def test_gpt2_counts_all_hundred_years(gpt2):
    """GPT-2 has tokens for 1200, 1510, ...: their two-digit tokens count all the same."""
    prompts = tasks.get("greater_than", gpt2, 12, jax.random.key(0))
    every = {gpt2(f"{end:02d}")["input_ids"][0] for end in range(100)}
    for right, wrong in zip(np.asarray(prompts.correct), np.asarray(prompts.wrong), strict=True):
        used = [*right[right >= 0].tolist(), *wrong[wrong >= 0].tolist()]
        assert len(used) == 100
        assert set(used) == every


def test_word_level_counts_all_hundred_years(word_level):
    prompts = tasks.get("greater_than", word_level, 8, jax.random.key(0))
    used = (np.asarray(prompts.correct) >= 0).sum(1) + (np.asarray(prompts.wrong) >= 0).sum(1)
    assert (used == 100).all()


def test_merged_start_year_is_refused(gpt2):
    """GPT-2 has one token for 1440, so there is no start year to read."""
    (right, wrong) = greater_than.answers(40)
    text = "The war lasted from the year {} to the year 14"
    pair = tasks.TextPair(text.format(1440), text.format(1401), right, wrong, ("40",))
    with pytest.raises(ValueError, match="0 of 1. '40' merges with the text around it"):
        tasks.encode([pair], gpt2)


def test_start_year_must_be_a_token():
    """Equal lengths and good answers are not enough if the year is glued to its century."""

    def glued(text):  # "17", "1732" are one token each, a two-digit end after " to ... 17 " another
        words = text.split(" ")
        last = [words[-1][:2], words[-1][2:]] if words[-1][2:] else [words[-1]]
        return {"input_ids": [sum(map(ord, w)) * 31 + len(w) for w in [*words[:-1], *last]]}

    text = "The war lasted from the year {} to the year 17"
    right, wrong = greater_than.answers(32)
    pair = tasks.TextPair(text.format(1732), text.format(1701), right, wrong, ("32",))
    with pytest.raises(ValueError, match="'32' is no token of its own inside the prompt"):
        tasks.encode([pair], glued)


def test_parse_refuses_other_texts():
    war = "The war lasted from"
    for text in (f"{war} 1732 to 17", f"{war} the year 1732 to the year 18"):
        with pytest.raises(ValueError, match="text: expected 'The X lasted"):
            greater_than.parse(text)
    with pytest.raises(ValueError, match="year: expected a whole number"):
        greater_than.answers(99)
