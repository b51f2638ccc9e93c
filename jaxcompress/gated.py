"""What is measured of a model whole and with components gated, many sets of them in one program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxcompress import prune, tasks
from jaxcompress.ablate.interventions import Components, components
from jaxcompress.models import Gates, Model
from jaxcompress.prune.scores import marked

__all__ = [
    "Measure",
    "accuracy",
    "as_measure",
    "each_removed",
    "harm",
    "mean_loss",
    "similarity",
    "under_gates",
]

_TOGETHER = 256  # components whose gates exist at once

Measure = Callable[[Any, Any, Any], jax.Array]
"""`measure(output, batch, whole)`: numbers of every token or row; `whole` is the ungated output."""


def accuracy(out: Any, batch: Any, whole: Any = None) -> jax.Array:
    """(batch,) 1 where the answer is right: a measure for `under_gates`.

    Example:
      >>> from jaxcompress.types import Output
      >>> row, logits = jnp.zeros((1, 1), int), jnp.array([[[2.0, 1.0]]])
      >>> prompts = tasks.Prompts(row, row, row, row[0], row, row + 1)
      >>> accuracy(Output(logits, {}), prompts).tolist()
      [1.0]
    """
    del whole
    rows = jnp.asarray(batch.answer_position)[:, None, None]
    return tasks.accuracy(jnp.take_along_axis(out.logits, rows, axis=1)[:, 0], batch)


def similarity(out: Any, batch: Any, whole: Any) -> jax.Array:
    """(batch,) cosine of mean-pooled embeddings with those of the whole model: a measure.

    Example:
      >>> from jaxcompress.types import Output
      >>> out = Output(None, {"resid": jnp.ones((1, 1, 2, 4))})
      >>> similarity(out, prune.Text(None, jnp.ones((1, 2))), out).tolist()
      [1.0]
    """
    real = jnp.asarray(batch.attention_mask)[..., None]
    one, other = ((x.taps["resid"][-1] * real).sum(axis=1) for x in (out, whole))
    sizes = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(other, axis=-1)
    return (one * other).sum(axis=-1) / jnp.maximum(sizes, 1e-12)


def under_gates(
    model: Model, found: Sequence[Any], measure: Measure, gates: Gates, *, chunk: int = 8
) -> np.ndarray:
    """A measure with many gates, in one program: an ablation study of whole sets.

    Args:
      model: to gate.
      found: batches.
      measure: `(output, batch, whole) -> numbers`, (batch,) or (batch, position) with 0 where
        nothing is asked; such as `accuracy` and `similarity`.
      gates: with a leading axis on every leaf.
      chunk: gates that are run together.

    Returns:
      (gates,) means over rows, or over the tokens that are asked for.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> model = load("builtin:student")
      >>> from jaxcompress.examples import Data, batches
      >>> found, _ = batches(model, Data(tasks=("months",), count=4))
      >>> heads = jnp.stack([jnp.ones((2, 8)), jnp.zeros((2, 8))])
      >>> under_gates(model, found, accuracy, Gates(heads=heads)).tolist()
      [1.0, 0.0]
    """
    total, count = np.zeros(()), 0.0
    for batch in found:
        batch = jax.tree.map(jnp.asarray, batch)
        sums, asked = _measured(model.apply, measure, chunk, model.params, batch, gates)
        total, count = total + np.asarray(sums, np.float64), count + float(asked)
    return total / count


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _measured(
    apply: Any, measure: Measure, chunk: int, params: Any, batch: Any, gates: Gates
) -> tuple[jax.Array, jax.Array]:
    """(gates,) sums of a measure over a batch, and over how many numbers."""
    run = functools.partial(
        apply, params, batch.tokens, attention_mask=batch.attention_mask, taps=("resid",)
    )
    whole = run()
    values = jax.eval_shape(measure, whole, batch, whole)
    asked = (batch.attention_mask > 0).any(axis=1).sum()  # a row of padding is no row
    if values.ndim == 2:
        real = batch.attention_mask > 0
        asked = (batch.labels >= 0) if hasattr(batch, "labels") else real[:, 1:] & real[:, :-1]
        asked = asked.sum()
    if not jax.tree.leaves(gates):
        return measure(whole, batch, whole).sum()[None], asked
    one = lambda gates: measure(run(gates=gates), batch, whole).sum()  # noqa: E731
    return jax.lax.map(one, gates, batch_size=chunk), asked


def each_removed(
    model: Model,
    found: Sequence[Any],
    measure: Measure,
    over: Sequence[str],
    *,
    progress: bool = True,
) -> Gates:
    """What a measure gains when each component is removed alone, put to zero.

    For prompts `ablate.sweep` gives the same numbers faster; this takes any data and any measure.

    Args:
      model: whose components are removed.
      found: batches of `examples.batches`.
      measure: see `under_gates`.
      over: any of heads, neurons, attns, mlps, width.
      progress: whether to show a progress bar.

    Returns:
      Gates that hold, for every component, the measure without it minus the measure with all;
      infinity in the slots that smaller layers lack.

    Raises:
      ValueError: for an unknown field.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> model = load("builtin:student")
      >>> from jaxcompress.examples import Data, batches
      >>> months, _ = batches(model, Data(tasks=("months",), count=4))
      >>> each_removed(model, months, accuracy, ["mlps"], progress=False).mlps.shape
      (2,)
    """
    whole = under_gates(model, found, measure, Gates())[0]
    values = {}
    for name in over:
        items = _components(model, name)
        change = np.full(int(np.prod(items.shape)), np.inf)
        starts = range(0, len(items), _TOGETHER)
        for start in tqdm.tqdm(starts, desc=f"remove {name}", disable=not progress):
            # The last ones are filled up with the first, so that all have one compiled shape.
            some = np.arange(start, start + min(_TOGETHER, len(items))) % len(items)
            gates = jax.tree.map(jnp.asarray, items.gates(some))
            change[items.where[some]] = under_gates(model, found, measure, gates) - whole
        values[name] = change.reshape(items.shape)
    return marked(model.config, Gates(**values))


def _components(model: Model, name: str) -> Components:
    if name != "width":
        return components(model.config, name)
    return components(model.config, [{"width": [i]} for i in range(model.config.width)])


def harm(loss: Any) -> Measure:
    """The measure that rises where a model gets worse: of an encoder, how its embeddings turn.

    Args:
      loss: as `examples.batches` gives it.

    Example:
      >>> harm(prune.answer).__name__
      'of_loss'
    """
    return _turned if loss is prune.embedding else as_measure(loss)


def _turned(out: Any, batch: Any, whole: Any) -> jax.Array:
    return 1 - similarity(out, batch, whole)


def mean_loss(model: Model, found: Sequence[Any], loss: Any, gates: Gates | None = None) -> float:
    """Nats per answer, or per token, over batches.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> model = load("builtin:student")
      >>> from jaxcompress.examples import Data, batches
      >>> found, loss = batches(model, Data(tasks=("months",), count=4))
      >>> mean_loss(model, found, loss) < 1
      True
    """
    if gates is None:
        gates = Gates()
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], gates)
    return float(under_gates(model, found, as_measure(loss), stacked)[0])


@functools.cache  # one object for each loss: `jit` compiles anew for a function it has not seen
def as_measure(loss: Any) -> Measure:
    """A loss of `batches` as a measure for `under_gates`.

    Example:
      >>> as_measure(prune.answer) is as_measure(prune.answer)
      True
    """

    def of_loss(out: Any, batch: Any, whole: Any) -> jax.Array:
        return loss(out, batch)

    return of_loss
