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

from jaxcompress import check
from jaxcompress.models.blocks import Block, Embed, Unembed, take
from jaxcompress.models.config import LayerSize, ModelConfig
from jaxcompress.models.control import LayerControl, Sight
from jaxcompress.models.gates import Edits, Gates, controls
from jaxcompress.models.positions import positions as token_positions
from jaxcompress.models.stack import TAPS, Stack
from jaxcompress.types import Output

__all__ = ["TAPS", "apply", "init", "resume"]


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
        angles = jnp.zeros((1, 1, config.head_dim // 2))
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
) -> Output:
    """The forward from tokens; pure, safe under jit, vmap and grad.

    Args:
      config: of the model.
      params: as made by `init`.
      tokens: (batch, position) integers.
      attention_mask: (batch, position), 1 on tokens and 0 on padding, left or right; positions
        count real tokens only, so padding changes nothing.
      gates: what is kept; `None` is everything, at no cost.
      edits: what replaces it; `None` is zeros.
      taps: names from `TAPS` to return.
      answer_position: (batch,); if given, logits are formed there only, and so are the last
        layer's queries and MLP (unless taps are asked for).
      answer_tokens: (batch, answer) integers; if given, logits are formed for these tokens only.

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
    if tokens.shape[1] > config.context:
        raise check.fail("tokens", f"at most {config.context} positions", tokens.shape[1])
    batch, length = tokens.shape
    if attention_mask is not None:
        check.shape("attention_mask", attention_mask, [(batch, length)])
    _, keep = controls(config, gates, edits, batch, length)
    positions = token_positions(attention_mask, length)
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
      taps: of the layers that are run; `layer` must not be traced.
      answer_position: counts from the start of the prompt, prefix included.
      answer_tokens: as in `apply`.
      prefix: (layer + 1, batch, earlier positions, width), the tap `resid` of a run whose first
        positions are the same; `resid` then holds the later positions only. Causal models only: a
        change at a position changes nothing before it.
      split: gate what each head of the first layer writes, rather than the head. Under `vmap` over
        gates that layer's attention and output projection are then computed once for all gates.

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
    stack = Stack(config, params, resid, attention_mask, gates, edits, taps, prefix, split)
    rows = None if answer_position is None else jnp.asarray(answer_position) - stack.earlier
    if isinstance(layer, int):
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
    logits = Unembed(config).apply({"params": params["head"]}, x, table, keep, only)
    return Output(logits if rows is None else logits[:, 0], seen)
