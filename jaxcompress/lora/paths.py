"""Where the effect of an adapter runs: which heads and MLPs carry it, and how heads change."""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.lora.adapters import Adapter, merge
from jaxcompress.lora.answers import forward
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.gates import Edits, Gates
from jaxcompress.tasks.metrics import Metric, get_metric
from jaxcompress.tasks.prompts import Prompts

__all__ = ["Carriers", "HeadChanges", "carriers", "head_changes"]


class Carriers(NamedTuple):
    """How much of an adapter's effect passes through each component, in units of the metric.

    Attributes:
      through: (layer, head, batch) or (layer, batch): metric of the edited model with the output
        of this component as in the base, minus that of the edited model. All of the effect is lost
        where this is minus it.
      alone: metric of the base with the output of this component as in the edited model, minus
        that of the base.
      effect: (batch,) metric of the edited model minus that of the base.
    """

    through: jax.Array
    alone: jax.Array
    effect: jax.Array


def carriers(
    model: Any,
    prompts: Prompts,
    adapter: Adapter,
    *,
    over: str = "heads",
    metric: str | Metric = "logit_difference",
    chunk: int = 8,
) -> Carriers:
    """Patches the output of each component between the base and the edited model.

    A component before the edits, or not touched by them, has an effect of exactly zero. A head is
    patched before its output projection, so an edit of that projection is not undone with it; the
    output of a whole attention (`attns`) has it.

    Args:
      model: the base: `params`, and an `apply` with gates, edits, taps and `lora`.
      prompts: with right and wrong answers.
      adapter: of any variant; a part of one (`directions.transplant`) shows the path of that part.
      over: "heads", "attns", "mlps" or "neurons".
      metric: name or function, see `tasks.metrics`.
      chunk: forwards at once.

    Raises:
      ValueError: for an unknown kind or metric.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> adapter = init(model.params, ["*/up/kernel"], rank=2, alpha=2, key=jax.random.key(1))
      >>> row = jnp.ones((3, 5), int)
      >>> prompts = Prompts(row, 2 * row, row, 4 * row[:, 0], row[:, :1], 2 * row[:, :1])
      >>> carriers(model, prompts, adapter).through.shape
      (2, 2, 3)

    Reference: activation patching between two models on one prompt, as cross-model activation
    patching in Prakash et al. 2024 (arXiv 2402.14811), section 5.
    """
    kind = check.known("over", over, ("attns", "heads", "mlps", "neurons"))
    config: ModelConfig = model.config
    shape = (config.layers,)
    if kind in ("heads", "neurons"):
        shape = (config.layers, getattr(config, kind))
    edited = merge(model.params, adapter)
    given = jax.tree.map(jnp.asarray, prompts)
    found = _carriers(
        model.params, edited, given,
        apply=model.apply, metric=get_metric(metric), kind=kind, shape=shape, chunk=chunk,
    )  # fmt: skip
    return Carriers(*found)


@functools.partial(jax.jit, static_argnames=("apply", "metric", "kind", "shape", "chunk"))
def _carriers(base, edited, prompts, *, apply, metric, kind, shape, chunk):
    """through, alone, effect."""
    plain = forward(apply, base, prompts, None)
    clean = metric(plain, prompts, plain)
    whole = metric(forward(apply, edited, prompts, None), prompts, plain)

    def tap(params: Any) -> Edits:
        mask = prompts.attention_mask
        taps = apply(params, prompts.tokens, attention_mask=mask, taps=(kind,)).taps
        return Edits(**{kind: taps[kind]})

    old, new = tap(base), tap(edited)

    def one(where: jax.Array) -> tuple[jax.Array, jax.Array]:
        gate = (jnp.arange(places) != where).astype(jnp.float32).reshape(shape)
        gates = Gates(**{kind: gate})
        through = forward(apply, edited, prompts, None, gates=gates, edits=old)
        alone = forward(apply, base, prompts, None, gates=gates, edits=new)
        return metric(through, prompts, plain) - whole, metric(alone, prompts, plain) - clean

    places = shape[0] if len(shape) == 1 else shape[0] * shape[1]
    through, alone = jax.lax.map(one, jnp.arange(places), batch_size=chunk)
    return through.reshape(*shape, -1), alone.reshape(*shape, -1), whole - clean


