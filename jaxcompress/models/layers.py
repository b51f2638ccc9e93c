"""The modules, declared in Flax Linen: a block and its parts, the embeddings, the head.

Gates and edits are ordinary arguments, activations ordinary results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcompress.models.config import LayerSize, ModelConfig
from jaxcompress.models.control import LayerControl, Sight, rotate
from jaxcompress.models.products import einsum, wide_einsum

__all__ = [
    "MLP",
    "Affine",
    "Attention",
    "Block",
    "Embed",
    "Norm",
    "Unembed",
    "affine",
    "gated",
    "take",
]

_NEGATIVE = -1e30  # finite, so that a row with nothing to see has no NaN in it
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def gated(x: jax.Array, gate: Any, edit: Any) -> jax.Array:
    """`gate * x + (1 - gate) * edit`; `gate` lacks the trailing axes of `x` that it covers.

    Example:
      >>> gated(jnp.array([[2.0, 4.0]]), jnp.array([[1.0, 0.0]]), jnp.array([[9.0, 8.0]])).tolist()
      [[2.0, 8.0]]
    """
    if gate is None:
        return x
    gate = gate.astype(x.dtype).reshape(gate.shape + (1,) * (x.ndim - gate.ndim))
    return gate * x if edit is None else gate * x + (1 - gate) * edit.astype(x.dtype)


class Norm(nn.Module):
    """LayerNorm or RMSNorm, over the residual channels that are kept."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, keep: Any = None) -> jax.Array:
        """Normalises the last axis; `keep` is the width gate, the weight of each channel."""
        config = self.config
        if config.norm == "none":
            return x
        scale = self.param("scale", nn.initializers.ones, (config.width,))
        y = x.astype(jnp.float32)
        average = self._average(keep)
        if config.norm == "layernorm":
            y = y - average(y)
        y = y * jax.lax.rsqrt(average(y * y) + config.norm_eps)
        y = y * scale.reshape((1,) * (y.ndim - 1) + (-1,))
        if config.norm == "layernorm":
            bias = self.param("bias", nn.initializers.zeros, (config.width,))
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        # A removed channel stays removed, whatever scale and bias make of it.
        return (y if keep is None else y * keep).astype(x.dtype)

    @staticmethod
    def _average(keep: Any) -> Callable[[jax.Array], jax.Array]:
        if keep is None:
            return lambda y: jnp.mean(y, axis=-1, keepdims=True)
        kept = jnp.maximum(keep.sum(axis=-1, keepdims=True), 1e-9)
        return lambda y: (y * keep).sum(axis=-1, keepdims=True) / kept


class Affine(nn.Module):
    """Declares the kernel and bias of an affine map and returns them.

    The kernel keeps its axes apart ((width, head, head_dim), not (width, heads * head_dim)), so
    that a head or a neuron is one index of one array.
    """

    config: ModelConfig
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    use_bias: bool

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        """The kernel `inputs + outputs` and the bias `outputs` (or `None`), in compute type."""
        scale = max(math.prod(self.inputs), 1) ** -0.5
        kernel = self.param("kernel", nn.initializers.normal(scale), self.inputs + self.outputs)
        kernel = kernel.astype(self.config.dtype)
        if not self.use_bias:
            return kernel, None
        bias = self.param("bias", nn.initializers.zeros, self.outputs)
        return kernel, bias.astype(self.config.dtype)


def affine(spec: str, x: jax.Array, weights: tuple[jax.Array, jax.Array | None]) -> jax.Array:
    """`einsum(spec, x, kernel) + bias`.

    Example:
      >>> affine("bm,mf->bf", jnp.ones((1, 2)), (jnp.ones((2, 1)), jnp.ones(1))).tolist()
      [[3.0]]
    """
    kernel, bias = weights
    return _shifted(einsum(spec, x, kernel), bias)


def _shifted(x: jax.Array, bias: jax.Array | None) -> jax.Array:
    """`x + bias` over the trailing axes of `x`."""
    return x if bias is None else x + bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)


