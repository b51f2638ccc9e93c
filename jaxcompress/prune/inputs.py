"""What goes into the matrices of each layer, worked out from the taps of a forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress.models.config import ModelConfig

__all__ = ["TAPS", "entering"]

TAPS = ("attns", "heads", "neurons", "resid")
"""The taps that `entering` needs."""


def entering(config: ModelConfig, params: Any, taps: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Inputs of the matrices of each layer, in float32.

    Args:
      config: of the model.
      params: its parameters.
      taps: those of `TAPS`, of a forward without gates.

    Returns:
      (layer, batch, position, in) arrays: `attn` goes into query, key and value, `heads` into the
      output projection, `mlp` into up and gate, `neurons` into down.

    Example:
      >>> from jaxcompress.io import load
      >>> model = load("builtin:student")
      >>> out = model.apply(model.params, jnp.ones((1, 3), int), taps=TAPS)
      >>> entering(model.config, model.params, out.taps)["neurons"].shape
      (2, 1, 3, 256)
    """
    taps = {name: taps[name].astype(jnp.float32) for name in TAPS}
    before, heads = taps["resid"][:-1], taps["heads"]
    middle = before if config.parallel else before + taps["attns"]
    after_attn = "attn_norm" if config.post_norm else "mlp_norm"
    return {
        "attn": before if config.post_norm else _norm(config, params, before, "attn_norm"),
        "mlp": _norm(config, params, middle, after_attn),
        "heads": heads.reshape(*heads.shape[:3], -1),
        "neurons": taps["neurons"],
    }


def _norm(config: ModelConfig, params: Any, x: jax.Array, name: str) -> jax.Array:
    """The norm called `name` of every layer, over (layer, batch, position, width)."""
    if config.norm == "none":
        return x
    blocks = params["blocks"]
    if config.stacked:
        own = blocks[name]
    else:
        layers = [blocks[str(i)][name] for i in range(config.layers)]
        own = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    weights = {key: leaf[:, None, None].astype(jnp.float32) for key, leaf in own.items()}
    if config.norm == "layernorm":
        x = x - x.mean(axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + config.norm_eps) * weights["scale"]
    return x + weights["bias"] if "bias" in weights else x
