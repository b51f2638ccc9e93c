"""What is left when many components go at once: one number for each set of gates."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress.ablate.forward import at_answer, checked, options, run
from jaxcompress.ablate.interventions import replacements
from jaxcompress.models.gates import Gates
from jaxcompress.tasks.metrics import Metric, get_metric
from jaxcompress.tasks.prompts import Prompts

__all__ = ["answered", "remaining"]


def remaining(
    model: Any,
    prompts: Prompts,
    gates: Gates,
    *,
    replacement: str = "mean",
    metric: str | Metric = "accuracy",
    chunk: int = 8,
) -> jax.Array:
    """(choice,) mean metric under many gates, all in one program.

    Args:
      model: as in `sweep`.
      prompts: with answers; the corrupted ones give the replacements.
      gates: with a leading choice axis in every field that is not `None`.
      replacement: `zero`, `mean` over the corrupted prompts or `resample`.
      metric: name or function, see `tasks.metrics`; its clean logits are those of the whole model.
      chunk: forwards at once.

    Raises:
      ValueError: for prompts that do not fit the model, unknown names.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> ones = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(ones, 2 * ones, ones, 4 * ones[:, 0], ones[:, :1], 2 * ones[:, :1])
      >>> left = remaining(model, prompts, Gates(heads=jnp.ones((4, 2, 2))), metric="kl")
      >>> left.shape, bool(jnp.allclose(left, 0, atol=1e-6))
      ((4,), True)

    Reference: Michel et al. 2019 (arXiv 1905.10650), section 4, with means as in Wang et al. 2022
    (arXiv 2211.00593), section 2.2.
    """
    prompts, edits = checked(model.config, prompts), None
    fields = tuple(name for name, value in vars(gates).items() if value is not None)
    if replacement != "zero":
        asked = tuple(name for name in fields if name != "width")
        taps = run(model, prompts, tokens=prompts.corrupted, taps=asked).taps
        edits = replacements({name: taps[name] for name in asked}, replacement, prompts)
    clean = at_answer(run(model, prompts).logits, prompts)
    stacked = jax.tree.map(jnp.asarray, gates)
    return _remaining(
        model.params, prompts, edits, clean, stacked,
        apply=model.apply, metric=get_metric(metric), chunk=chunk,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("apply", "metric", "chunk"))
def _remaining(params, prompts, edits, clean, gates, *, apply, metric, chunk):
    given = options(prompts, edits=edits)

    def one(gates: Gates) -> jax.Array:
        logits = apply(params, prompts.tokens, gates=gates, **given).logits
        return metric(at_answer(logits, prompts), prompts, clean).mean()

    return jax.lax.map(one, gates, batch_size=chunk)


def answered(model: Any, prompts: Prompts) -> Prompts:
    """The prompts that the model answers right, maybe none.

    Args:
      model: as in `sweep`.
      prompts: with answers.

    Example:
      >>> from types import SimpleNamespace
      >>> from jaxcompress.types import Output
      >>> model = SimpleNamespace(
      ...     params=jnp.eye(3), apply=lambda params, tokens: Output(params[tokens], {})
      ... )
      >>> row = np.array([[1], [2]])
      >>> prompts = Prompts(row, row, None, 0 * row[:, 0], 0 * row + 1, 0 * row)
      >>> answered(model, prompts).tokens.tolist()
      [[1]]
    """
    logits = at_answer(run(model, prompts).logits, jax.tree.map(jnp.asarray, prompts))
    right = (logits.argmax(axis=-1)[:, None] == jnp.asarray(prompts.correct)).any(axis=1)
    return prompts[np.flatnonzero(right)]
