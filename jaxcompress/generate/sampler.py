"""What follows prompts: arguments at the door, then one compiled program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcompress import check
from jaxcompress.generate.cached import Generated, generated
from jaxcompress.types import Adapter

__all__ = ["sample"]

_COLDEST = 1e-30  # by which float32 logits can be divided


def sample(
    model: Any,
    tokens: Any,
    *,
    count: int,
    attention_mask: Any = None,
    key: Any = None,
    temperature: Any = 0.0,
    top_k: int | None = None,
    top_p: Any = None,
    stop: int | Sequence[int] = (),
    first_row: Any = 0,
    gates: Any = None,
    edits: Any = None,
    lora: Adapter | None = None,
) -> Generated:
    """Draws the tokens that follow prompts; pure, safe under jit and vmap.

    Each row draws with a key of its own, made of `key` and its number, so that neither the other
    rows nor padding change what it says. The program is compiled once for a shape of prompts and a
    `count`; other temperatures, cuts, stop tokens and parameters run the same one.

    Args:
      model: causal, with a language-model head; its parameters may be traced.
      tokens: (batch, position) integers.
      count: how many to draw for each row.
      attention_mask: (batch, position), 1 on tokens and 0 on padding, left or right.
      key: typed PRNG key, consumed; not needed at temperature 0.
      temperature: logits are divided by it; 0 takes the most likely token. If traced, above 0.
      top_k: draw among so many most likely tokens; at temperature 0 this and `top_p` are nothing.
      top_p: draw among the fewest tokens with this share of the probability, in (0, 1].
      stop: tokens after which a row ends. They are part of it; what follows is masked.
      first_row: number of the first row, where these are a part of more.
      gates: as the forward takes them, the same at all positions.
      edits: likewise.
      lora: an adapter.

    Returns:
      `Generated`. Its `log_probs` are those of the distribution that was drawn from, after
      temperature and cuts; at temperature 0 those of the model, softmax(logits).

    Raises:
      ValueError: for models that do not continue text, prompts without a token or with no room for
        `count` more in the context, and settings out of range.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=8)
      >>> model = create(config, key=jax.random.key(0))
      >>> prompts, key = jnp.ones((2, 3), int), jax.random.key(1)
      >>> out = sample(model, prompts, count=4, key=key, temperature=1.0, top_p=0.9)
      >>> out.tokens.shape, out.log_probs.shape
      ((2, 7), (2, 4))
    """
    tokens, mask = _prompts(model.config, tokens, attention_mask, count)
    greedy = _greedy(temperature, key)
    if top_k is not None:
        check.integer("top_k", top_k, 1)
    if _known(top_p) and not 0 < top_p <= 1:
        raise check.fail("top_p", "a number in (0, 1]", top_p)
    stops = [stop] if isinstance(stop, int | np.integer) else list(stop)
    for token in stops:
        check.integer("stop", token, 0, model.config.vocab - 1)
    heat = float(temperature) if _known(temperature) else temperature  # an int compiles anew
    how = {"temperature": heat, "top_k": top_k, "top_p": top_p}
    control = {"gates": gates, "edits": edits, "lora": lora}
    return generated(
        model.apply, model.params, tokens, mask,
        None if greedy else (key, first_row),
        None if greedy else how,
        jnp.array(stops, jnp.int32), control, count=count,
    )  # fmt: skip


def _known(value: Any) -> bool:
    return value is not None and not isinstance(value, Tracer)


def _prompts(
    config: Any, tokens: Any, attention_mask: Any, count: int
) -> tuple[jax.Array, jax.Array]:
    """Tokens, 0 on padding, and a mask that is there."""
    if not config.causal or config.head == "none" or config.outputs not in (0, config.vocab):
        expected = "a causal language model, whose outputs are its vocabulary"
        got = f"causal={config.causal}, head={config.head!r}, outputs={config.outputs}"
        raise check.fail("model", expected, got)
    check.integer("count", count, 1)
    tokens = tokens if isinstance(tokens, jax.Array) else np.asarray(tokens)
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise check.fail("tokens", "integers (batch, position)", f"{tokens.dtype} {tokens.shape}")
    batch, length = tokens.shape
    if length + count > config.context:
        expected = f"at most {config.context} positions, prompt and count together"
        raise check.fail("tokens", expected, f"{length} + {count}")
    mask = np.ones((batch, length), np.int32) if attention_mask is None else attention_mask
    check.shape("attention_mask", mask, [(batch, length)])
    if _known(mask):
        _refuse_values(config.vocab, None if isinstance(tokens, Tracer) else tokens, mask)
    mask = (jnp.asarray(mask) != 0).astype(jnp.int32)
    return jnp.where(mask != 0, jnp.asarray(tokens, jnp.int32), 0), mask


def _refuse_values(vocab: int, tokens: Any, mask: Any) -> None:
    """Raises for rows without a token, and for numbers that are no tokens, if they are known."""
    real = np.asarray(mask)
    if not np.isin(real, (0, 1)).all():
        raise check.fail("attention_mask", "1 on tokens and 0 on padding", np.unique(real))
    empty = np.flatnonzero(~(real != 0).any(axis=1))
    if empty.size:
        raise check.fail("attention_mask", "a token in every row", f"none in {empty.tolist()}")
    if tokens is not None:
        values = np.asarray(tokens)[real != 0]
        if values.size and not 0 <= values.min() <= values.max() < vocab:
            got = f"{values.min()} to {values.max()}"
            raise check.fail("tokens", f"integers in [0, {vocab})", got)


def _greedy(temperature: Any, key: Any) -> bool:
    if _known(temperature):
        if temperature == 0:
            return True
        if not _COLDEST <= temperature < math.inf:
            raise check.fail("temperature", f"0, or a number >= {_COLDEST}", temperature)
    check.key("key", key)
    return False
