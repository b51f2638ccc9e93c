"""What gates leave: parameters and FLOPs of the shrunk model, counted without shrinking it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxcompress.models.config import ModelConfig
from jaxcompress.models.gates import Gates

__all__ = ["existing", "flops_per_token", "left", "parameters"]


def existing(config: ModelConfig) -> Gates:
    """Which components there are: 0 in the slots of heads and neurons that smaller layers lack.

    Example:
      >>> from jaxcompress.models.config import LayerSize
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=3, vocab=11, context=5,
      ...                      sizes=(LayerSize(1, 1, 3), LayerSize(2, 2, 0)))
      >>> existing(config).heads.tolist(), existing(config).neurons.tolist()
      ([[1.0, 0.0], [1.0, 1.0]], [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    """

    def slots(name: str) -> np.ndarray:
        counts = np.array([getattr(size, name) for size in config.layer_sizes])
        return (np.arange(getattr(config, name)) < counts[:, None]).astype(np.float32)

    ones = Gates.ones(config)
    return dataclasses.replace(ones, heads=slots("heads"), neurons=slots("neurons"))


def parameters(config: ModelConfig, gates: Gates | None = None) -> int:
    """Parameters of the model that `shrink` makes of binary gates.

    Counted as shrunk arrays: a key/value head goes with its last query head, and repeated ones are
    counted as often as they are stored. Layers that write nothing are counted with their norms and
    biases, which `shrink` drops where it can: the number is exact but for such layers.

    Args:
      config: of the whole model.
      gates: 0 and 1; `None` is the whole model.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> parameters(config), parameters(config, Gates.off(config, neurons=[(0, 3)]))
      (1344, 1327)
    """
    heads, kv_heads, neurons, width = left(config, gates)
    norm = {"layernorm": 2, "rmsnorm": 1, "none": 0}[config.norm] * width
    dim, qkv_bias = config.head_dim, int(config.qkv_bias)
    matrices = 3 if config.gated_mlp else 2
    layer = (
        (heads + 2 * kv_heads) * dim * (width + qkv_bias)
        + heads * dim * width
        + neurons * (matrices * width + (matrices - 1) * int(config.mlp_bias))
        + width * (int(config.output_bias) + int(config.mlp_bias))
        + 2 * norm
    )
    return int(layer.sum()) + _outside(config, width, norm)


def flops_per_token(
    config: ModelConfig, gates: Gates | None = None, *, length: int | None = None
) -> int:
    """FLOPs of the matrix products of one forward, for each token; a multiply and an add are two.

    Args:
      config: of the whole model.
      gates: 0 and 1; `None` is the whole model.
      length: tokens of a prompt, all of which attention looks at; by default the context.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> flops_per_token(config)
      2544
    """
    heads, kv_heads, neurons, width = left(config, gates)
    length = config.context if length is None else length
    dim, matrices = config.head_dim, 3 if config.gated_mlp else 2
    layer = (
        (2 * heads + 2 * kv_heads) * dim * width
        + 2 * heads * dim * length
        + matrices * neurons * width
    )
    transform = width * width if config.head == "masked_lm" else 0
    unembed = 0 if config.head == "none" else width * (config.outputs or config.vocab)
    return 2 * (int(layer.sum()) + transform + unembed)


def left(config: ModelConfig, gates: Gates | None = None) -> tuple[Any, Any, Any, int]:
    """Heads, key/value heads and neurons of every layer that gates leave, and the width.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=1, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> [x.tolist() for x in left(config, Gates.off(config, heads=[(0, 1)], mlps=[1]))[:3]]
      [[1, 2], [1, 1], [16, 0]]
    """
    gates = Gates() if gates is None else gates
    values = {
        field.name: np.asarray(
            getattr(Gates.ones(config), field.name)
            if getattr(gates, field.name) is None
            else getattr(gates, field.name)
        )
        != 0
        for field in dataclasses.fields(Gates)
    }
    heads, kv_heads, neurons = [], [], []
    for i, size in enumerate(config.layer_sizes):
        alive = values["heads"][i, : size.heads] & values["attns"][i]
        groups = alive.reshape(size.kv_heads, -1).sum(axis=1) if size.heads else np.zeros(1, int)
        shared = np.gcd.reduce(groups)
        heads.append(int(alive.sum()))
        kv_heads.append(int(alive.sum() // shared) if shared else 0)
        neurons.append(int((values["neurons"][i, : size.neurons] & values["mlps"][i]).sum()))
    return np.array(heads), np.array(kv_heads), np.array(neurons), int(values["width"].sum())


def _outside(config: ModelConfig, width: int, norm: int) -> int:
    """Parameters that belong to no layer."""
    outputs = config.outputs or config.vocab
    positions = config.context if config.positions == "learned" else 0
    count = (config.vocab + positions + config.token_types) * width
    count += norm * (int(config.embed_norm) + int(config.final_norm and config.head != "none"))
    count += (width * width + width) * int(config.pooler)
    if config.head == "none":
        return count
    if config.head == "masked_lm":
        count += width * width + width + norm
    count += 0 if config.tied else width * outputs
    return count + (outputs if config.unembed_bias else 0)
