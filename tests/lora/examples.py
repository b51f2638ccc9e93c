"""Adapters with random leaves, so that every factor and every magnitude matters."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from jaxcompress import lora, tree


@functools.cache
def _compiled_init(targets, rank, alpha, variant):
    def init(params, key):
        return lora.init(params, dict(targets), rank=rank, alpha=alpha, variant=variant, key=key)

    return jax.jit(init)


def adapter(params, targets, *, alpha=3.0, variant="lora", seed=0):
    """An adapter that changes the weights by something of their own size."""
    made = _compiled_init(tuple(targets.items()), None, alpha, variant)(params, jax.random.key(1))
    return randomized(made, seed)


def randomized(made, seed=0):
    """Other values of the trainable leaves: random factors, magnitudes changed by up to a half."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "m":
            return (leaf * rng.uniform(0.5, 1.5, leaf.shape)).astype(np.float32)
        return (0.4 * rng.standard_normal(leaf.shape)).astype(np.float32)

    trained = jax.tree_util.tree_map_with_path(draw, lora.trainable(made))
    return lora.with_trained(made, trained)


def effects(adapter, params):
    """What the adapter adds to each parameter that it edits, by path."""
    before, after = tree.paths(params), tree.paths(lora.merge(params, adapter))
    return {spec.path: np.asarray(after[spec.path] - before[spec.path]) for spec in adapter.specs}


def scaled(made, factor):
    """The same specs with another alpha."""
    specs = tuple(spec._replace(alpha=spec.alpha * factor) for spec in made.specs)
    return dataclasses.replace(made, specs=specs)