class Attention(nn.Module):
    """Multi-head attention with grouped key/value heads; each head behind its gate."""

    config: ModelConfig
    size: LayerSize

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        source: jax.Array,
        sight: Sight,
        control: LayerControl,
        split: bool,
        cache: Mapping[str, jax.Array] | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Attends from `x` (batch, query, width) to `source` (batch, key, width).

        Args:
          x: normalised residual stream at the queries.
          source: normalised residual stream at the keys.
          sight: visibility and rotary angles.
          control: gates and edits of this layer.
          split: form what each head writes, then gate (see `_write_split`).
          cache: keys and values (batch, earlier key, kv_head, head_dim) to attend to as well.

        Returns:
          (batch, query, width) and the taps of `transformer.TAPS` that attention has.
        """
        config, size = self.config, self.size
        width, dim = (config.width,), config.head_dim
        bias = config.qkv_bias
        query = Affine(config, width, (size.heads, dim), bias, name="query")()
        key = Affine(config, width, (size.kv_heads, dim), bias, name="key")()
        value = Affine(config, width, (size.kv_heads, dim), bias, name="value")()
        output = Affine(config, (size.heads, dim), width, config.output_bias, name="output")()
        q = rotate(affine("btm,mhd->bthd", x, query), sight.query_angles)
        k = rotate(affine("bsm,mhd->bshd", source, key), sight.key_angles)
        v = affine("bsm,mhd->bshd", source, value)
        grouped = q.reshape(*q.shape[:2], size.kv_heads, size.heads // max(size.kv_heads, 1), dim)
        # One query needs no keys and values of its own: it looks for one direction per head. XLA
        # then drops those above, unless they are taps.
        if cache is not None:
            z, scores, pattern = self._attend_cached(grouped, k, v, cache, sight)
        elif x.shape[1] == 1 < source.shape[1] and sight.key_angles is None:
            z, scores, pattern = self._attend_folded(grouped, source, key, value, sight)
        else:
            scores = self.scores(wide_einsum("btkgd,bskd->bkgts", grouped, k), sight.visible)
            pattern = self.pattern(scores, sight.visible)
            z = einsum("bkgts,bskd->btkgd", pattern.astype(v.dtype), v)
        z = z.reshape(*z.shape[:2], size.heads, dim)
        by_head = (len(q), size.heads, *scores.shape[-2:])
        taps = {"heads": z, "queries": q, "keys": k, "values": v}
        taps |= {"scores": scores.reshape(by_head), "pattern": pattern.reshape(by_head)}
        write = _write_split if split and control.heads is not None else _write
        return _shifted(write(z, output[0], control), output[1]), taps

    def _attend_cached(self, q, k, v, cache, sight):
        """With earlier and own keys apart, so that a cache is read where it lies."""
        spec, earlier = "btkgd,bskd->bkgts", cache["keys"].shape[1]
        products = [wide_einsum(spec, q, cache["keys"]), wide_einsum(spec, q, k)]
        scores = self.scores(jnp.concatenate(products, axis=-1), sight.visible)
        pattern = self.pattern(scores, sight.visible)
        old, own = jnp.split(pattern.astype(v.dtype), [earlier], axis=-1)
        z = einsum("bkgts,bskd->btkgd", old, cache["values"])
        return z + einsum("bkgts,bskd->btkgd", own, v), scores, pattern

    def _attend_folded(self, q, source, key, value, sight):
        """With the key and value projections applied to the query's side of the sums.

        q (W x + b) = (q W) x + q b, and the mean of W x + b is W times the mean of x, plus b.
        """
        scores = wide_einsum("bkgtm,bsm->bkgts", einsum("btkgd,mkd->bkgtm", q, key[0]), source)
        if key[1] is not None:
            scores = scores + wide_einsum("btkgd,kd->bkgt", q, key[1])[..., None]
        scores = self.scores(scores, sight.visible)
        pattern = self.pattern(scores, sight.visible)
        weights = pattern.astype(source.dtype)
        z = einsum("bkgtm,mkd->btkgd", einsum("bkgts,bsm->bkgtm", weights, source), value[0])
        if value[1] is not None:
            z = z + einsum("bkgt,kd->btkgd", weights.sum(axis=-1), value[1])
        return z, scores, pattern

    def scores(self, products: jax.Array, visible: Any) -> jax.Array:
        """What the softmax is taken of, (b, k, g, query, key) float32, from products q k."""
        scores = products * self.config.head_dim**-0.5
        return scores if visible is None else jnp.where(visible[:, None, None], scores, _NEGATIVE)

    def pattern(self, scores: jax.Array, visible: Any) -> jax.Array:
        """What queries attend to, (b, k, g, query, key), from `scores`."""
        coefficient = self.config.attention_coefficient
        pattern = jax.nn.softmax(scores, axis=-1)
        if coefficient == 1.0:
            return pattern
        rest = 1.0 if visible is None else visible[:, None, None].astype(pattern.dtype)
        return pattern * coefficient + (1.0 - coefficient) * rest


def _write(z: jax.Array, kernel: jax.Array, control: LayerControl) -> jax.Array:
    """Gates the heads, then projects them to the residual stream."""
    return einsum("bthd,hdm->btm", gated(z, control.heads, control.heads_edit), kernel)


def _write_split(z: jax.Array, kernel: jax.Array, control: LayerControl) -> jax.Array:
    """Projects every head by itself, then gates what it writes: the same sum in another order.

    Under `vmap` over gates the projection is done once for all of them, and a gate costs one
    multiplication per head and channel instead of `head_dim`.
    """
    writes = einsum("bthd,hdm->hbtm", z, kernel)
    gate = control.heads.astype(z.dtype)
    out = _mix(gate, writes)
    if control.heads_edit is None:
        return out
    edits = einsum("bthd,hdm->hbtm", control.heads_edit.astype(z.dtype), kernel)
    return out + _mix(1 - gate, edits)


def _mix(gate: jax.Array, writes: jax.Array) -> jax.Array:
    """Sums (head, batch, position, width) over heads with gates (1 or b, 1 or t, head)."""
    if gate.shape[:2] == (1, 1):
        return einsum("h,hbtm->btm", gate[0, 0], writes)
    return (jnp.moveaxis(gate, -1, 0)[..., None] * writes).sum(axis=0)


class MLP(nn.Module):
    """Two- or three-matrix MLP; each neuron behind its gate."""

    config: ModelConfig
    size: LayerSize

    @nn.compact
    def __call__(self, x: jax.Array, control: LayerControl) -> tuple[jax.Array, jax.Array]:
        """Maps (batch, position, width) to the same shape and the tap `neurons`."""
        config = self.config
        width, neurons, bias = (config.width,), (self.size.neurons,), config.mlp_bias
        h = affine("btm,mf->btf", x, Affine(config, width, neurons, bias, name="up")())
        if config.gated_mlp:
            gate = Affine(config, width, neurons, bias, name="gate")()
            h = _ACTIVATIONS[config.activation](affine("btm,mf->btf", x, gate)) * h
        else:
            h = _ACTIVATIONS[config.activation](h)
        down = Affine(config, neurons, width, bias, name="down")()
        return affine("btf,fm->btm", gated(h, control.neurons, control.neurons_edit), down), h


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
            recompute, or its keys and values, or `None`.
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
        cache = prefix if isinstance(prefix, Mapping) else None
        if cache is not None:
            sight = sight._replace(key_angles=sight.query_angles)
        elif prefix is not None:
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
        out, seen = attention(queries, source, sight, control, split, cache)
        taps |= seen | {"attns": out}
        write = gated(gated(out, control.attns, control.attns_edit), keep, None)
        middle = after(norm_1, x + write)
        entering = before(norm_2, x if config.parallel else middle)
        out, neurons = MLP(config, self.size, name="mlp")(entering, control)
        taps |= {"mlps": out, "neurons": neurons}
        write = gated(gated(out, control.mlps, control.mlps_edit), keep, None)
        return after(norm_2, middle + write), taps


class Unembed(nn.Module):
    """From the residual stream to float32 logits."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, table: jax.Array, keep: Any, only: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        """Logits of (batch, position, width), and what they are a product of: the tap `final`.

        `only` (batch, answer) picks tokens per example.
        """
        config = self.config
        if config.final_norm:
            x = Norm(config, name="final_norm")(x, keep)
        if config.head == "masked_lm":
            transform = Affine(config, (config.width,), (config.width,), True, name="transform")()
            x = _ACTIVATIONS[config.activation](affine("btm,mn->btn", x, transform))
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
            return _shifted(wide_einsum("btm,mv->btv", x, kernel), bias), x
        logits = wide_einsum("btm,mba->bta", x, kernel[:, only])
        return (logits if bias is None else logits + bias[only][:, None]), x


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
