"""Products of what senders change with the gradients at receivers, for all edges of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import tree
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.products import einsum
from jaxcompress.types import Senders

__all__ = ["Points", "Pulls", "contract"]

Norm = Callable[[Any, jax.Array], jax.Array]


class Pulls(NamedTuple):
    """Gradients at the receivers: of queries, keys and values after their projection.

    Attributes:
      query: (layer, batch, position, head, head_dim), before rotary positions.
      key: (layer, batch, position, kv_head, head_dim), likewise.
      value: (layer, batch, position, kv_head, head_dim).
      mlp: (layer, batch, position, width), of the stream that the MLP (or its norm) reads.
      logits: (batch, position, width), of the stream that the head reads.
    """

    query: Any
    key: Any
    value: Any
    mlp: Any
    logits: Any


class Points(NamedTuple):
    """(layer, batch, position, width) streams that enter the two norms of every layer."""

    attn: Any
    mlp: Any


def contract(
    config: ModelConfig,
    norm: Norm,
    params: Any,
    delta: Senders,
    pulls: Pulls,
    points: Points,
    per_position: bool = False,
    block: int = 8,
) -> jax.Array:
    """(receiver, sender) products, summed over batch and positions.

    Pre-norm: a gradient is pulled back through the receiver's norm, once for every receiver.
    Post-norm: a change is pushed through every norm between sender and receiver.

    Args:
      config: of the model.
      norm: `(params of a norm, x) -> normalised`.
      params: of the model.
      delta: what senders change.
      pulls: gradients at receivers.
      points: where the norms are linearised.
      per_position: keep a leading position axis.
      block: positions per step; one step holds (senders + receivers of a layer) x batch x block
        x width numbers.

    Example:
      >>> config = ModelConfig(family="research", layers=1, heads=1, kv_heads=1, head_dim=1,
      ...                      width=1, neurons=1, vocab=2, context=2, norm="none")
      >>> one = jnp.ones((1, 1, 1))
      >>> each, part = jnp.ones((1, 1, 1, 1)), {"kernel": jnp.ones((1, 1, 1, 1))}
      >>> attn = {name: part for name in ("query", "key", "value", "output")}
      >>> z = each[..., None]
      >>> contract(config, lambda p, x: x, {"blocks": {"attn": attn}}, Senders(one, z, each),
      ...          Pulls(z, z, z, each, one), Points(each, each)).tolist()
      [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    """
    length = delta.embed.shape[1]
    block = min(block, length)
    count = -(-length // block)

    def cut(leaf: jax.Array, axis: int) -> jax.Array:
        widths = [(0, count * block - length if i == axis else 0) for i in range(leaf.ndim)]
        leaf = jnp.pad(leaf, widths)
        shape = (*leaf.shape[:axis], count, block, *leaf.shape[axis + 1 :])
        return jnp.moveaxis(leaf.reshape(shape), axis, 0)

    layered = (delta._replace(embed=None), pulls._replace(logits=None), points)
    layered = jax.tree.map(lambda leaf: cut(leaf, 2), layered)
    flat = (cut(delta.embed, 1), cut(pulls.logits, 1))

    def step(total: Any, item: Any) -> tuple[Any, Any]:
        (own, pull, point), (embed, logits) = item
        found = _block(
            config, norm, params, own._replace(embed=embed), pull._replace(logits=logits), point,
            per_position,
        )  # fmt: skip
        return (None, found) if per_position else (total + found, None)

    each = config.heads + 2 * config.kv_heads + 1
    shape = (config.layers * each + 1, 1 + config.layers * (config.heads + 1))
    start = None if per_position else jnp.zeros(shape, jnp.float32)
    total, rows = jax.lax.scan(step, start, (layered, flat))
    return rows.reshape(-1, *shape)[:length] if per_position else total


def _block(config, norm, params, delta, pulls, points, per_position) -> jax.Array:
    """The same for one block of positions."""
    columns = 1 + config.layers * (config.heads + 1)
    spec = "rbtm,sbtm->trs" if per_position else "rbtm,sbtm->rs"

    def products(gradients: jax.Array, changes: jax.Array) -> jax.Array:
        out = einsum(spec, gradients, changes).astype(jnp.float32)
        return jnp.pad(out, [(0, 0)] * (out.ndim - 1) + [(0, columns - out.shape[-1])])

    changes, rows = delta.embed[None], []
    for i in range(config.layers):
        p = tree.index(params["blocks"], i) if config.stacked else params["blocks"][str(i)]
        kernels = {part: _wide(config, p["attn"][part]["kernel"], part) for part in p["attn"]}
        gradients = jnp.concatenate(
            [
                einsum("bthd,mhd->hbtm", getattr(pulls, part)[i], kernels[part])
                for part in ("query", "key", "value")
            ]
        )
        if not config.post_norm:
            gradients = _pull(norm, p.get("attn_norm", {}), points.attn[i], gradients)
        rows.append(products(gradients, changes))
        entering = changes
        heads = einsum("bthd,hdm->hbtm", delta.heads[i], kernels["output"])
        changes = jnp.concatenate([changes, heads])
        if config.post_norm:
            changes = _push(norm, p.get("attn_norm", {}), points.attn[i], changes)
        gradient = pulls.mlp[i][None]
        rows.append(products(gradient, entering if config.parallel else changes))
        changes = jnp.concatenate([changes, delta.mlps[i][None]])
        if config.post_norm:
            changes = _push(norm, p.get("mlp_norm", {}), points.mlp[i], changes)
    rows.append(products(pulls.logits[None], changes))
    return jnp.concatenate(rows, axis=-2)


def _wide(config: ModelConfig, kernel: jax.Array, part: str) -> jax.Array:
    """The kernel of a layer, padded with heads of zeros if the layer has fewer than others."""
    axis, count = (0, config.heads) if part == "output" else (1, config.kv_heads)
    count = config.heads if part == "query" else count
    missing = count - kernel.shape[axis]
    kernel = kernel.astype(config.dtype)
    return jnp.pad(kernel, [(0, missing if i == axis else 0) for i in range(3)])


def _pull(norm, params, x, gradients):
    """Gradients at the output of a norm to gradients at its input `x`, for every receiver.

    One receiver after the other: vmapped, XLA 0.10.2 miscompiles it on a CPU for 4096 rows or more
    (the rows of the sum over the width are mixed up), and takes eight times as long.
    """
    _, pull = jax.vjp(lambda x: norm(params, x), x)
    return jax.lax.map(lambda g: pull(g)[0], gradients)


def _push(norm, params, x, changes):
    """Changes of the input `x` of a norm to changes of its output, for every sender."""
    push = jax.linearize(lambda x: norm(params, x), x)[1]
    return jax.lax.map(push, changes)
