"""Small models for the tests of circuits, with prompts: one that is linear, and a GPT-2."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress.models import Model
from jaxcompress.tasks.prompts import Prompts
from tests import families


@functools.cache
def linear() -> Model:
    """Uniform attention, no MLP, no norm: logits are linear in every activation."""
    found = families.model("research", layers=2, neurons=0, attention_coefficient=0.0, causal=True)
    return found.replace(params=jax.tree.map(jnp.asarray, found.params))


@functools.cache
def gpt2() -> Model:
    found = families.model("gpt2", layers=2, heads=2, kv_heads=2)
    return found.replace(params=jax.tree.map(jnp.asarray, found.params))


def prompts(padding: str = "none") -> Prompts:
    """One right and one wrong answer each, so that the logit difference is linear in the logits."""
    found = families.prompts(padding)
    return dataclasses.replace(found, wrong=(found.correct + 3) % families.VOCAB)


def towards(model: Model) -> Prompts:
    """Prompts whose answers are what differs most between the runs: a task that can be done."""
    found = prompts()
    clean, other = (
        np.asarray(model.apply(model.params, tokens, answer_position=found.answer_position).logits)
        for tokens in (found.tokens, found.corrupted)
    )
    change = clean - other + 0.1 * clean  # and the clean run is right
    best, worst = change.argmax(1), change.argmin(1)
    return dataclasses.replace(found, correct=best[:, None], wrong=worst[:, None])
