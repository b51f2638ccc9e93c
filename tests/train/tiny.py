"""A tiny language model and its training, for tests; as a script, a run that waits to be killed."""

from __future__ import annotations

import sys
import time

import jax
import numpy as np

from jaxcompress import train
from jaxcompress.distill import losses
from jaxcompress.models import ModelConfig, transformer

STEPS, CHUNK = 24, 2
CONFIG = ModelConfig(
    family="gpt2",
    layers=2,
    heads=2,
    kv_heads=2,
    head_dim=4,
    width=8,
    neurons=16,
    vocab=12,
    context=6,
)
OPTIMIZER = train.optimizer(train.OptimizerConfig(rate=0.01, warmup=4), STEPS)


def loss(params, batch, key):
    """Cross-entropy over the unmasked tokens, with noise that depends on the key of the step."""
    logits = transformer.apply(CONFIG, params, batch["tokens"]).logits[:, :-1]
    logits = logits + batch["noise"] * jax.random.normal(key, logits.shape)
    value, count = losses.cross_entropy(logits, batch["tokens"][:, 1:], batch["mask"][:, 1:])
    return value, {"count": count}


def data(noise=0.1, rows=40):
    rng = np.random.default_rng(0)
    return {
        "tokens": rng.integers(0, CONFIG.vocab, (rows, CONFIG.context)).astype(np.int32),
        # From one token to all, so that rows differ in their weight.
        "mask": np.arange(CONFIG.context)[None] <= rng.integers(1, CONFIG.context, (rows, 1)),
        "noise": np.full((rows, 1, 1), noise, np.float32),
    }


STEP = train.make_step(loss, OPTIMIZER)


def start():
    params = jax.jit(transformer.init, static_argnums=0)(CONFIG, jax.random.key(1))
    return train.create(params, OPTIMIZER, jax.random.key(0))


def fit(checkpoints=None, loggers=(), steps=STEPS):
    return train.fit(
        start(),
        STEP,
        data(),
        steps,
        batch=8,
        chunk=CHUNK,
        checkpoints=checkpoints,
        loggers=loggers,
        progress=False,
    )


if __name__ == "__main__":
    fit(sys.argv[1], [lambda *_: time.sleep(0.3)])
    sys.exit("trained to the end before anybody stopped it")
