"""What a model is looked at or trained on, by name: prompts of tasks, or rows of text."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jaxcompress import check, files, prune, tasks
from jaxcompress.data.packed import packed
from jaxcompress.models import Model

__all__ = ["Data", "batches", "together"]

_TENTH = 10  # every so-manieth row of a text is held out
_HIDDEN = 0.15  # share of tokens that a masked language model is asked for


@dataclasses.dataclass(frozen=True)
class Data:
    """What a model is looked at on: prompts of tasks, or rows of text.

    Attributes:
      tasks: names from `tasks.NAMES`; or
      text: a text file, a directory of text files, a Hugging Face dataset id, or an npz file of
        `tokens` (row, position) and their `lengths` (row,); or several of them.
      count: prompts of each task, or rows of each text if there are so many.
      context: tokens of a row of text.
      batch: prompts or rows that are run together.
      seed: of the prompts, and of which rows are taken.
    """

    tasks: tuple[str, ...] = ()
    text: str | tuple[str, ...] | None = None
    count: int = 64
    context: int = 128
    batch: int = 16
    seed: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts, none or one of them too.

        Example:
          >>> Data(text="a.txt").texts, Data(tasks=("ioi",)).texts
          (('a.txt',), ())
        """
        return (self.text,) if isinstance(self.text, str) else tuple(self.text or ())


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
      ValueError: without a tokenizer, unless exactly one of tasks and text is given, if no prompt
        or row is left to hold out, if rows of several files differ in length, or are no tokens.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> found, loss = batches(load("builtin:student"), Data(tasks=("ioi",), count=20))
      >>> [len(batch) for batch in found], loss.__name__
      ([16, 4], 'answer')
    """
    check.integer("data.batch", data.batch, 1)
    drawn, loss = _sources(model, data, held_out)
    cut = [
        jax.tree.map(lambda leaf, i=i: leaf[i : i + data.batch], one)
        for one in drawn
        for i in range(0, len(one.tokens), data.batch)
    ]
    return cut, loss


def _sources(model: Model, data: Data, held_out: bool) -> tuple[list[Any], Any]:
    """Prompts of every task or rows of every text, of one width, and the loss."""
    if bool(data.tasks) == bool(data.texts):
        raise check.fail("data", "either tasks or text", "both" if data.tasks else "neither")
    told = data.texts and all(text.endswith(".npz") for text in data.texts)
    if model.tokenizer is None and not told:
        raise check.fail("model", "one with a tokenizer", "none in its directory")
    check.integer("data.count", data.count, 1)
    if data.tasks:
        drawn = [_prompts(model, data, i, held_out) for i in range(len(data.tasks))]
        return tasks.alike(drawn, model.config.context), prune.answer
    found = [_rows(model, data, text, held_out) for text in data.texts]
    widths = {rows.tokens.shape[1] for rows, _ in found}
    if len(widths) > 1:
        raise check.fail("data.text", "files with rows of one length", sorted(widths))
    return [rows for rows, _ in found], found[0][1]


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


def _rows(model: Model, data: Data, text: str, held_out: bool) -> tuple[Any, Any]:
    """Rows of text in one batch, and the loss of this kind of model."""
    tokens, real = _text(model, text, min(data.context, model.config.context))
    tenth = np.arange(len(tokens)) % _TENTH == _TENTH - 1
    places = np.flatnonzero(tenth if held_out else ~tenth)
    if not len(places):
        raise check.fail("data.text", f"at least {_TENTH} rows", len(tokens))
    key = jax.random.fold_in(jax.random.key(data.seed), int(held_out))
    # Of texts of one length not the same rows, and not the same hidden places.
    key = jax.random.fold_in(key, place) if (place := data.texts.index(text)) else key
    chosen = np.sort(places[np.asarray(jax.random.permutation(key, len(places)))[: data.count]])
    tokens, real = np.asarray(tokens[chosen]), real[chosen]
    if model.config.head == "none":
        return prune.Text(tokens, real), prune.embedding
    if model.config.causal:
        return prune.Text(tokens, real), prune.next_token
    mask = getattr(model.tokenizer, "mask_token_id", None)
    if mask is None:
        raise check.fail("model", "a tokenizer with a mask token, as it sees both ways", "none")
    key = jax.random.fold_in(key, 1)  # not the one that chose the rows
    hidden = np.asarray(jax.random.bernoulli(key, _HIDDEN, tokens.shape)) & (real > 0)
    labels = np.where(hidden, tokens, -1)
    return prune.Masked(np.where(hidden, mask, tokens), real, labels), prune.masked_token


def _text(model: Model, text: str, context: int) -> tuple[Any, np.ndarray]:
    """Rows of tokens, and 1 where they are real."""
    if not text.endswith(".npz"):
        rows = packed(text, model.tokenizer, context)
        return rows, np.ones(rows.shape, np.int32)
    arrays = files.read_npz(text, ("tokens", "lengths"))
    tokens, lengths = arrays["tokens"], arrays["lengths"]
    if tokens.ndim != 2:
        raise check.fail(f"tokens of {text}", "(row, position)", f"shape {tokens.shape}")
    check.shape(f"lengths of {text}", lengths, [tokens.shape[:1]], "(row,)")
    _refuse_others(f"lengths of {text}", lengths, 1, tokens.shape[1])
    real = np.arange(tokens.shape[1]) < lengths[:, None]
    _refuse_others(f"tokens of {text}", tokens[real], 0, model.config.vocab - 1)
    return tokens[:, :context].astype(np.int32), real[:, :context].astype(np.int32)


def _refuse_others(name: str, values: np.ndarray, low: int, high: int) -> None:
    """Raises unless all values, and there are some, are whole numbers in [low, high]."""
    whole = values.size and np.issubdtype(values.dtype, np.integer)
    if not whole or values.min() < low or values.max() > high:
        got = f"{values.min()} to {values.max()}" if whole else f"{values.size} of {values.dtype}"
        raise check.fail(name, f"whole numbers in [{low}, {high}]", got)


def together(model: Model, data: Data) -> tuple[Any, tuple[int, ...]]:
    """All rows in one pytree, for training, and how many are of each task or text.

    Prompts of several tasks are padded to one length.

    Raises:
      ValueError: as `batches`.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> model = load("builtin:student")
      >>> rows, sizes = together(model, Data(tasks=("ioi", "months"), count=3))
      >>> rows.tokens.shape[0], sizes
      (6, (3, 3))
    """
    found, _ = _sources(model, data, held_out=False)
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    return rows, tuple(len(one.tokens) for one in found)