class HeadChanges(NamedTuple):
    """How an adapter changes each head; all (layer, head).

    Attributes:
      qk: |change of W_Q W_K^T| / |W_Q W_K^T|, Frobenius: where it looks. With rotary positions at
        distance 0.
      ov: the same of W_V W_O: what it copies.
      pattern: mean total variation between the attention of base and edited model, in [0, 1]; over
        real queries. It holds what reaches the head from edits of earlier layers, too.
    """

    qk: jax.Array
    ov: jax.Array
    pattern: jax.Array


def head_changes(model: Any, prompts: Prompts, adapter: Adapter) -> HeadChanges:
    """Change of the weights and of the attention of every head.

    Args:
      model: as in `carriers`; layers of one size.
      prompts: to attend on.
      adapter: of any variant.

    Raises:
      ValueError: for layers of different sizes.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> adapter = init(model.params, ["*/up/kernel"], rank=2, alpha=2, key=jax.random.key(1))
      >>> row = jnp.ones((3, 5), int)
      >>> prompts = Prompts(row, 2 * row, row, 4 * row[:, 0], row[:, :1], 2 * row[:, :1])
      >>> head_changes(model, prompts, adapter).qk.tolist()
      [[0.0, 0.0], [0.0, 0.0]]

    Reference: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, section
    "Two-Layer Attention-Only Transformers": QK and OV circuits.
    """
    if not model.config.stacked:
        raise check.fail("model", "layers of one size", "layers of different sizes")
    edited = merge(model.params, adapter)
    both = (_factors(model.config, params) for params in (model.params, edited))
    qk, ov = itertools.starmap(_changed, zip(*both, strict=True))
    mask = jnp.asarray(prompts.attention_mask)
    patterns = [
        model.apply(params, prompts.tokens, attention_mask=mask, taps=("pattern",)).taps["pattern"]
        for params in (model.params, edited)
    ]
    far = 0.5 * jnp.abs(patterns[1] - patterns[0]).sum(axis=-1)
    real = mask[None, :, None].astype(far.dtype)
    return HeadChanges(qk, ov, (far * real).sum(axis=(1, 3)) / real.sum(axis=(1, 3)))


def _factors(config: ModelConfig, params: Any) -> list[tuple[jax.Array, jax.Array]]:
    """Of W_Q W_K^T and of W_V W_O both factors, (layer, head, width, head_dim)."""
    weights = tree.paths(params["blocks"]["attn"])
    groups = config.heads // config.kv_heads
    key, value = (jnp.repeat(weights[f"{n}/kernel"], groups, axis=2) for n in ("key", "value"))
    query, key, value = (jnp.moveaxis(x, 1, 2) for x in (weights["query/kernel"], key, value))
    return [(query, key), (value, jnp.swapaxes(weights["output/kernel"], -1, -2))]


def _changed(old: tuple[jax.Array, jax.Array], new: tuple[jax.Array, jax.Array]) -> jax.Array:
    """|A' B'^T - A B^T| / |A B^T|, from [A' - A, A] [B', B' - B]^T: no product is ever formed."""
    (a, b), (c, d) = old, new
    change = _norm(jnp.concatenate([c - a, a], axis=-1), jnp.concatenate([d, d - b], axis=-1))
    return change / jnp.maximum(_norm(a, b), 1e-30)


def _norm(x: jax.Array, y: jax.Array) -> jax.Array:
    """|X Y^T|, Frobenius: the trace of X^T X Y^T Y."""
    x, y = (jnp.einsum("lhwi,lhwj->lhij", z, z, precision="highest") for z in (x, y))
    return jnp.sqrt(jnp.maximum((x * y).sum(axis=(-2, -1)), 0.0))
