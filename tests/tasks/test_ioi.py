"""IOI: the repeated name is wrong, the other is right, and ABC has no repeated name."""

import json
import re

import jax
import numpy as np
import pytest

from jaxcompress import tasks
from jaxcompress.tasks import ioi, words


def _names(text):
    return [word for word in re.findall(r"\w+", text) if word in words.NAMES]


@pytest.mark.parametrize(
    ("order", "want"), [("ABBA", [True]), ("BABA", [False]), ("mixed", [True, False])]
)
def test_structure(order, want):
    pairs = ioi.pairs(64, np.random.default_rng(1), order=order)
    assert len({pair.clean for pair in pairs}) == 64
    for i, pair in enumerate(pairs):
        (receiver,), (subject,) = pair.correct, pair.wrong
        first, second, giver = _names(pair.clean)
        assert {first, second} == {receiver.strip(), subject.strip()}
        assert giver == subject.strip()
        assert (first == receiver.strip()) is want[i % len(want)]
        others = _names(pair.corrupted)
        assert len({*others, first, second}) == 5
        anyone = re.compile("|".join(rf"\b{name}\b" for name in (*others, first, second)))
        assert anyone.sub("_", pair.clean) == anyone.sub("_", pair.corrupted)


def test_published_prompts_have_the_same_convention(shared_data):
    """The answer is named once, the other person twice (data/tasks/ioi.json)."""
    records = json.loads((shared_data / "tasks" / "ioi.json").read_text())
    for record in records:
        counts = {
            name: len(re.findall(rf"\b{name}\b", record["prompt"]))
            for name in set(re.findall(r"\b[A-Z]\w+", record["prompt"]))
        }
        assert counts[record["answer"]] == 1
        assert sorted(counts.values())[-1] == 2


def test_names_stand_in_the_prompt_as_answer_tokens(tokenizer):
    prompts = tasks.get("ioi", tokenizer, 16, jax.random.key(0))
    for row in range(16):
        clean, corrupted = np.asarray(prompts.tokens[row]), np.asarray(prompts.corrupted[row])
        assert (clean == prompts.correct[row, 0]).sum() == 1
        assert (clean == prompts.wrong[row, 0]).sum() == 2
        changed = clean != corrupted
        assert changed.sum() == 3
        names = {int(prompts.correct[row, 0]), int(prompts.wrong[row, 0])}
        assert set(clean[changed].tolist()) == names
        assert len(set(corrupted[changed].tolist())) == 3
        assert not np.isin(corrupted, clean[changed]).any()


def test_words_are_single_tokens(gpt2, bert):
    for family in (words.THINGS, words.NAMES, words.PLACES, words.OBJECTS, words.EVENTS):
        assert len(set(family)) == len(family)
        assert all(len(gpt2(f" {word}")["input_ids"]) == 1 for word in family)
        assert all(len(bert(word)["input_ids"]) == 3 for word in family)
    # These two also begin a prompt, where there is no space before them.
    assert all(len(gpt2(word)["input_ids"]) == 1 for word in (*words.NAMES, *words.THINGS))


def test_unknown_order():
    with pytest.raises(ValueError, match="order: expected one of"):
        ioi.pairs(1, np.random.default_rng(0), order="ABAB")
