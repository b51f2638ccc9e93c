"""What a model is looked at or trained on, by name: prompts of tasks, or rows of text."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxcompress import check, files, prune, tasks
from jaxcompress.ablate.interventions import Components, components
from jaxcompress.data.packed import packed
from jaxcompress.models import Gates, Model
from jaxcompress.prune.scores import marked

__all__ = [
    "Data",
    "Measure",
    "accuracy",
    "as_measure",
    "batches",
    "each_removed",
    "harm",
    "judged",
    "mean_loss",
    "similarity",
    "together",
    "under_gates",
]

_TENTH = 10  # every so-manieth row of a text is held out
_TOGETHER = 256  # components whose gates exist at once
_HIDDEN = 0.15  # share of tokens that a masked language model is asked for


@dataclasses.dataclass(frozen=True)
class Data:
    """What a model is looked at on: prompts of tasks, or rows of text.

    Attributes:
      tasks: names from `tasks.NAMES`; or
      text: a text file, a directory of text files, a Hugging Face dataset id, or an npz file of
        `tokens` (row, position) and their `lengths` (row,).
      count: prompts of each task, or rows of text if there are so many.
      context: tokens of a row of text.
      batch: prompts or rows that are run together.
      seed: of the prompts, and of which rows are taken.
    """

    tasks: tuple[str, ...] = ()
    text: str | None = None
    count: int = 64
    context: int = 128
    batch: int = 16
    seed: int = 0


def batches(model: Model, data: Data, *, held_out: bool = False) -> tuple[list[Any], Any]:
    """Batches for `prune.calibrate`, and the loss that belongs to them.

    Args:
      model: with a tokenizer, unless the rows are tokens already.
      data: what to draw.
      held_out: rows or prompts that are never among the others: every tenth row of the text; of
        tasks, prompts drawn with another key, without those that the first key draws.

    Returns:
      Batches, of one width for all tasks, and `prune.answer` for prompts, `prune.next_token` for
      text, `prune.masked_token` if the model sees both ways (15 % of the tokens are hidden),
      `prune.embedding` without a head.

    Raises:
      ValueError: without a tokenizer, unless exactly one of tasks and text is given, or if no
        prompt or row is left to hold out.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> found, loss = batches(load("builtin:student"), Data(tasks=("ioi",), count=20))
      >>> [len(batch) for batch in found], loss.__name__
      ([16, 4], 'answer')
    """
    if bool(data.tasks) == (data.text is not None):
        raise check.fail("data", "either tasks or text", "both or neither")
    if model.tokenizer is None and not (data.text or "").endswith(".npz"):
        raise check.fail("model", "one with a tokenizer", "none in its directory")
    check.integer("data.batch", data.batch, 1)
    check.integer("data.count", data.count, 1)
    if data.text is None:
        drawn = [_prompts(model, data, i, held_out) for i in range(len(data.tasks))]
        drawn, loss = tasks.alike(drawn, model.config.context), prune.answer
    else:
        one, loss = _rows(model, data, held_out)
        drawn = [one]
    cut = [
        jax.tree.map(lambda leaf, i=i: leaf[i : i + data.batch], one)
        for one in drawn
        for i in range(0, len(one.tokens), data.batch)
    ]
    return cut, loss


def _prompts(model: Model, data: Data, place: int, held_out: bool) -> Any:
    """Prompts of the task at that place; held out are those that training does not draw."""
    asked = model.tokenizer, model.config.context, tuple(data.tasks), place, data.count, data.seed
    prompts = _drawn(*asked, held_out)
    if held_out:
        seen = {row.tobytes() for row in np.asarray(_drawn(*asked, False).tokens)}
        new = [i for i, row in enumerate(np.asarray(prompts.tokens)) if row.tobytes() not in seen]
        if not new:
            expected = f"more prompts of {data.tasks[place]} than {data.count} to train on"
            raise check.fail("data.count", expected, "none to hold out")
        prompts = jax.tree.map(lambda leaf: leaf[np.asarray(new)], prompts)
    return prompts


@functools.lru_cache(maxsize=32)
def _drawn(
    tokenizer: Any, context: int, names: tuple[str, ...], place: int, count: int, seed: int,
    held_out: bool,
) -> Any:  # fmt: skip
    # Kept, since experiments train many students on the same prompts, and tokenizers are slow.
    key = jax.random.fold_in(jax.random.key(seed), int(held_out))
    key = jax.random.split(key, len(names))[place]
    return tasks.get(names[place], tokenizer, count, key, context=context)


def _rows(model: Model, data: Data, held_out: bool) -> tuple[Any, Any]:
    """Rows of text in one batch, and the loss of this kind of model."""
    tokens, real = _text(model, data)
    tenth = np.arange(len(tokens)) % _TENTH == _TENTH - 1
    places = np.flatnonzero(tenth if held_out else ~tenth)
    if not len(places):
        raise check.fail("data.text", f"at least {_TENTH} rows", len(tokens))
    key = jax.random.fold_in(jax.random.key(data.seed), int(held_out))
    chosen = np.sort(places[np.asarray(jax.random.permutation(key, len(places)))[: data.count]])
    tokens, real = np.asarray(tokens[chosen]), real[chosen]
    if model.config.head == "none":
        return prune.Text(tokens, real), prune.embedding
    if model.config.causal:
        return prune.Text(tokens, real), prune.next_token
    mask = getattr(model.tokenizer, "mask_token_id", None)
    if mask is None:
        raise check.fail("model", "a tokenizer with a mask token, as it sees both ways", "none")
    hidden = np.asarray(jax.random.bernoulli(key, _HIDDEN, tokens.shape)) & (real > 0)
    labels = np.where(hidden, tokens, -1)
    return prune.Masked(np.where(hidden, mask, tokens), real, labels), prune.masked_token


def _text(model: Model, data: Data) -> tuple[Any, np.ndarray]:
    """Rows of tokens, and 1 where they are real."""
    text, context = str(data.text), min(data.context, model.config.context)
    if not text.endswith(".npz"):
        rows = packed(text, model.tokenizer, context)
        return rows, np.ones(rows.shape, np.int32)
    arrays = files.read_npz(text, ("tokens", "lengths"))
    tokens = arrays["tokens"][:, :context].astype(np.int32)
    return tokens, (np.arange(tokens.shape[1]) < arrays["lengths"][:, None]).astype(np.int32)


def together(model: Model, data: Data) -> Any:
    """All rows in one pytree, for training; prompts of several tasks are padded to one length.

    Raises:
      ValueError: as `batches`.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> model = load("builtin:student")
      >>> together(model, Data(tasks=("ioi", "months"), count=3)).tokens.shape[0]
      6
    """
    found, _ = batches(model, data)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def mean_loss(model: Model, found: Sequence[Any], loss: Any, gates: Gates | None = None) -> float:
    """Nats per answer, or per token, over batches.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> model = load("builtin:student")
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


def judged(model: Model, data: Data) -> dict[str, float]:
    """`loss` in nats and `accuracy` on at most 128 held-out prompts of each task.

    Raises:
      ValueError: as `batches`.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> judged(load("builtin:student"), Data(tasks=("months",), count=8))["accuracy"]
      1.0
    """
    few = dataclasses.replace(data, count=min(data.count, 128))
    found, loss = batches(model, few, held_out=True)
    right = float(under_gates(model, found, accuracy, Gates())[0])
    return {"loss": mean_loss(model, found, loss), "accuracy": right}


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
      measure: see `examples.under_gates`.
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
