"""Numerals, number words, months: ours against the 9,216 published prompts."""

import collections
import json

import numpy as np
import pytest

from jaxcompress.tasks import sequences, words

FILES = {"numerals": "numerals", "number_words": "numwords", "months": "months"}
VERBS = {"done": "done", "lost": "lost", "names": "born"}


@pytest.mark.parametrize("members", FILES)
@pytest.mark.parametrize("kind", VERBS)
def test_published_prompts(shared_data, members, kind):
    records = json.loads((shared_data / "tasks" / f"{FILES[members]}_{kind}.json").read_text())
    assert len(records) == 1024
    starts = set()
    for record in records:
        parsed = sequences.parse(record["text"])
        assert parsed.verb == VERBS[kind]
        assert parsed.members == tuple(record[f"S{i}"] for i in range(1, 5))
        assert sequences.answers(parsed.members[-1]) == (record["corr"], record["incorr"])
        start = sequences.MEMBERS[members].index(parsed.members[0])
        assert parsed.members == sequences.MEMBERS[members][start : start + 4]
        starts.add(start)
    assert starts == set(range(8))


@pytest.mark.parametrize("members", FILES)
def test_pairs(members):
    names = sequences.MEMBERS[members]
    pairs = sequences.pairs(96, np.random.default_rng(0), members=members)
    assert len({pair.clean for pair in pairs}) == 96
    seen = collections.Counter()
    for pair in pairs:
        clean, corrupted = sequences.parse(pair.clean), sequences.parse(pair.corrupted)
        start = names.index(clean.members[0])
        assert clean.members == names[start : start + 4]
        assert (pair.correct, pair.wrong) == ((f" {names[start + 4]}",), (f" {names[start + 3]}",))
        assert (corrupted.fillers, corrupted.verb) == (clean.fillers, clean.verb)
        order = [names.index(member) for member in corrupted.members]
        assert len(set(order)) == 4
        assert abs(order[3] - order[2]) != 1
        assert set(clean.fillers) <= set(words.NAMES if clean.verb == "born" else words.THINGS)
        seen[clean.verb, start] += 1
    assert len(seen) == 3 * 8
    assert set(seen.values()) == {4}  # every kind and start equally often


def test_same_fillers_for_every_sequence():
    numerals, months = (
        [sequences.parse(p.clean) for p in sequences.pairs(6, np.random.default_rng(4), members=m)]
        for m in ("numerals", "months")
    )
    assert [p.fillers for p in numerals] == [p.fillers for p in months]


def test_corruption_changes_the_four_members_only(tokenizer):
    for pair in sequences.pairs(12, np.random.default_rng(0)):
        changed = [
            (a, b)
            for a, b in zip(pair.clean.split(), pair.corrupted.split(), strict=True)
            if a != b
        ]
        assert 1 <= len(changed) <= 4
        assert all(a.rstrip(".").isdigit() and b.rstrip(".").isdigit() for a, b in changed)
        ids = [tokenizer(text)["input_ids"] for text in (pair.clean, pair.corrupted)]
        assert sum(a != b for a, b in zip(*ids, strict=True)) == len(changed)


@pytest.mark.parametrize("text", ["", "Van done in 1.", "A done in 1. B lost in 2. C done in"])
def test_other_texts_are_no_sequences(text):
    with pytest.raises(ValueError, match="text: expected four"):
        sequences.parse(text)


def test_no_successor():
    for last in ("12", "twelve", "December", "cow"):
        with pytest.raises(ValueError, match="last: expected a member that has a successor"):
            sequences.answers(last)


def test_unknown_members():
    with pytest.raises(ValueError, match="members: expected one of"):
        sequences.pairs(1, np.random.default_rng(0), members="days")


def test_a_changed_rule_goes_further_and_its_wrong_answer_is_the_old_one():
    names = sequences.MEMBERS["numerals"]
    plain = sequences.pairs(24, np.random.default_rng(0))
    for pair in sequences.pairs(24, np.random.default_rng(0), ahead=2):
        last = names.index(sequences.parse(pair.clean).members[-1])
        assert pair.correct == (f" {names[last + 2]}",) and pair.wrong == (f" {names[last + 1]}",)
        assert pair.in_prompt == ()
    # The first verbs and starts are the same prompts.
    changed = sequences.pairs(3, np.random.default_rng(0), ahead=2)
    assert [pair.clean for pair in changed] == [pair.clean for pair in plain[:3]]
    with pytest.raises(ValueError, match="ahead"):
        sequences.pairs(1, np.random.default_rng(0), ahead=5)
