"""Profiles out of a random generator: four heads, two MLPs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxcompress.align import Profile

COUNT = 12


def made_up(seed: int) -> Profile:
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(6, COUNT)) - np.arange(6)[:, None]
    logits = rng.normal(size=(6, COUNT, 40))
    return Profile(
        names=("head 0.0", "head 0.1", "head 1.0", "head 1.1", "mlp 0", "mlp 1"),
        heads=4,
        effects=effects,
        clean=np.full(COUNT, 5.0),
        patterns=jnp.asarray(rng.random((4, 3, 3))),
        rows=jnp.ones(3),
        outputs=jnp.asarray(rng.normal(size=(2, 30, 5))),
        logits=logits - logits.mean(axis=-1, keepdims=True),
        written=(rng.normal(size=(4, COUNT, 7)), rng.normal(size=(2, COUNT, 7))),
        attention=rng.random((4, COUNT, 6)),
        roles=rng.dirichlet(np.ones(6), size=4),
    )
