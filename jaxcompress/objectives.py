"""What `distill` and `lora` minimise: losses on logits, activations and tokens, from settings."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import check, prune
from jaxcompress.distill import losses
from jaxcompress.distill.activations import activations
from jaxcompress.distill.chunked import chunked
from jaxcompress.lora.adapters import Adapter, with_trained
from jaxcompress.matrices import readout
from jaxcompress.models import Model, ModelConfig

__all__ = ["LOSSES", "adaptation", "distillation"]

Objective = Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]]
"""`(trained, batch, key) -> (nats, metrics)`, as `train.make_step` takes it."""

LOSSES: dict[str, Callable[..., Any]] = {
    "forward_kl": losses.forward_kl,
    "reverse_kl": losses.reverse_kl,
    "jsd": losses.jsd,
    "total_variation": losses.total_variation,
    "top_k_kl": losses.top_k_kl,
}
"""Losses on logits by the names that settings use."""

_OPTIONS = {
    "forward_kl": ("temperature",),
    "reverse_kl": ("temperature",),
    "jsd": ("beta",),
    "top_k_kl": ("k",),
}
_MANY = 16_384  # tokens of a vocabulary from which on logits are formed in chunks
_CHUNK = 64


def distillation(
    student: Model,
    teacher: Model,
    config: Any,
    extra: Callable[[Any, Any], jax.Array] | None = None,
) -> tuple[dict[str, Any], Objective]:
    """What is trained, and the loss: the teacher's word, the text's, and activations on the way.

    Args:
      student: at the start.
      teacher: not run if nothing of it is asked for.
      config: a `finetune.DistillConfig`.
      extra: `(params, batch) -> nats`, added.

    Returns:
      `{"student": params}`, with the arrays of `distill.activations` if there are any, and the
      loss.

    Raises:
      ValueError: for an unknown loss, activations that cannot be compared, and gradient
        accumulation with losses on activations, which are no means over the tokens asked for.

    Example:
      >>> from jaxcompress import io
      >>> from jaxcompress.finetune import DistillConfig
      >>> model = io.load("builtin:student")
      >>> start, loss = distillation(model, model, DistillConfig())
      >>> sorted(start)
      ['student']
    """
    check.known("loss", config.loss, (*LOSSES, "cross_entropy"))
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    inner = activations(student.config, teacher.config, config.activations, key)
    if inner.taps and config.accumulate > 1:
        raise check.fail("accumulate", "1 with losses on activations", config.accumulate)
    listens = config.loss != "cross_entropy" and config.alpha > 0
    vocab = student.config.outputs or student.config.vocab
    cut = _cut(config.chunk, vocab, config.mesh[0])
    outer = _logit_loss(config, cut, listens, student, teacher)

    def loss(trained: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        params, taps = trained["student"], (*inner.taps, "final")
        ours = _run(student, params, batch, taps)
        theirs: Any = None
        if listens or inner.taps:
            theirs = _run(teacher, teacher.params, batch, taps)
        value, count = outer(params, ours, theirs, batch)
        told = {"count": count}
        if inner.taps:
            rest = {name: leaf for name, leaf in trained.items() if name != "student"}
            mask = jnp.asarray(batch.attention_mask)
            told["activations"] = inner.loss(ours.taps, theirs.taps, rest, mask)
            value = value + told["activations"]
        if extra is not None:
            told["extra"] = extra(params, batch)
            value = value + told["extra"]
        return value, told

    return {"student": student.params, **inner.start}, loss


def adaptation(
    model: Model, adapter: Adapter, chunk: int | None = None, parts: int = 1
) -> Objective:
    """The loss of an adapter's leaves: cross-entropy with the tokens that follow.

    Args:
      model: the base, which stays as it is.
      adapter: before it is trained.
      chunk: as `finetune.DistillConfig.chunk`.
      parts: over how many devices the rows of a batch are spread.

    Example:
      >>> from jaxcompress import io, lora
      >>> model = io.load("builtin:student")
      >>> how = {"rank": 2, "alpha": 4.0, "key": jax.random.key(0)}
      >>> adapter = lora.init(model.params, ["*/value/kernel"], **how)
      >>> loss = adaptation(model, adapter)
    """
    cut = _cut(chunk, model.config.outputs or model.config.vocab, parts)

    def loss(trained: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        params = with_trained(adapter, trained).merged(model.params)
        out = _run(model, params, batch, ("final",))
        value, count = _cross_entropy(model.config, cut, params, out, batch)
        return value, {"count": count}

    return loss


def _run(model: Model, params: Any, batch: Any, taps: tuple[str, ...]) -> Any:
    return model.apply(params, batch.tokens, attention_mask=batch.attention_mask, taps=taps)


class _Cut(NamedTuple):
    """Tokens whose logits exist at once, 0 for all, on each of so many devices."""

    chunk: int
    parts: int

    def by(self, loss: Any, batch: Any) -> Callable[..., tuple[Any, Any]]:
        """The loss in chunks; of rows that the devices do not divide, in fewer parts."""
        return chunked(loss, self.chunk, math.gcd(self.parts, len(batch.tokens)))


def _cut(asked: int | None, vocab: int, parts: int) -> _Cut:
    if asked is None:
        return _Cut(_CHUNK if vocab >= _MANY else 0, parts)
    return _Cut(check.integer("chunk", asked, 0), parts)


def _logit_loss(
    config: Any, cut: _Cut, listens: bool, student: Model, teacher: Model
) -> Callable[..., tuple[Any, Any]]:
    """`(params, our output, their output, batch) -> (mean, count)`."""
    if not listens:
        return lambda params, ours, theirs, batch: _cross_entropy(
            student.config, cut, params, ours, batch
        )
    options = {name: getattr(config, name) for name in _OPTIONS.get(config.loss, ())}
    soft = functools.partial(LOSSES[config.loss], **options)
    mixed = functools.partial(losses.mixed, alpha=config.alpha, distillation=soft)

    def plain(params: Any, ours: Any, theirs: Any, batch: Any) -> tuple[Any, Any]:
        labels, mask = prune.targets(batch)
        return mixed(ours.logits, theirs.logits, mask, labels)

    def lean(params: Any, ours: Any, theirs: Any, batch: Any) -> tuple[Any, Any]:
        labels, mask = prune.targets(batch)
        both = _last(student.config, params, ours), _last(teacher.config, teacher.params, theirs)
        return cut.by(mixed, batch)(*both, mask, labels)

    return lean if cut.chunk else plain


def _cross_entropy(
    config: ModelConfig, cut: _Cut, params: Any, out: Any, batch: Any
) -> tuple[Any, Any]:
    labels, mask = prune.targets(batch)
    if not cut.chunk:
        return losses.cross_entropy(out.logits, labels, mask)
    hidden, table = _last(config, params, out)
    nobody = hidden[..., :1], table[:1]  # whose logits nothing reads, so that XLA drops them

    def alone(logits: Any, _: Any, mask: Any, labels: Any) -> tuple[Any, Any]:
        return losses.cross_entropy(logits, labels, mask)

    return cut.by(alone, batch)((hidden, table), nobody, mask, labels)


def _last(config: ModelConfig, params: Any, out: Any) -> tuple[jax.Array, jax.Array]:
    """Hidden states and the matrix whose product is the logits, a bias as two more channels."""
    hidden, table = out.taps["final"], readout(params, tied=config.tied).astype(config.dtype)
    if config.unembed_bias:
        # In two parts, as the logits add it in float32, whatever the computation is in.
        bias = params["head"]["bias"]
        coarse = bias.astype(config.dtype)
        fine = (bias - coarse.astype(bias.dtype)).astype(config.dtype)
        hidden = jnp.concatenate([hidden, jnp.ones_like(hidden[..., :2])], axis=-1)
        table = jnp.concatenate([table, jnp.stack([coarse, fine])])
    return hidden, table
