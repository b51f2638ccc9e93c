"""Shifted prompts: same question, other words, and nothing that the plain prompts have."""

import jax
import numpy as np
import pytest

from jaxcompress import io, tasks
from jaxcompress.tasks import SHIFTS, ioi, sequences, words

CASES = [(name, shift) for name, found in SHIFTS.items() for shift in found]
TEXTS = [(name, shift) for name, shift in CASES if name in tasks.TEXTS]
ELSEWHERE = ("linear_function",)  # whose words the built-in models do not know


@pytest.mark.parametrize("name", [name for name in SHIFTS if name not in ELSEWHERE])
def test_every_shift_can_be_asked_of_the_built_in_models(name):
    """Their vocabulary is small: a word that is not in it would make the question meaningless."""
    tokenizer = io.load("builtin:teacher").tokenizer
    found, refused = tasks.shifted(name, tokenizer, 16, jax.random.key(0), context=48)
    assert list(found) == list(SHIFTS[name]) and not refused
    unknown = tokenizer.unk_token_id
    for prompts in found.values():
        assert not (np.asarray(prompts.tokens) == unknown).any()


@pytest.mark.parametrize("name", SHIFTS)
def test_every_shift_can_be_asked_of_gpt2(name, gpt2):
    found, refused = tasks.shifted(name, gpt2, 8, jax.random.key(0))
    assert list(found) == list(SHIFTS[name]) and not refused


@pytest.mark.parametrize(("name", "shift"), TEXTS)
def test_no_prompt_is_a_plain_one(name, shift):
    plain = {pair.clean for pair in tasks.texts(name, 400, jax.random.key(0))}
    other = tasks.texts(name, 100, jax.random.key(1), **SHIFTS[name][shift])
    assert len({pair.clean for pair in other}) == 100
    assert not plain & {pair.clean for pair in other}


def test_longer_sequences_are_answered_by_the_successor():
    for name in sequences.MEMBERS:
        for pair in tasks.texts(name, 30, jax.random.key(2), **SHIFTS[name]["longer"]):
            shown = [
                word.strip(".")
                for word in pair.clean.split()
                if word.strip(".") in sequences.MEMBERS[name]
            ]
            at = sequences.MEMBERS[name].index(shown[0])
            assert tuple(shown) == sequences.MEMBERS[name][at : at + 6]
            assert pair.correct == (" " + sequences.MEMBERS[name][at + 6],)


def test_ioi_shifts():
    templates = SHIFTS["ioi"]["other sentences"]["templates"]
    assert not set(templates) & set(ioi.TEMPLATES)
    for pair in tasks.texts("ioi", 30, jax.random.key(3), **SHIFTS["ioi"]["things for names"]):
        assert pair.correct[0].strip() in words.THINGS
        assert pair.clean.count(pair.wrong[0].strip()) == 2


def test_what_cannot_be_asked_is_said():
    tokenizer = io.load("builtin:teacher").tokenizer
    found, refused = tasks.shifted("induction", tokenizer, 4, jax.random.key(0), context=12)
    assert not found and "context" in refused["longer"]
    assert tasks.shifted("known_facts", tokenizer, 4, jax.random.key(0)) == ({}, {})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("numerals", {"shown": 12}, "shown: expected"),
        ("ioi", {"names": ("Ann", "Bob")}, "at least 5"),
        ("ioi", {"templates": ()}, "at least 1"),
    ],
)
def test_impossible_shifts_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        tasks.texts(name, 4, jax.random.key(0), **options)
