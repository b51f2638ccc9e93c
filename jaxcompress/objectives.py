"""What `distill` and `lora` minimise: losses on logits, activations and tokens, from settings."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import check, generate, prune
from jaxcompress.distill import losses
from jaxcompress.distill.activations import activations
from jaxcompress.distill.chunked import chunked
from jaxcompress.lora.adapters import Adapter, with_trained
from jaxcompress.matrices import readout
from jaxcompress.models import Model, ModelConfig

__all__ = ["LOSSES", "SequencesConfig", "adaptation", "continued", "distillation"]

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


@dataclasses.dataclass(frozen=True)
class SequencesConfig:
    """Updates on what a model says itself: rows of text of which it keeps the first tokens only.

    On-policy distillation (GKD) is `by` student: the loss on logits alone, with the student's share
    `alpha` and the text left out. Sequence-level distillation is `by` teacher with loss
    cross_entropy, share 1 and temperature 0. Tokens that are kept do not count, nor is there a
    gradient through what is drawn.

    Attributes:
      share: of updates; the others are those on the text. 0 costs nothing.
      by: who says it, student or teacher.
      prompt: tokens of each row that are kept.
      temperature: of what is said; 0 is the most likely token each time.
    """

    share: float = 0.0
    by: Literal["student", "teacher"] = "student"
    prompt: int = 8
    temperature: float = 1.0


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
        accumulation with losses on activations, which are no means over the tokens asked for;
        for sequences out of range, of prompts of tasks, or of a student whose teacher is not asked.

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
    _check_sequences(config.sequences, config.data.tasks, listens)
    alone = config.sequences.by == "student"
    # What the student says is no text to learn from: there only the teacher's word counts.
    told_alone = dataclasses.replace(config, alpha=1.0) if alone else config
    outer, heard = (
        _logit_loss(settings, cut, listens, student, teacher) for settings in (config, told_alone)
    )

    def on(
        batch: Any, trained: Any, outer: Callable[..., tuple[Any, Any]]
    ) -> tuple[Any, dict[str, Any]]:
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
        return value, told

    def loss(trained: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        def said(key: Any) -> tuple[Any, dict[str, Any]]:
            who = student.replace(params=trained["student"]) if alone else teacher
            return on(continued(who, batch, config.sequences, key), trained, heard)

        text = functools.partial(on, batch, trained, outer)
        value, told = _either(config.sequences.share, key, text, said)
        if extra is not None:
            told["extra"] = extra(trained["student"], batch)
            value = value + told["extra"]
        return value, told

    return {"student": student.params, **inner.start}, loss


def _either(
    share: float, key: Any, text: Callable[[], Any], said: Callable[[Any], Any]
) -> tuple[Any, dict[str, Any]]:
    """The loss on what is said, in this share of the updates, or else on the text."""
    if share == 0:
        return text()
    chance, draws = jax.random.split(key)
    if share == 1:
        return said(draws)
    return jax.lax.cond(jax.random.uniform(chance) < share, lambda: said(draws), text)


def continued(model: Model, batch: Any, config: SequencesConfig, key: Any) -> prune.Masked:
    """Rows of the same length that a model has said, but for their first tokens.

    Args:
      model: causal; no gradient goes to it.
      batch: rows of text, padded at the right if at all.
      config: how many tokens are kept, and the temperature.
      key: of what is drawn.

    Returns:
      Rows whose labels are the tokens that were said; a row without any token has none. The first
      token after a prompt that ends before `config.prompt` is none either: the position before it
      is padding.

    Raises:
      ValueError: for rows that are no longer than what is kept, and as `generate.sample`.

    Example:
      >>> from jaxcompress import io
      >>> text = prune.Text(jnp.ones((2, 6), int), jnp.ones((2, 6), int))
      >>> rows = continued(
      ...     io.load("builtin:student"), text, SequencesConfig(prompt=4), jax.random.key(0)
      ... )
      >>> (rows.labels >= 0).tolist()[0]
      [False, False, False, True, True, False]
    """
    length = batch.tokens.shape[1]
    kept = check.integer("sequences.prompt", config.prompt, 1, length - 1)
    mask = jnp.asarray(batch.attention_mask)[:, :kept] > 0
    some = mask.any(axis=1, keepdims=True)
    frozen = model.replace(params=jax.lax.stop_gradient(model.params))
    out = generate.sample(
        frozen,
        jnp.where(mask, jnp.asarray(batch.tokens)[:, :kept], 0),
        attention_mask=mask | (~some & (jnp.arange(kept) == 0)[None]),
        count=length - kept,
        key=key,
        temperature=config.temperature,
    )
    real = out.attention_mask * some
    told = (jnp.arange(1, length) >= kept)[None] & (real[:, 1:] > 0) & (real[:, :-1] > 0)
    labels = jnp.where(told, out.tokens[:, 1:], -1)
    return prune.Masked(out.tokens, real, jnp.pad(labels, ((0, 0), (0, 1)), constant_values=-1))


def _check_sequences(config: SequencesConfig, tasks: Any, listens: bool) -> None:
    if not 0 <= config.share <= 1:
        raise check.fail("sequences.share", "a number in [0, 1]", config.share)
    if not 0 <= config.temperature < math.inf:
        raise check.fail("sequences.temperature", "a finite number >= 0", config.temperature)
    if config.share and tasks:
        raise check.fail("sequences.share", "0 with prompts of tasks, not text", config.share)
    if config.share and config.by == "student" and not listens:
        expected = "a loss that asks the teacher, where the student's own words are trained on"
        raise check.fail("loss", expected, "cross_entropy, or alpha 0")


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
