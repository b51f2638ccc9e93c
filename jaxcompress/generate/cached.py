"""The compiled core: the prompt is read once, then a scan draws token after token.

Every step is a forward of one token per row whose `prefix` is a key/value cache of fixed size. The
slots that nothing has been written to are masked, as padding is.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress.generate.truncation import truncated

__all__ = ["Generated", "generated"]


class Generated(NamedTuple):
    """Prompts and what follows them.

    Attributes:
      tokens: (batch, prompt + count) integers, 0 where nothing is.
      attention_mask: (batch, prompt + count), 1 on tokens: what a forward of `tokens` is given.
      log_probs: (batch, count) float32 nats of what was drawn, 0 where nothing was.
    """

    tokens: jax.Array
    attention_mask: jax.Array
    log_probs: jax.Array


@functools.partial(jax.jit, static_argnames=("apply", "count"))
def generated(
    apply: Any,
    params: Any,
    tokens: jax.Array,
    mask: jax.Array,
    keys: Any,
    how: Any,
    stops: jax.Array,
    control: dict[str, Any],
    *,
    count: int,
) -> Generated:
    """What `sampler.sample` returns; arguments are those, checked.

    Args:
      apply: forward.
      params: of the model.
      tokens: (batch, position), 0 on padding.
      mask: (batch, position) integers.
      keys: a key and the number of the first row, or `None`: the most likely token.
      how: temperature, top_k and top_p, or `None`.
      stops: (n,) tokens.
      control: gates, edits and lora.
      count: tokens.

    Example:
      >>> import jaxcompress as jc
      >>> model, row = jc.load("builtin:student"), jnp.ones((1, 2), jnp.int32)
      >>> out = generated(model.apply, model.params, row, row, None, None, row[0], {}, count=3)
      >>> out.tokens.shape
      (1, 5)
    """
    lora = control.get("lora")
    params = params if lora is None else lora.merged(params)
    control = {name: value for name, value in control.items() if name != "lora"}
    run = functools.partial(apply, params, taps=("keys", "values"), **control)
    batch, length = tokens.shape
    last = length - 1 - jnp.argmax(mask[:, ::-1] != 0, axis=1)
    out = run(tokens, attention_mask=mask, answer_position=last)
    room = count - 1  # the last token is drawn and not read
    cache = {name: jnp.pad(leaf, _behind(2, room, leaf.ndim)) for name, leaf in out.taps.items()}
    seen = jnp.pad(mask, _behind(1, room, 2))
    draw = functools.partial(_draw, keys, how, stops)
    first = draw(out.logits, 0, jnp.ones(batch, bool))

    def step(carry: Any, i: jax.Array) -> Any:
        cache, seen, (token, real, _, goes_on) = carry
        now = jnp.concatenate([seen, real[:, None]], axis=1)
        out = run(token[:, None], attention_mask=now, prefix=cache)
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=length + i - 1)
        cache = {name: put(leaf, out.taps[name], axis=2) for name, leaf in cache.items()}
        seen = put(seen, real[:, None], axis=1)
        drawn = draw(out.logits[:, 0], i, goes_on)
        return (cache, seen, drawn), drawn

    _, rest = jax.lax.scan(step, (cache, seen, first), jnp.arange(1, count))
    token, real, log_probs, _ = jax.tree.map(
        lambda one, more: jnp.concatenate([one[:, None], more.T], axis=1), first, rest
    )
    tokens, mask = (jnp.concatenate(parts, axis=1) for parts in ((tokens, token), (mask, real)))
    return Generated(tokens, mask, log_probs)


def _behind(axis: int, room: int, axes: int) -> list[tuple[int, int]]:
    """Padding at the end of one axis."""
    return [(0, room if i == axis else 0) for i in range(axes)]


def _draw(keys: Any, how: Any, stops: jax.Array, logits: jax.Array, i: Any, real: jax.Array) -> Any:
    """Token `i` of every row, whether it is one, its log-probability, whether another follows."""
    if keys is None:
        token = jnp.argmax(logits, axis=-1)
    else:
        logits = logits / how["temperature"]
        logits = truncated(logits, top_k=how["top_k"], top_p=how["top_p"])
        key, row = keys
        rows = jax.vmap(jax.random.fold_in, (None, 0))(key, row + jnp.arange(len(logits)))
        own = jax.vmap(jax.random.fold_in, (0, None))(rows, i)
        token = jax.vmap(jax.random.categorical)(own, logits)
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), token[:, None], axis=1)
    token = jnp.where(real, token, 0).astype(jnp.int32)
    goes_on = real & ~(token[:, None] == stops[None]).any(axis=1)
    return token, real.astype(jnp.int32), jnp.where(real, log_probs[:, 0], 0.0), goes_on
