"""Factual recall: a subject and a relation determine an attribute.

Meng, Bau, Andonian and Belinkov 2022, "Locating and Editing Factual Associations in GPT" (arXiv
2202.05262), section 2: the 1,209 facts of `known_1000.json` that GPT-2 XL knows. The file is not
shipped; `load` reads it, and `FACTS` are some well-known facts of our own.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcompress import check
from jaxcompress.tasks.pairs import TextPair

__all__ = ["FACTS", "Fact", "load", "pairs"]


class Fact(NamedTuple):
    """`template` with its "{}" filled by `subject` is continued by " " + `attribute`."""

    subject: str
    template: str
    attribute: str
    relation: str


def _relation(relation: str, template: str, entries: str) -> tuple[Fact, ...]:
    split = [entry.strip().split(": ") for entry in entries.split(",")]
    return tuple(Fact(subject, template, attribute, relation) for subject, attribute in split)


FACTS: tuple[Fact, ...] = (
    *_relation(
        "capital",
        "The capital of {} is",
        "France: Paris, Germany: Berlin, Italy: Rome, Spain: Madrid, Japan: Tokyo, Russia: Moscow,"
        "China: Beijing, Egypt: Cairo, Greece: Athens, Cuba: Havana, Poland: Warsaw",
    ),
    *_relation(
        "language",
        "The official language of {} is",
        "Brazil: Portuguese, Mexico: Spanish, Austria: German, Egypt: Arabic, France: French,"
        "Italy: Italian, Russia: Russian, Japan: Japanese, Poland: Polish, Iran: Persian",
    ),
    *_relation(
        "continent",
        "The country of {} is on the continent of",
        "Kenya: Africa, Nigeria: Africa, Egypt: Africa, India: Asia, China: Asia, Japan: Asia,"
        "Germany: Europe, Spain: Europe, Poland: Europe",
    ),
    *_relation(
        "symbol",
        "The chemical symbol for {} is",
        "gold: Au, silver: Ag, iron: Fe, copper: Cu, lead: Pb, tin: Sn, carbon: C, helium: He",
    ),
    *_relation(
        "country",
        "The city of {} is in the country of",
        "Toronto: Canada, Mumbai: India, Milan: Italy, Munich: Germany, Barcelona: Spain,"
        "Sydney: Australia, Shanghai: China, Lyon: France, Manchester: England",
    ),
    *_relation(
        "maker",
        "The {} is made by the company",
        "iPhone: Apple, iPad: Apple, Xbox: Microsoft, PlayStation: Sony, Mustang: Ford,"
        "Corolla: Toyota, Civic: Honda, Kindle: Amazon",
    ),
    *_relation(
        "sport",
        "The athlete {} is famous for playing",
        "Michael Jordan: basketball, Tiger Woods: golf, Roger Federer: tennis, Babe Ruth: baseball,"
        "Wayne Gretzky: hockey, Serena Williams: tennis, Tom Brady: football",
    ),
)
"""Sixty-two facts of seven relations; each relation has one template."""


def load(path: str | os.PathLike[str]) -> tuple[Fact, ...]:
    """Reads facts from a JSON list of records as in `known_1000.json`.

    A record has "subject", "attribute", "prompt" and "relation_id". The template is the prompt with
    the subject taken out: prompts of that file may go on after their own "template".

    Raises:
      ValueError: if there is no such file, it is no JSON list, or a record lacks a field or names
        its subject nowhere or twice in the prompt.

    Example:
      >>> import tempfile
      >>> record = dict(subject="Rome", attribute="Italy", prompt="Rome is in", relation_id="P17")
      >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
      ...     _ = file.write(json.dumps([record])); file.flush()
      ...     load(file.name)
      (Fact(subject='Rome', template='{} is in', attribute='Italy', relation='P17'),)
    """
    if not Path(path).is_file():
        raise check.fail("path", "a JSON file of facts", str(path), "known_1000.json of ROME")
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise check.fail(str(path), "JSON", str(error)) from error
    if not isinstance(records, list) or not records:
        raise check.fail(str(path), "a list of records", type(records).__name__)
    return tuple(_fact(record, f"{path}[{i}]") for i, record in enumerate(records))


def _fact(record: object, where: str) -> Fact:
    fields = ("subject", "attribute", "prompt", "relation_id")
    if not isinstance(record, dict) or not all(isinstance(record.get(f), str) for f in fields):
        raise check.fail(where, f"a record with the texts {', '.join(fields)}", repr(record))
    subject, attribute, prompt, relation = (record[field] for field in fields)
    if not subject or prompt.count(subject) != 1:
        raise check.fail(where, "the subject once in the prompt", f"{subject!r} in {prompt!r}")
    return Fact(subject, prompt.replace(subject, "{}"), attribute, relation)


def pairs(
    count: int,
    rng: np.random.Generator,
    *,
    path: str | os.PathLike[str] | None = None,
    facts: Sequence[Fact] = FACTS,
) -> tuple[TextPair, ...]:
    """Facts, corrupted by another subject of the same relation that has another attribute.

    The wrong answer is the other subject's attribute, so the logit difference turns round when the
    corrupted subject is patched in. Pairs whose subjects have unequal token counts are dropped
    later, by `encode`; every fact therefore comes with every other subject in turn.

    Args:
      count: how many pairs.
      rng: consumed.
      path: file to `load` the facts from, in place of `facts`.
      facts: the facts.

    Returns:
      `count` pairs, or all there are. Each fact comes once before any comes twice.

    Example:
      >>> pair = pairs(1, np.random.default_rng(0), facts=FACTS[:2])[0]
      >>> sorted([*pair.correct, *pair.wrong])
      [' Berlin', ' Paris']
    """
    facts = tuple(facts) if path is None else load(path)
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.relation, []).append(fact)
    queues = []
    for i in rng.permutation(len(facts)):
        fact, group = facts[i], groups[facts[i].relation]
        others = [group[j] for j in rng.permutation(len(group))]
        queues.append([(fact, o) for o in others if o.attribute != fact.attribute])
    # Every fact with its first other subject, then every fact with its second, ...
    turns = (pair for turn in itertools.zip_longest(*queues) for pair in turn if pair is not None)
    unique: dict[TextPair, None] = {}
    for fact, other in turns:
        if len(unique) == count:
            break
        unique[_pair(fact, other)] = None
    return tuple(unique)


def _pair(fact: Fact, other: Fact) -> TextPair:
    clean, corrupted = (fact.template.replace("{}", f.subject) for f in (fact, other))
    return TextPair(clean, corrupted, (f" {fact.attribute}",), (f" {other.attribute}",))
