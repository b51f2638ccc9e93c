"""The modules of the transformer: embeddings, one block, and the head."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcompress.models.config import LayerSize, ModelConfig
from jaxcompress.models.control import LayerControl, Sight
from jaxcompress.models.layers import (
    MLP,
    Affine,
    Attention,
    Norm,
    activate,
    affine,
    einsum,
    gated,
    shifted,
)

__all__ = ["Block", "Embed", "Unembed", "take"]


class Embed(nn.Module):
    """Token, position and type embeddings."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, positions: jax.Array, keep: Any) -> jax.Array:
        config, initial = self.config, nn.initializers.normal(0.02)
        table = self.param("tokens", initial, (config.vocab, config.width))
        x = jnp.take(table, tokens, axis=0)
        if config.positions == "learned":
            where = self.param("positions", initial, (config.context, config.width))
            x = x + jnp.take(where, positions, axis=0)
        if config.token_types:
            x = x + self.param("types", initial, (config.token_types, config.width))[0][None, None]
        if config.embed_norm:
            x = Norm(config, name="norm")(x, keep)
        return gated(x, keep, None).astype(config.dtype)


class Block(nn.Module):
    """One layer: attention and MLP, each behind a gate, before or after their norms."""

    config: ModelConfig
    size: LayerSize

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        prefix: Any,
        sight: Sight,
        control: LayerControl,
        keep: Any,
        rows: Any = None,
        split: bool = False,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Runs the layer.

        Args:
          x: (batch, position, width) residual stream.
          prefix: (batch, earlier position, width) residual stream to attend to but not to
            recompute, or `None`.
          sight: visibility and rotary angles; of all positions of `x`, whatever `rows` says.
          control: gates and edits of this layer.
          keep: width gate or `None`.
          rows: (batch,) the one position of each example whose output is wanted, or `None`: all.
          split: see `Attention`.

        Returns:
          The residual stream (batch, position or 1, width) and the taps.
        """
        config = self.config
        norm_1, norm_2 = Norm(config, name="attn_norm"), Norm(config, name="mlp_norm")
        before = (lambda norm, y: y) if config.post_norm else (lambda norm, y: norm(y, keep))
        source = before(norm_1, x)
        queries = source
        if prefix is not None:
            source = jnp.concatenate([before(norm_1, prefix), source], axis=1)
        taps = {"resid": x}
        if rows is not None:
            x, queries, keep = take(x, rows), take(queries, rows), take(keep, rows)
            control = jax.tree.map(lambda leaf: take(leaf, rows), control)
            sight = sight._replace(
                visible=take(sight.visible, rows), query_angles=take(sight.query_angles, rows)
            )
        after = (lambda norm, y: norm(y, keep)) if config.post_norm else (lambda norm, y: y)
        attention = Attention(config, self.size, name="attn")
        out, seen = attention(queries, source, sight, control, split)
        taps |= seen | {"attns": out}
        write = gated(gated(out, control.attns, control.attns_edit), keep, None)
        x = after(norm_1, x + write)
        out, neurons = MLP(config, self.size, name="mlp")(
            x if config.post_norm else norm_2(x, keep), control
        )
        taps |= {"mlps": out, "neurons": neurons}
        write = gated(gated(out, control.mlps, control.mlps_edit), keep, None)
        return after(norm_2, x + write), taps


class Unembed(nn.Module):
    """From the residual stream to float32 logits."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, table: jax.Array, keep: Any, only: Any = None) -> jax.Array:
        """Logits of (batch, position, width); `only` (batch, answer) picks tokens per example."""
        config = self.config
        if config.final_norm:
            x = Norm(config, name="final_norm")(x, keep)
        if config.head == "masked_lm":
            transform = Affine(config, (config.width,), (config.width,), True, name="transform")()
            x = activate(config.activation, affine("btm,mn->btn", x, transform))
            x = Norm(config, name="transform_norm")(gated(x, keep, None), keep)
        outputs = config.outputs or config.vocab
        if config.tied:
            kernel = table.astype(config.dtype).T
        else:
            initial = nn.initializers.normal(config.width**-0.5)
            kernel = self.param("kernel", initial, (config.width, outputs)).astype(config.dtype)
        bias = None
        if config.unembed_bias:
            bias = self.param("bias", nn.initializers.zeros, (outputs,))
        if only is None:
            return shifted(einsum("btm,mv->btv", x, kernel).astype(jnp.float32), bias)
        logits = einsum("btm,mba->bta", x, kernel[:, only]).astype(jnp.float32)
        return logits if bias is None else logits + bias[only][:, None]


def take(x: Any, rows: jax.Array) -> Any:
    """Row `rows[b]` of the position axis of (1 or b, 1 or t, ...), axis kept; size 1 is left.

    Example:
      >>> take(jnp.arange(6).reshape(2, 3, 1), jnp.array([0, 2])).tolist()
      [[[0]], [[5]]]
    """
    if x is None or x.shape[1] == 1:
        return x
    x = jnp.broadcast_to(x, (len(rows), *x.shape[1:]))
    return jnp.take_along_axis(x, rows.reshape(-1, *(1,) * (x.ndim - 1)), axis=1)
