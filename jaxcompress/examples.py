"""What a model is looked at or trained on, by name: prompts of tasks, or rows of text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxcompress import check, prune, tasks
from jaxcompress.data.packed import packed
from jaxcompress.models import Gates, Model

__all__ = ["Data", "batches", "mean_loss"]

_TENTH = 10  # every so-manieth row of a text is held out


@dataclasses.dataclass(frozen=True)
class Data:
    """What a model is looked at on: prompts of tasks, or rows of text.

    Attributes:
      tasks: names from `tasks.NAMES`; or
      text: a text file, a directory of text files, or a Hugging Face dataset id.
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
      model: with a tokenizer.
      data: what to draw.
      held_out: other rows of the text, every tenth, which are never among the first; of tasks,
        prompts drawn with another key, which may repeat some where a family has few.

    Returns:
      Batches, and `prune.answer` for prompts or `prune.next_token` for text.

    Raises:
      ValueError: without a tokenizer, or unless exactly one of tasks and text is given.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> found, loss = batches(load("builtin:student"), Data(tasks=("ioi",), count=20))
      >>> [len(batch) for batch in found], loss.__name__
      ([16, 4], 'answer')
    """
    if model.tokenizer is None:
        raise check.fail("model", "one with a tokenizer", "none in its directory")
    if bool(data.tasks) == (data.text is not None):
        raise check.fail("data", "either tasks or text", "both or neither")
    check.integer("data.batch", data.batch, 1)
    key = jax.random.fold_in(jax.random.key(data.seed), int(held_out))
    if data.text is None:
        keys = jax.random.split(key, len(data.tasks))
        context = model.config.context
        drawn: list[Any] = [
            tasks.get(name, model.tokenizer, data.count, k, context=context)
            for name, k in zip(data.tasks, keys, strict=True)
        ]
        loss: Any = prune.answer
    else:
        rows = packed(data.text, model.tokenizer, min(data.context, model.config.context))
        tenth = np.arange(len(rows)) % _TENTH == _TENTH - 1
        places = np.flatnonzero(tenth if held_out else ~tenth)
        if not len(places):
            raise check.fail("data.text", f"at least {_TENTH} rows", len(rows))
        order = np.asarray(jax.random.permutation(key, len(places)))
        chosen = np.asarray(rows[np.sort(places[order[: check.integer("count", data.count, 1)]])])
        drawn, loss = [prune.Text(chosen, np.ones_like(chosen))], prune.next_token
    cut = [
        jax.tree.map(lambda leaf, i=i: leaf[i : i + data.batch], one)
        for one in drawn
        for i in range(0, len(one.tokens), data.batch)
    ]
    return cut, loss


def mean_loss(model: Model, found: Sequence[Any], loss: Any, gates: Gates | None = None) -> float:
    """Nats per answer, or per token, over batches.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> model = load("builtin:student")
      >>> found, loss = batches(model, Data(tasks=("months",), count=4))
      >>> mean_loss(model, found, loss) < 1
      True
    """
    total, count = 0.0, 0.0
    for batch in found:
        out = model.apply(
            model.params, batch.tokens, attention_mask=batch.attention_mask, gates=gates
        )
        nats = np.asarray(loss(out, batch))
        total += float(nats.sum())
        real = np.asarray(batch.attention_mask)
        count += len(nats) if nats.ndim == 1 else float((real[:, 1:] * real[:, :-1]).sum())
    return total / count
