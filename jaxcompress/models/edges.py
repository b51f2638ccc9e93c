"""The forward as a graph: what every part reads, from every part before it, one edge at a time.

Senders are the embedding, every head (after its share of the output projection) and every MLP
(bias included). Receivers are the query, key and value input of every head (keys and values once
per key/value head), every MLP input, and the logits. The output bias of attention belongs to no
sender: it is the same in all runs and always on.

Pre-norm: what a receiver reads is the sum of the senders before it. Post-norm (BERT): every
receiver has a copy of the stream of its own, from its own choice of senders, through the same
norms; with all edges on, all copies are the stream. Parallel (GPT-NeoX): an MLP reads what its
layer's queries read.

Order of senders: embedding, then per layer its heads and its MLP. Order of receivers: per layer the
queries, keys, values and the MLP, at last the logits. Layers of different sizes are padded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.models.config import LayerSize, ModelConfig
from jaxcompress.models.contraction import Points, Pulls, contract
from jaxcompress.models.control import LayerControl, Sight, rotate
from jaxcompress.models.copies import Copies
from jaxcompress.models.layers import (
    MLP,
    Attention,
    Embed,
    Norm,
    Unembed,
    affine,
    take,
)
from jaxcompress.models.positions import positions as token_positions
from jaxcompress.models.positions import sight, under_mask
from jaxcompress.models.products import einsum, wide_einsum
from jaxcompress.types import Output, Senders

__all__ = ["Edges"]


@dataclasses.dataclass(frozen=True)
class Edges:
    """The functions of one configuration that see edges; pure, safe under jit, vmap and grad.

    Attributes:
      config: of the model.
      apply: its plain forward, `(params, tokens, ...) -> Output`.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> from jaxcompress.models import create
      >>> model = create(config, key=jax.random.key(0))
      >>> clean, other = jnp.zeros((2, 1, 3), int).at[1].set(1)
      >>> edges, params = model.edges, model.params
      >>> base, _ = edges.record(params, other)
      >>> off = edges.run(params, clean, jnp.zeros(edges.shape), base)
      >>> expected = model.apply(params, other).logits
      >>> bool(jnp.allclose(off, expected, atol=1e-5))
      True
    """

    config: ModelConfig
    apply: Callable[..., Output]

    @property
    def shape(self) -> tuple[int, int]:
        """(receivers, senders)."""
        config = self.config
        each = config.heads + 2 * config.kv_heads + 1
        return config.layers * each + 1, 1 + config.layers * (config.heads + 1)

    def record(
        self,
        params: Any,
        tokens: Any,
        *,
        attention_mask: Any = None,
        answer_position: Any = None,
        answer_tokens: Any = None,
    ) -> tuple[Senders, jax.Array]:
        """What every sender writes in a plain run, and its logits; arguments as in `run`."""
        out = self.apply(
            params,
            tokens,
            attention_mask=attention_mask,
            taps=("heads", "mlps", "resid"),
            answer_position=answer_position,
            answer_tokens=answer_tokens,
        )
        logits: Any = out.logits
        if self.config.head == "none":
            logits = _logits(
                self.config, params, out.taps["resid"][-1], answer_position, answer_tokens
            )
        return Senders(out.taps["resid"][0], out.taps["heads"], out.taps["mlps"]), logits

    def run(
        self,
        params: Any,
        tokens: Any,
        mask: Any,
        base: Senders,
        *,
        attention_mask: Any = None,
        answer_position: Any = None,
        answer_tokens: Any = None,
    ) -> jax.Array:
        """The forward in which every edge carries this run's activation or another's.

        A receiver reads `mask * this + (1 - mask) * base` of every sender, where "this" is what
        the sender writes in the run as it is, with all that the mask did to it.

        Args:
          params: of the model.
          tokens: (batch, position).
          mask: (receiver, sender), or (position, receiver, sender); edges that cannot be are not
            looked at.
          base: from `record`, of another run; the batch axis may have size 1 (means).
          attention_mask: (batch, position).
          answer_position: (batch,), as in `transformer.apply`.
          answer_tokens: (batch, answer), likewise.

        Returns:
          Logits, as `transformer.apply` returns them; the last stream of a model without a head.
        """
        tokens = jnp.asarray(tokens)
        mask = jnp.asarray(mask)
        lead = (tokens.shape[1],)
        check.shape("mask", mask, [self.shape, lead + self.shape])
        mask = mask if mask.ndim == 3 else mask[None]
        seen = sight(self.config, attention_mask, tokens.shape[1], 0)
        copies = Copies(_norm_of(self.config), mask)
        embed = _embed(self.config, params, tokens, attention_mask)
        start = jnp.broadcast_to(base.embed, embed.shape)
        copies.write(start, (embed - start)[None])
        layered = base._replace(embed=None)
        for i, size in enumerate(self.config.layer_sizes):
            block = _block(self.config, params, i)
            self._layer(copies, block, size, tree.index(layered, i), seen, i)
        x = copies.read(mask.shape[1] - 1, 1)[0]
        return _logits(self.config, params, x, answer_position, answer_tokens)

    def _layer(self, copies, p, size, base, seen, i) -> None:
        config = self.config
        each = config.heads + 2 * config.kv_heads + 1
        first, before = i * each, not config.post_norm
        counts = (size.heads, size.kv_heads, size.kv_heads)
        starts = (first, first + config.heads, first + config.heads + config.kv_heads)
        early = copies.read(first + each - 1, 1) if config.parallel else None
        if size.heads:
            reads = []
            for part, start, count in zip(("query", "key", "value"), starts, counts, strict=True):
                x = copies.read(start, count)
                x = _norm(config, p, "attn_norm", x) if before else x
                reads.append(_project(x, *_weights(config, p["attn"], part)))
            z = _attend(config, size, reads[0], reads[1], reads[2], seen)
            old = base.heads[..., : size.heads, :]
            kernel, bias = _weights(config, p["attn"], "output")
            delta = einsum("bthd,hdm->hbtm", z - old, kernel)
            written = einsum("bthd,hdm->btm", jnp.broadcast_to(old, z.shape), kernel)
        else:
            _, bias = _weights(config, p["attn"], "output")
            like = copies.like
            delta, written = jnp.zeros((0, *like.shape), like.dtype), jnp.zeros_like(like)
        if bias is not None:
            written = written + bias.reshape(1, 1, -1)
        copies.write(written, delta, config.heads)
        if config.post_norm:
            copies.norm(p["attn_norm"])
        x = copies.read(first + each - 1, 1) if early is None else early
        x = _norm(config, p, "mlp_norm", x) if before else x
        out, _ = MLP(config, size).apply({"params": p["mlp"]}, x[0], LayerControl())
        old = jnp.broadcast_to(base.mlps, out.shape)
        copies.write(old, (out - old)[None])
        if config.post_norm:
            copies.norm(p["mlp_norm"])

    def scores(
        self,
        params: Any,
        tokens: Any,
        delta: Senders,
        objective: Callable[[jax.Array], jax.Array],
        *,
        shift: Senders | None = None,
        attention_mask: Any = None,
        answer_position: Any = None,
        answer_tokens: Any = None,
        per_position: bool = False,
        block: int = 8,
    ) -> jax.Array:
        """Every edge's change times the gradient at its receiver: first order in all edges at once.

        One forward and one backward with respect to activations only, never to parameters; then
        the products, for `block` positions and one layer at a time, so that no array holds all
        senders or all receivers of all positions.

        Args:
          params: of the model.
          tokens: (batch, position).
          delta: what each sender would write instead, minus what it writes.
          objective: from logits to one number, a sum over the batch.
          shift: added to what senders write in this run; the gradient is taken there.
          attention_mask: (batch, position).
          answer_position: (batch,), as in `transformer.apply`.
          answer_tokens: (batch, answer), likewise.
          per_position: keep the position axis.
          block: positions whose products are formed together.

        Returns:
          (receiver, sender) float32, or (position, receiver, sender): the change of the objective,
          summed over the batch. Edges that cannot be are zero.
        """
        config = self.config
        tokens = jnp.asarray(tokens)
        seen = sight(config, attention_mask, tokens.shape[1], 0)
        x = _embed(config, params, tokens, attention_mask)
        shift = shift or Senders(None, None, None)
        x = x if shift.embed is None else x + shift.embed

        def loss(pulls: Pulls) -> tuple[jax.Array, Points]:
            last, points = _plain(config, params, x, pulls, shift, seen)
            logits = _logits(config, params, last + pulls.logits, answer_position, answer_tokens)
            return objective(logits), points

        pulls, points = jax.grad(loss, has_aux=True)(_zeros(config, x))
        return contract(config, _norm_of(config), params, delta, pulls, points, per_position, block)


def _norm_of(config: ModelConfig) -> Callable[[Any, jax.Array], jax.Array]:
    return lambda params, x: Norm(config).apply({"params": params}, x)  # pyright: ignore[reportReturnType]


def _plain(config, params, x, pulls, shift, seen) -> tuple[jax.Array, Points]:
    """The stream after the last layer, with something added at every receiver and sender."""
    given = (pulls._replace(logits=None), shift._replace(embed=None))

    def body(size: LayerSize, p: Any, x: jax.Array, item: Any) -> tuple[jax.Array, Points]:
        pull, more = item
        source = x if config.post_norm else _norm(config, p, "attn_norm", x)
        q, k, v = (
            affine("btm,mhd->bthd", source, _weights(config, p["attn"], part)) + add[:, :, :count]
            for part, add, count in (
                ("query", pull.query, size.heads),
                ("key", pull.key, size.kv_heads),
                ("value", pull.value, size.kv_heads),
            )
        )
        z = _attend(config, size, q, k, v, seen) if size.heads else q
        z = z if more.heads is None else z + more.heads[:, :, : size.heads]
        kernel, bias = _weights(config, p["attn"], "output")
        y = x + einsum("bthd,hdm->btm", z, kernel)
        y = y if bias is None else y + bias.reshape(1, 1, -1)
        first = y if config.post_norm else x
        y = _norm(config, p, "attn_norm", y) if config.post_norm else y
        second = x if config.parallel else y
        read = second + pull.mlp
        read = read if config.post_norm else _norm(config, p, "mlp_norm", read)
        out, _ = MLP(config, size).apply({"params": p["mlp"]}, read, LayerControl())
        x = y + (out if more.mlps is None else out + more.mlps)
        points = Points(first, x if config.post_norm else second)
        return (_norm(config, p, "mlp_norm", x) if config.post_norm else x), points

    if config.stacked:
        return jax.lax.scan(
            lambda x, item: body(config.layer_sizes[0], item[0], x, item[1]),
            x,
            (params["blocks"], given),
        )
    seen_points = []
    for i, size in enumerate(config.layer_sizes):
        x, points = body(size, params["blocks"][str(i)], x, tree.index(given, i))
        seen_points.append(points)
    return x, tree.stack(seen_points)


def _zeros(config: ModelConfig, x: jax.Array) -> Pulls:
    lead = (config.layers, *x.shape[:2])
    heads = jnp.zeros((*lead, config.heads, config.head_dim), x.dtype)
    shared = jnp.zeros((*lead, config.kv_heads, config.head_dim), x.dtype)
    return Pulls(
        heads, shared, shared, jnp.zeros((*lead, config.width), x.dtype), jnp.zeros_like(x)
    )


def _block(config: ModelConfig, params: Any, i: int) -> Any:
    blocks = params["blocks"]
    return tree.index(blocks, i) if config.stacked else blocks[str(i)]


def _norm(config: ModelConfig, p: Any, name: str, x: jax.Array) -> Any:
    return Norm(config).apply({"params": p.get(name, {})}, x)


def _weights(config: ModelConfig, p: Any, part: str) -> tuple[jax.Array, jax.Array | None]:
    bias = p[part].get("bias")
    kernel = p[part]["kernel"].astype(config.dtype)
    return kernel, None if bias is None else bias.astype(config.dtype)


def _embed(config: ModelConfig, params: Any, tokens: jax.Array, attention_mask: Any) -> Any:
    positions = token_positions(attention_mask, tokens.shape[1])
    tokens = under_mask(tokens, attention_mask)
    return Embed(config).apply({"params": params["embed"]}, tokens, positions, None)


def _project(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """(head, b, t, width) to (b, t, head, head_dim); in one step XLA would transpose all of `x`."""
    y = jnp.moveaxis(einsum("hbtm,mhd->hbtd", x, kernel), 0, 2)
    return y if bias is None else y + bias[None, None]


def _attend(config: ModelConfig, size: LayerSize, q: Any, k: Any, v: Any, seen: Sight) -> jax.Array:
    """(batch, query, head, head_dim) values mixed by attention, from projections."""
    q, k = rotate(q, seen.query_angles), rotate(k, seen.key_angles)
    q = q.reshape(*q.shape[:2], size.kv_heads, -1, config.head_dim)
    attention = Attention(config, size)
    scores = attention.scores(wide_einsum("btkgd,bskd->bkgts", q, k), seen.visible)
    pattern = attention.pattern(scores, seen.visible).astype(v.dtype)
    z = einsum("bkgts,bskd->btkgd", pattern, v)
    return z.reshape(*z.shape[:2], size.heads, config.head_dim)


def _logits(config, params, x, answer_position, answer_tokens) -> jax.Array:
    if answer_position is not None:
        x = take(x, jnp.asarray(answer_position))
    if config.head == "none":
        return x if answer_position is None else x[:, 0]
    only = None if answer_tokens is None else jnp.asarray(answer_tokens)
    table = params["embed"]["tokens"]
    logits, _ = Unembed(config).apply({"params": params["head"]}, x, table, None, only)
    return logits if answer_position is None else logits[:, 0]
