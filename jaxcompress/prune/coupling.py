"""Which slices of which arrays go together: the one table that shrinking, padding and norms read.

Axes are those of one layer's arrays (no leading layer axis). Key and value projections belong to
key/value heads, which are removed when the last of their query heads goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcompress import tree
from jaxcompress.models.config import ModelConfig

__all__ = ["HEADS", "KV_HEADS", "NEURONS", "WIDTH", "layer", "layers", "take"]

HEADS: Mapping[str, tuple[int, ...]] = {
    "attn/query/kernel": (1,),
    "attn/query/bias": (0,),
    "attn/output/kernel": (0,),
}
"""Query heads: path within a layer -> axes."""

KV_HEADS: Mapping[str, tuple[int, ...]] = {
    f"attn/{part}/{leaf}": (axis,)
    for part in ("key", "value")
    for leaf, axis in (("kernel", 1), ("bias", 0))
}
"""Key/value heads, likewise."""

NEURONS: Mapping[str, tuple[int, ...]] = {
    "mlp/up/kernel": (1,),
    "mlp/up/bias": (0,),
    "mlp/gate/kernel": (1,),
    "mlp/gate/bias": (0,),
    "mlp/down/kernel": (0,),
}
"""MLP neurons, likewise. The biases behind a removed head or neuron stay."""

WIDTH: Mapping[str, tuple[int, ...]] = {
    "attn/query/kernel": (0,),
    "attn/key/kernel": (0,),
    "attn/value/kernel": (0,),
    "attn/output/kernel": (2,),
    "attn/output/bias": (0,),
    "mlp/up/kernel": (0,),
    "mlp/gate/kernel": (0,),
    "mlp/down/kernel": (1,),
    "mlp/down/bias": (0,),
    "attn_norm/scale": (0,),
    "attn_norm/bias": (0,),
    "mlp_norm/scale": (0,),
    "mlp_norm/bias": (0,),
    "embed/tokens": (1,),
    "embed/positions": (1,),
    "embed/types": (1,),
    "embed/norm/scale": (0,),
    "embed/norm/bias": (0,),
    "head/final_norm/scale": (0,),
    "head/final_norm/bias": (0,),
    "head/kernel": (0,),
    "head/transform/kernel": (0, 1),
    "head/transform/bias": (0,),
    "head/transform_norm/scale": (0,),
    "head/transform_norm/bias": (0,),
    "pooler/kernel": (0, 1),
    "pooler/bias": (0,),
}
"""Residual channels: path, within a layer or from the root -> axes."""


def take(
    flat: Mapping[str, Any], table: Mapping[str, tuple[int, ...]], kept: Any
) -> dict[str, Any]:
    """Arrays by path with the rows `kept` of the axes that a table names; others as they are.

    Args:
      flat: arrays by slash path.
      table: path -> axes.
      kept: indices, in the order that they shall have.

    Example:
      >>> take({"mlp/up/bias": np.arange(4.0)}, NEURONS, [2, 0])["mlp/up/bias"].tolist()
      [2.0, 0.0]
    """

    def narrow(path: str, leaf: Any) -> Any:
        for axis in table.get(path, ()):
            leaf = np.take(np.asarray(leaf), np.asarray(kept, np.int64), axis=axis)
        return leaf

    return {path: narrow(path, leaf) for path, leaf in flat.items()}


def layer(params: Mapping[str, Any], config: ModelConfig, i: int) -> dict[str, np.ndarray]:
    """The arrays of one layer by path, as NumPy, whether layers are stacked or held apart.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> layer({"blocks": {"mlp": {"up": {"bias": np.zeros((2, 16))}}}}, config, 1).keys()
      dict_keys(['mlp/up/bias'])
    """
    blocks = params["blocks"]
    own = tree.index(blocks, i) if config.stacked else blocks[str(i)]
    return {path: np.asarray(leaf) for path, leaf in tree.paths(own).items()}


def layers(flat: list[dict[str, Any]], stacked: bool) -> dict[str, Any]:
    """The inverse of `layer`, of all layers: the tree `blocks`.

    Args:
      flat: arrays by path, of every layer.
      stacked: whether they have equal shapes and get a common leading axis.

    Example:
      >>> layers([{"mlp/up": np.zeros(2)}, {"mlp/up": np.ones(2)}], True)["mlp"]["up"].shape
      (2, 2)
    """
    if stacked:
        return tree.nest({path: np.stack([one[path] for one in flat]) for path in flat[0]})
    return {str(i): tree.nest(one) for i, one in enumerate(flat)}
