"""Facts: the subject is swapped, the relation and its template stay."""

import json

import jax
import numpy as np
import pytest

from jaxcompress import tasks
from jaxcompress.tasks import facts


def test_known_1000(shared_data):
    loaded = facts.load(shared_data / "tasks" / "known_1000.json")
    records = json.loads((shared_data / "tasks" / "known_1000.json").read_text())
    assert len(loaded) == len(records) == 1209
    for fact, record in zip(loaded, records, strict=True):
        assert fact.template.replace("{}", fact.subject) == record["prompt"]
        assert fact.attribute == record["attribute"]


def test_own_facts_are_consistent():
    assert len(set(facts.FACTS)) == len(facts.FACTS) == 62
    assert all(fact.template.count("{}") == 1 for fact in facts.FACTS)
    known = {(fact.relation, fact.subject): fact.attribute for fact in facts.FACTS}
    assert len(known) == len(facts.FACTS)  # one attribute per subject and relation


def test_pairs_swap_the_subject():
    by_prompt = {f.template.replace("{}", f.subject): f for f in facts.FACTS}
    pairs = facts.pairs(10_000, np.random.default_rng(0))
    assert len(set(pairs)) == len(pairs)
    for pair in pairs:
        fact, other = by_prompt[pair.clean], by_prompt[pair.corrupted]
        assert fact.relation == other.relation
        assert fact.subject != other.subject
        assert (*pair.correct, *pair.wrong) == (f" {fact.attribute}", f" {other.attribute}")
        assert fact.attribute != other.attribute
    groups = {}
    for fact in facts.FACTS:
        groups.setdefault(fact.relation, []).append(fact.attribute)
    possible = sum(a != b for group in groups.values() for a in group for b in group)
    assert len(pairs) == possible  # all there are, once
    assert len({pair.clean for pair in pairs[: len(facts.FACTS)]}) == len(facts.FACTS)


def test_from_a_file(shared_data, gpt2):
    path = shared_data / "tasks" / "known_1000.json"
    prompts = tasks.get("known_facts", gpt2, 16, jax.random.key(0), path=path)
    attributes = {f" {fact.attribute}" for fact in facts.load(path)}
    for token in [*np.asarray(prompts.correct).ravel(), *np.asarray(prompts.wrong).ravel()]:
        assert gpt2.decode([int(token)]) in attributes
    # The swapped subject is one run of tokens: the prompts agree before and after it.
    assert ((prompts.tokens != prompts.corrupted).any(axis=1)).all()


def test_facts_option():
    few = [fact for fact in facts.FACTS if fact.relation == "symbol"]
    pairs = tasks.texts("known_facts", 5, jax.random.key(0), facts=few)
    assert all("chemical symbol" in pair.clean for pair in pairs)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", r"facts.json: expected JSON"),
        ("{}", r"facts.json: expected a list of records, got dict"),
        ('[{"subject": "a"}]', r"facts.json\[0\]: expected a record with the texts"),
        (
            '[{"subject": "a", "attribute": "b", "prompt": "c is", "relation_id": "d"}]',
            r"facts.json\[0\]: expected the subject once in the prompt, got 'a' in 'c is'",
        ),
    ],
)
def test_bad_files(tmp_path, text, match):
    path = tmp_path / "facts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        facts.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="path: expected a JSON file of facts"):
        facts.load(tmp_path / "no.json")
