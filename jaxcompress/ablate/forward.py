"""Single forwards of any model, and the run that interventions start from."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.models.gates import Edits
from jaxcompress.tasks.metrics import Metric, logit_difference
from jaxcompress.tasks.prompts import Prompts, padded_right

__all__ = ["Base", "at_answer", "checked", "narrowed", "options", "run", "start", "validated"]

_SIZES = ("vocab", "context", "outputs")


class Base(NamedTuple):
    """A run without intervention, and what it takes to measure one with.

    Attributes:
      prompts: checked, on the device.
      view: the prompts as the metric sees them: answers index `tokens`, if these are given.
      tokens: (batch, answer) the only logits that are formed, or `None`: all.
      logits: (batch, answer or vocab) at the answer positions.
      clean: (batch,) the metric.
      resid: (layer + 1, batch, position, width) if the model can `resume`, else `None`.
      taps: further activations that were asked for.
    """

    prompts: Prompts
    view: Prompts
    tokens: Any
    logits: Any
    clean: Any
    resid: Any
    taps: dict[str, Any]


def start(model: Any, prompts: Prompts, metric: Metric, taps: tuple[str, ...] = ()) -> Base:
    """Runs a model once on the clean prompts.

    Args:
      model: as in `sweep`.
      prompts: checked here.
      metric: to be measured.
      taps: further activations to keep.

    Raises:
      ValueError: for prompts that do not fit the model.

    Example:
      >>> from types import SimpleNamespace
      >>> from jaxcompress.types import Output
      >>> model = SimpleNamespace(
      ...     config=None,
      ...     params=jnp.eye(3),
      ...     apply=lambda params, tokens: Output(params[tokens], {}),
      ... )
      >>> row = np.ones((1, 1), np.int32)
      >>> prompts = Prompts(row, row, row, 0 * row[:, 0], row, 2 * row)
      >>> start(model, prompts, logit_difference).clean.tolist()
      [1.0]
    """
    prompts = checked(model.config, prompts)
    shares = hasattr(model, "resume")
    # A difference of answer logits needs no other logits.
    view, tokens = (prompts, None)
    if shares and metric is logit_difference:
        view, tokens = narrowed(prompts)
    resid = ("resid",) if shares else ()
    out = run(model, prompts, taps=(*taps, *resid), answer_tokens=tokens)
    logits = at_answer(out.logits, prompts)
    kept = {name: out.taps[name] for name in taps}
    clean = jax.jit(metric)(logits, view, logits)
    return Base(prompts, view, tokens, logits, clean, out.taps["resid"] if shares else None, kept)


@functools.partial(jax.jit, static_argnames=("apply", "taps", "native"))
def _forward(params, tokens, prompts, answer_tokens, *, apply, taps, native):
    given = options(prompts, taps=taps)
    if native:
        given |= {"answer_position": prompts.answer_position, "answer_tokens": answer_tokens}
    return apply(params, tokens, **given)


def run(
    model: Any,
    prompts: Prompts,
    *,
    tokens: Any = None,
    taps: tuple[str, ...] = (),
    answer_tokens: Any = None,
) -> Any:
    """One forward of any model on the clean (or other) tokens of the prompts.

    Args:
      model: as in `sweep`.
      prompts: give mask and answer positions.
      tokens: (batch, position); `None`: the clean ones.
      taps: activations to return.
      answer_tokens: for a model that can `resume`: form these logits only.

    Returns:
      Its `Output`; logits are at the answer positions if the model can `resume`.

    Example:
      >>> from types import SimpleNamespace
      >>> from jaxcompress.types import Output
      >>> model = SimpleNamespace(
      ...     params=jnp.eye(3), apply=lambda params, tokens: Output(params[tokens], {})
      ... )
      >>> row = np.ones((1, 1), np.int32)
      >>> prompts = Prompts(row, row, None, 0 * row[:, 0], row, 2 * row)
      >>> run(model, prompts).logits.tolist()
      [[[0.0, 1.0, 0.0]]]
    """
    native = hasattr(model, "resume")
    tokens = prompts.tokens if tokens is None else tokens
    return _forward(
        model.params, tokens, prompts, answer_tokens, apply=model.apply, taps=taps, native=native
    )


def options(
    prompts: Prompts, *, edits: Edits | None = None, taps: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Only what is needed, so that a model without masks, edits or taps can be swept too.

    Example:
      >>> ones = np.ones((1, 2), np.int32)
      >>> prompts = Prompts(ones, ones, None, ones[:, 0], ones[:, :1], ones[:, :1])
      >>> options(prompts, taps=("heads",))
      {'taps': ('heads',)}
    """
    given: dict[str, Any] = {}
    if prompts.attention_mask is not None:
        given["attention_mask"] = prompts.attention_mask
    if edits is not None:
        given["edits"] = edits
    if taps:
        given["taps"] = taps
    return given


