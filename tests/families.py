"""Tiny random models of every family, and prompts for them, for the tests of models and sweeps."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from jaxcompress.models import LayerSize, Model, ModelConfig, RopeScaling, create, shapes
from jaxcompress.tasks.prompts import Prompts

VOCAB, CONTEXT, BATCH, LENGTH = 11, 9, 3, 6

_SIZES = {"layers": 3, "heads": 4, "head_dim": 4, "width": 8, "neurons": 6, "vocab": VOCAB}
_ENCODER = {
    "kv_heads": 4,
    "post_norm": True,
    "final_norm": False,
    "causal": False,
    "embed_norm": True,
    "head": "masked_lm",
    "unembed_bias": True,
    "activation": "gelu",
}
_FAMILIES = {
    "gpt2": {"kv_heads": 4},
    "llama": {
        "kv_heads": 2,
        "norm": "rmsnorm",
        "gated_mlp": True,
        "positions": "rope",
        "rope_scaling": RopeScaling(8.0, 1.0, 4.0, 16),
        "activation": "silu",
        "qkv_bias": False,
        "output_bias": False,
        "mlp_bias": False,
        "tied": False,
    },
    "gpt_neox": {
        "kv_heads": 4,
        "parallel": True,
        "positions": "rope",
        "rotary_dim": 2,
        "activation": "gelu",
        "tied": False,
    },
    "bert": {**_ENCODER, "token_types": 2},
    "distilbert": _ENCODER,
    "research": {
        "kv_heads": 4,
        "norm": "none",
        "final_norm": False,
        "causal": False,
        "attention_coefficient": 0.5,
        "activation": "relu",
        "tied": False,
    },
    "uneven": {
        "family": "gpt2",
        "kv_heads": 2,
        "sizes": (LayerSize(4, 2, 6), LayerSize(2, 1, 3), LayerSize(0, 0, 0)),
    },
}
NAMES = tuple(_FAMILIES)


def config(name: str, **changes) -> ModelConfig:
    return ModelConfig(
        **{"family": name, "context": CONTEXT, **_SIZES, **_FAMILIES[name], **changes}
    )


def randomized(config: ModelConfig, seed: int = 0):
    """NumPy parameters, so that nothing is compiled: biases are not 0 and scales not 1."""
    rng = np.random.default_rng(seed)
    spread = 0.25 if config.norm == "none" else 0.5  # nothing else keeps the stream small

    def draw(path, leaf):
        noise = spread * rng.standard_normal(leaf.shape)
        return (noise + ("scale" in jax.tree_util.keystr(path))).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(config))


@functools.cache
def model(name: str, **changes) -> Model:
    made = config(name, **changes)
    return create(made, randomized(made))


def unstacked(model: Model) -> Model:
    """The same model with its layers held apart, which takes the path of uneven models."""
    config = model.config
    blocks = {
        str(i): jax.tree.map(lambda leaf, i=i: leaf[i], model.params["blocks"])
        for i in range(config.layers)
    }
    apart = dataclasses.replace(config, sizes=config.layer_sizes)
    return create(apart, {**model.params, "blocks": blocks})


def mask(padding: str) -> np.ndarray | None:
    if padding == "none":
        return None
    out = np.ones((BATCH, LENGTH), int)
    out[1, slice(LENGTH - 2, None) if padding == "right" else slice(0, 2)] = 0
    return out


def tokens(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, (BATCH, LENGTH))


def prompts(padding: str = "none", *, causal: bool = True) -> Prompts:
    """Random prompts with up to two wrong answers; those of an encoder are in the middle."""
    rng = np.random.default_rng(1)
    seen = mask(padding)
    seen = np.ones((BATCH, LENGTH), int) if seen is None else seen
    last = LENGTH - 1 - np.argmax(seen[:, ::-1], axis=1)
    wrong = rng.integers(0, VOCAB, (BATCH, 2))
    wrong[0, 1] = -1
    return Prompts(
        tokens=tokens(0),
        corrupted=tokens(1),
        attention_mask=seen,
        answer_position=last if causal else np.full(BATCH, 2),
        correct=rng.integers(0, VOCAB, (BATCH, 1)),
        wrong=wrong,
    )
