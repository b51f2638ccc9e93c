"""The transformer: embeddings, a scanned stack of blocks, and the head; two pure entry points.

`apply` runs it from tokens, `resume` from the residual stream that enters a layer. Flax Linen
declares the parameters of one block; `jax.lax.scan` runs it over parameters stacked on a leading
layer axis, so compile time does not grow with depth. An unevenly shrunk model (`config.sizes`)
holds its layers apart and is run by a loop.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, tree
from jaxcompress.models.config import LayerSize, ModelConfig
from jaxcompress.models.control import LayerControl, Sight
from jaxcompress.models.gates import Edits, Gates, controls
from jaxcompress.models.layers import Block, Embed, Unembed, take
from jaxcompress.models.positions import positions as token_positions
from jaxcompress.models.positions import sight, under_mask
from jaxcompress.types import Adapter, Output

__all__ = ["TAPS", "apply", "init", "resume"]

TAPS = (
    "attns", "final", "heads", "keys", "mlps", "neurons", "pattern", "queries", "resid", "scores",
    "values",
)  # fmt: skip
"""Activations a forward can return, each before its gate: what the component computed.

`heads` (layer, batch, position, head, head_dim), `attns` and `mlps` (layer, batch, position,
width), `neurons` (layer, batch, position, neuron), `pattern` (layer, batch, head, query, key),
`resid` (layer + 1, batch, position, width): the stream that enters each layer, and the last.
`queries` (layer, batch, position, head, head_dim), `keys` and `values` (layer, batch, position,
kv_head, head_dim), queries and keys after rotary positions if there are any; `scores` (layer,
batch, head, query, key): what the softmax is taken of, -1e30 where a query does not see. `final`
(batch, position, width), (batch, 1, width) with answer positions: what the unembedding reads.
"""


def init(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Random parameters.

    Args:
      config: of the model.
      key: typed PRNG key, consumed.

    Returns:
      Nested dict `{"embed", "blocks", "head"}`; leaves of `blocks` are stacked on a leading layer
      axis, or, if `config.sizes` is given, `blocks` is `{"0": ..., "1": ...}`.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> init(config, jax.random.key(0))["blocks"]["attn"]["query"]["kernel"].shape
      (2, 8, 2, 4)
    """
    embed_key, block_key, head_key = jax.random.split(key, 3)
    tokens = jnp.zeros((1, 1), jnp.int32)
    x = jnp.zeros((1, 1, config.width), config.dtype)
    angles = None
    if config.positions == "rope":
        angles = jnp.zeros((1, 1, config.rotated // 2))
    sight = Sight(None, angles, angles)

    def block(size: LayerSize, key: jax.Array) -> Any:
        variables = Block(config, size).init(key, x, None, sight, LayerControl(), None)
        return variables.get("params", {})

    keys = jax.random.split(block_key, config.layers)
    sizes = config.layer_sizes
    if config.stacked:
        blocks = jax.vmap(functools.partial(block, sizes[0]))(keys)
    else:
        blocks = {str(i): block(size, keys[i]) for i, size in enumerate(sizes)}
    embed = Embed(config).init(embed_key, tokens, tokens, None)["params"]
    params = {"embed": embed, "blocks": blocks}
    if config.head != "none":
        head = Unembed(config).init(head_key, x, embed["tokens"], None)
        params["head"] = head.get("params", {})
    return params


def apply(
    config: ModelConfig,
    params: Mapping[str, Any],
    tokens: Any,
    *,
    attention_mask: Any = None,
    gates: Gates | None = None,
    edits: Edits | None = None,
    taps: Sequence[str] = (),
    answer_position: Any = None,
    answer_tokens: Any = None,
    prefix: Any = None,
    lora: Adapter | None = None,
) -> Output:
    """The forward from tokens; pure, safe under jit, vmap and grad.

    Args:
      config: of the model.
      params: as made by `init`.
      tokens: (batch, position) integers, of the vocabulary where `attention_mask` is 1.
      attention_mask: (batch, position), 1 on tokens and 0 on padding, left or right; positions
        count real tokens only, so padding changes nothing. With a prefix, of its positions too.
      gates: what is kept; `None` is everything, at no cost.
      edits: what replaces it; `None` is zeros.
      taps: names from `TAPS` to return.
      answer_position: (batch,); if given, logits are formed there only, and so are the last
        layer's queries and MLP (unless taps are asked for).
      answer_tokens: (batch, answer) integers; if given, logits are formed for these tokens only.
      prefix: as in `resume`; `tokens` are then the later ones only.
      lora: an adapter of `jaxcompress.lora`; the forward is that of the parameters merged with it.

    Returns:
      `Output(logits, taps)`; float32 logits (batch, position, vocab), without the position axis if
      `answer_position` is given and with `answer` for `vocab` if `answer_tokens` is, or `None` if
      the configuration has no language-model head.

    Raises:
      ValueError: for shapes that do not fit, prompts longer than the context, unknown taps.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> params = init(config, jax.random.key(0))
      >>> gates = Gates.off(config, heads=[(0, 1)])
      >>> out = apply(config, params, jnp.zeros((1, 3), int), gates=gates, taps=("resid",))
      >>> out.taps["resid"].shape
      (3, 1, 3, 8)
    """
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise check.fail("tokens", "integers (batch, position)", f"{tokens.dtype} {tokens.shape}")
    batch, length = tokens.shape
    earlier = 0 if prefix is None else _earlier(config, prefix, batch)
    if earlier + length > config.context:
        raise check.fail("tokens", f"at most {config.context} positions", earlier + length)
    if attention_mask is not None:
        check.shape("attention_mask", attention_mask, [(batch, earlier + length)])
        attention_mask = jnp.asarray(attention_mask)
    params = params if lora is None else lora.merged(params)
    _, keep = controls(config, gates, edits, batch, length)
    positions = token_positions(attention_mask, earlier + length)[:, earlier:]
    tokens = under_mask(tokens, None if attention_mask is None else attention_mask[:, earlier:])
    x = Embed(config).apply({"params": params["embed"]}, tokens, positions, keep)
    return resume(
        config,
        params,
        x,
        0,
        attention_mask=attention_mask,
        gates=gates,
        edits=edits,
        taps=taps,
        answer_position=answer_position,
        answer_tokens=answer_tokens,
        prefix=prefix,
        split=False,
    )


def resume(
    config: ModelConfig,
    params: Mapping[str, Any],
    resid: Any,
    layer: Any,
    *,
    attention_mask: Any = None,
    gates: Gates | None = None,
    edits: Edits | None = None,
    taps: Sequence[str] = (),
    answer_position: Any = None,
    answer_tokens: Any = None,
    prefix: Any = None,
    split: bool = True,
    lora: Adapter | None = None,
) -> Output:
    """The forward from the residual stream that enters `layer`; arguments as in `apply`.

    Args:
      config: of the model.
      params: as made by `init`.
      resid: (batch, position, width), as in the tap `resid`.
      layer: the first layer to run, in [0, layers]. It may be traced: one compilation then serves
        all layers (no taps, no reverse-mode gradient, stacked layers only).
      attention_mask: (batch, all positions), those of the prefix included.
      gates: of all layers; those before `layer` are ignored.
      edits: likewise.
      taps: of the layers that are run, if any are; `layer` must not be traced.
      answer_position: counts from the start of the prompt, prefix included.
      answer_tokens: as in `apply`.
      prefix: (layer + 1, batch, earlier positions, width), the tap `resid` of a run whose first
        positions are the same; `resid` then holds the later positions only. Causal models only: a
        change at a position changes nothing before it. Or `{"keys", "values"}`, both taps of such
        a run (layer, batch, earlier positions, kv_head, head_dim): a key/value cache, of which
        nothing is computed again. Slots that `attention_mask` hides may hold any finite numbers.
      split: gate what each head of the first layer writes, rather than the head. Under `vmap` over
        gates that layer's attention and output projection are then computed once for all gates.
      lora: as in `apply`.

    Returns:
      As `apply`.

    Raises:
      ValueError: as `apply`.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> params = init(config, jax.random.key(0))
      >>> whole = apply(config, params, jnp.zeros((1, 3), int), taps=("resid",))
      >>> late = resume(config, params, whole.taps["resid"][1], 1)
      >>> bool(jnp.allclose(late.logits, whole.logits, atol=1e-6))
      True
    """
    params = params if lora is None else lora.merged(params)
    stack = _Stack(config, params, resid, attention_mask, gates, edits, taps, prefix, split)
    rows = None if answer_position is None else jnp.asarray(answer_position) - stack.earlier
    if isinstance(layer, int | np.integer):
        x, seen = stack.static(check.integer("layer", layer, 0, config.layers), rows)
    else:
        x, seen = stack.traced(layer, rows), {}
    if rows is not None and x.shape[1] != 1:
        x = take(x, rows)
    if config.head == "none":
        return Output(None, seen)
    keep = stack.keep if rows is None or stack.keep is None else take(stack.keep, rows)
    table = params["embed"]["tokens"]
    only = None if answer_tokens is None else jnp.asarray(answer_tokens)
    read: Any = Unembed(config).apply({"params": params["head"]}, x, table, keep, only)
    logits, final = read
    seen |= {"final": final} if "final" in taps else {}
    return Output(logits if rows is None else logits[:, 0], seen)


class _Stack:
    """The blocks of one forward with everything that they share; lives only while tracing."""

    def __init__(self, config, params, resid, attention_mask, gates, edits, taps, prefix, split):
        self.x = jnp.asarray(resid).astype(config.dtype)
        if self.x.ndim != 3 or self.x.shape[2] != config.width:
            expected = f"(batch, position, {config.width})"
            raise check.fail("resid", expected, self.x.shape)
        for tap in taps:
            check.known("taps", tap, TAPS)
        if "final" in taps and config.head == "none":
            raise check.fail("taps", "no 'final' of a model without a head", taps)
        batch, length = self.x.shape[:2]
        self.config, self.blocks, self.prefix = config, params["blocks"], prefix
        self.taps = tuple(tap for tap in taps if tap != "final")  # those that blocks have
        self.earlier = 0
        if prefix is not None:
            if not config.causal:
                raise check.fail("prefix", "a causal model", "one that sees both ways")
            self.earlier = _earlier(config, prefix, batch)
        self.control, self.keep = controls(config, gates, edits, batch, length)
        if prefix is not None and self.keep is not None and self.keep.shape[1] != 1:
            raise check.fail(
                "gates.width", "the same at all positions with a prefix", "per position"
            )
        self.split = split and self.control.heads is not None
        self.sight = sight(config, attention_mask, length, self.earlier)

    def static(self, layer: int, rows: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Layers `layer` to the last, known while tracing."""
        last = self.config.layers - 1
        x, seen, start = self.x, [], layer
        stop = last if rows is not None and not self.taps else last + 1
        if self.split and start < stop:
            x, tap = self._block(x, start, split=True)
            seen, start = [jax.tree.map(lambda leaf: leaf[None], tap)], start + 1
        if start < stop:
            x, tap = self._run(x, start, stop)
            seen.append(tap)
        if stop == last and layer <= last:
            x, _ = self._block(x, last, rows=rows, split=self.split and layer == last)
        if not self.taps:
            return x, {}
        if not seen and self.taps != ("resid",):
            raise check.fail("taps", "'resid' or 'final', as no layer is run", self.taps)
        taps = jax.tree.map(lambda *parts: jnp.concatenate(parts), *seen) if seen else {}
        if "resid" in self.taps:
            ends = [taps["resid"]] if seen else []
            taps["resid"] = jnp.concatenate([*ends, x[None]])
        return x, taps

    def traced(self, layer: jax.Array, rows: Any) -> jax.Array:
        """Layers `layer` to the last; the first is unrolled, so that it can be shared by gates."""
        if not self.config.stacked or self.taps:
            what = "taps" if self.taps else "layers of different sizes"
            raise check.fail("layer", f"an int, as there are {what}", "a traced value")
        last = self.config.layers - 1

        def run(x: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(layer + self.split, last, lambda i, x: self._block(x, i)[0], x)

        def finish(x: jax.Array) -> jax.Array:
            return self._block(x, last, rows=rows)[0]

        def pick(x: jax.Array) -> jax.Array:
            return x if rows is None else take(x, rows)

        if not self.split:
            return jax.lax.cond(layer <= last, lambda x: finish(run(x)), pick, self.x)
        x, _ = self._block(self.x, jnp.minimum(layer, last), split=True)
        x = jnp.where(layer <= last, x, self.x)
        return jax.lax.cond(layer < last, lambda x: finish(run(x)), pick, x)

    def _run(self, x: jax.Array, start: int, stop: int) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.config.stacked and self.config.scan:
            part = jax.tree.map(lambda leaf: leaf[start:stop], (self.blocks, self.control))
            prefix = jax.tree.map(lambda leaf: leaf[start:stop], self.prefix)

            def body(x: jax.Array, layer: Any) -> Any:
                (params, control), prefix = layer
                return self._call(x, params, control, prefix, self.config.layer_sizes[0])

            return jax.lax.scan(body, x, (part, prefix))
        seen = []
        for i in range(start, stop):
            x, tap = self._block(x, i)
            seen.append(tap)
        return x, tree.stack(seen)

    def _block(self, x: jax.Array, i: Any, rows: Any = None, split: bool = False) -> Any:
        control = tree.index(self.control, i)
        prefix = tree.index(self.prefix, i)
        if self.config.stacked:
            size, params = self.config.layer_sizes[0], tree.index(self.blocks, i)
        else:
            size, params = self.config.layer_sizes[i], self.blocks[str(i)]
            control = _narrow(control, size)
            if isinstance(prefix, Mapping):
                prefix = {name: leaf[:, :, : size.kv_heads] for name, leaf in prefix.items()}
        return self._call(x, params, control, prefix, size, rows, split)

    def _call(self, x, params, control, prefix, size, rows=None, split=False):
        def block(params: Any, x: jax.Array, prefix: Any) -> Any:
            told = (self.sight, control, self.keep, rows, split)
            return Block(self.config, size).apply({"params": params}, x, prefix, *told)

        x, taps = (jax.checkpoint(block) if self.config.remat else block)(params, x, prefix)
        return x, {name: _widen(name, taps[name], self.config) for name in self.taps}


def _earlier(config: ModelConfig, prefix: Any, batch: int) -> int:
    """Positions of a prefix, whose shapes are checked."""
    cached = isinstance(prefix, Mapping)
    if cached and set(prefix) != {"keys", "values"}:
        raise check.fail("prefix", "'resid', or 'keys' and 'values'", sorted(prefix))
    earlier = np.shape(prefix["keys"] if cached else prefix)[2:3]
    if not cached:
        whole = (config.layers + 1, batch, *earlier, config.width)
        check.shape("prefix", prefix, [whole], "(layer + 1, batch, earlier position, width)")
    else:
        whole = (config.layers, batch, *earlier, config.kv_heads, config.head_dim)
        for name, leaf in prefix.items():
            axes = "(layer, batch, earlier position, kv_head, head_dim)"
            check.shape(f"prefix[{name!r}]", leaf, [whole], axes)
    return earlier[0]


def _narrow(control: LayerControl, size: LayerSize) -> LayerControl:
    """Gates and edits of the components that an uneven layer has."""
    heads, neurons = size.heads, size.neurons
    cuts = {
        "heads": lambda x: x[..., :heads],
        "neurons": lambda x: x[..., :neurons],
        "heads_edit": lambda x: x[..., :heads, :],
        "neurons_edit": lambda x: x[..., :neurons],
    }
    fields = control._asdict()
    return LayerControl(
        **{k: v if v is None or k not in cuts else cuts[k](v) for k, v in fields.items()}
    )


def _widen(name: str, tap: jax.Array, config: ModelConfig) -> jax.Array:
    """Pads a tap of an uneven layer with zeros, so that layers stack."""
    axes = {
        "heads": (2, config.heads),
        "queries": (2, config.heads),
        "keys": (2, config.kv_heads),
        "values": (2, config.kv_heads),
        "pattern": (1, config.heads),
        "scores": (1, config.heads),
        "neurons": (2, config.neurons),
    }
    if config.stacked or name not in axes:
        return tap
    axis, size = axes[name]
    padding = [(0, size - n if i == axis else 0) for i, n in enumerate(tap.shape)]
    return jnp.pad(tap, padding)
