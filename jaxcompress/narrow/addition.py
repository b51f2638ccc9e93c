"""The published network that learns modular addition, and its start.

Reference: Nanda et al. 2023 (arXiv 2301.05217), and their code.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.models.config import ModelConfig

__all__ = ["network", "redraw"]


def network(p: int, *, width: int = 128, heads: int = 4, neurons: int = 0) -> ModelConfig:
    """The published network: one layer, ReLU, no norm, biases in the MLP only, untied.

    Args:
      p: modulus; the token p says "equals".
      width: of the residual stream, a multiple of `heads`.
      heads: of the layer.
      neurons: of the MLP; 0 for four times the width.

    Raises:
      ValueError: if the heads do not divide the width.

    Example:
      >>> network(113).neurons, network(113).head_dim
      (512, 32)
    """
    if check.integer("width", width, 1) % check.integer("heads", heads, 1):
        raise check.fail("heads", f"a divisor of the width {width}", heads)
    return ModelConfig(
        family="research",
        layers=1,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        width=width,
        neurons=neurons or 4 * width,
        vocab=p + 1,
        context=3,
        activation="relu",
        norm="none",
        final_norm=False,
        qkv_bias=False,
        output_bias=False,
        tied=False,
    )


def redraw(params: Any, key: jax.Array) -> Any:
    """Parameters of `network` drawn anew as published: N(0, 1 / width), biases 0.

    The unembedding is N(0, 1 / vocab). Our usual start has embeddings six times smaller.

    Args:
      params: of the network, for their shapes.
      key: typed.

    Example:
      >>> shapes = {"embed": {"tokens": jnp.zeros((5, 400))}, "head": {"kernel": jnp.zeros((4, 4))}}
      >>> round(float(redraw(shapes, jax.random.key(0))["embed"]["tokens"].std()) * 20)
      1
    """
    found = tree.paths(params)
    width = found["embed/tokens"].shape[-1]
    keys = jax.random.split(key, len(found))
    drawn = {}
    for (path, leaf), one in zip(sorted(found.items()), keys, strict=True):
        scale = leaf.shape[-1] if path == "head/kernel" else width
        zero = path.endswith("bias")
        noise = jnp.zeros(leaf.shape) if zero else jax.random.normal(one, leaf.shape)
        drawn[path] = noise * scale**-0.5
    return tree.nest(drawn)