def at_answer(logits: jax.Array, prompts: Prompts) -> jax.Array:
    """(batch, vocab) logits at the answer positions, from logits with or without positions.

    Example:
      >>> row = jnp.ones((1, 1), jnp.int32)
      >>> prompts = Prompts(row, row, None, row[:, 0], row, row)
      >>> at_answer(jnp.arange(6.0).reshape(1, 3, 2), prompts).tolist()
      [[2.0, 3.0]]
    """
    if logits.ndim == 2:
        return logits
    return jnp.take_along_axis(logits, prompts.answer_position[:, None, None], axis=1)[:, 0]


def narrowed(prompts: Prompts) -> tuple[Prompts, jax.Array]:
    """Prompts whose answers index (batch, right + wrong) logits, and the tokens of these.

    Example:
      >>> row = jnp.ones((1, 1), jnp.int32)
      >>> view, tokens = narrowed(Prompts(row, row, None, row[:, 0], 7 * row, 4 * row))
      >>> view.correct.tolist(), view.wrong.tolist(), tokens.tolist()
      ([[0]], [[1]], [[7, 4]])
    """
    both = jnp.concatenate([prompts.correct, prompts.wrong], axis=1)
    place = jnp.where(both >= 0, jnp.arange(both.shape[1])[None], -1)
    count = prompts.correct.shape[1]
    view = dataclasses.replace(prompts, correct=place[:, :count], wrong=place[:, count:])
    return view, jnp.maximum(both, 0)


def validated(config: Any, prompts: Prompts) -> Prompts:
    """Prompts that fit a model; answers may be any of its outputs, which need not be its tokens.

    Args:
      config: of the model; sizes that it does not tell are not checked.
      prompts: to be checked.

    Raises:
      ValueError: for prompts that do not fit.

    Example:
      >>> from types import SimpleNamespace
      >>> row = np.ones((1, 1), np.int32)
      >>> prompts = Prompts(row, row, row, 0 * row[:, 0], row, 9 * row)
      >>> validated(SimpleNamespace(vocab=2, outputs=10, context=1), prompts) is prompts
      True
    """
    if getattr(config, "head", None) == "none":
        raise check.fail("model", "one with a language-model head", "head 'none'")
    return prompts.validate(*(getattr(config, size, None) for size in _SIZES))


def checked(config: Any, prompts: Prompts) -> Prompts:
    """Valid prompts on the device, padded on the right; a mask that masks nothing is dropped.

    Example:
      >>> row = np.ones((1, 1), np.int32)
      >>> checked(None, Prompts(row, row, row, 0 * row[:, 0], row, row)).attention_mask is None
      True
    """
    prompts = padded_right(validated(config, prompts))
    if np.asarray(prompts.attention_mask).all():
        prompts = dataclasses.replace(prompts, attention_mask=None)
    return jax.tree.map(jnp.asarray, prompts)
