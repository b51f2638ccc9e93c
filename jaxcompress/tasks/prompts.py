"""What a task hands to a measurement: pairs of clean and corrupted prompts with their answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["Prompts", "alike", "others", "padded_right"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompts:
    """A batch of prompts, each with a corrupted twin of the same length and its answers.

    Attributes:
      tokens: (batch, position) int32, the clean prompts, padded.
      corrupted: (batch, position) int32, the same prompts with the deciding facts changed; token by
        token aligned with `tokens`.
      attention_mask: (batch, position) int32, 1 on real tokens of both versions, 0 on padding.
      answer_position: (batch,) int32, where the answer is predicted (the last prompt token of a
        causal model, the mask token of a masked one).
      correct: (batch, answer) int32, right answer tokens, padded with -1 where a row has fewer.
      wrong: (batch, answer) int32, wrong answer tokens, likewise.
    """

    tokens: Any
    corrupted: Any
    attention_mask: Any
    answer_position: Any
    correct: Any
    wrong: Any

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, rows: slice | Any) -> Prompts:
        """The prompts of some rows: a slice or an index array."""
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def validate(
        self, vocab: int | None = None, context: int | None = None, outputs: int | None = None
    ) -> Prompts:
        """Raises `ValueError` on anything a forward would silently accept; returns itself.

        Args:
          vocab: size of the model's vocabulary, if token ids are to be checked against it.
          context: longest prompt the model takes, in tokens.
          outputs: logits of the model, if these are not one for each token of its vocabulary.
        """
        if np.ndim(self.tokens) != 2:
            raise check.fail("prompts.tokens", "shape (batch, position)", np.shape(self.tokens))
        batch, length = np.shape(self.tokens)
        check.shape("prompts.corrupted", self.corrupted, [(batch, length)])
        check.shape("prompts.attention_mask", self.attention_mask, [(batch, length)])
        check.shape("prompts.answer_position", self.answer_position, [(batch,)])
        for name in ("correct", "wrong"):
            value = np.asarray(getattr(self, name))
            if value.ndim != 2 or value.shape[0] != batch:
                raise check.fail(f"prompts.{name}", f"shape ({batch}, answers)", value.shape)
            if (value.max(axis=1) < 0).any():
                raise check.fail(f"prompts.{name}", "an answer in every row", "a row of -1 only")
        if batch == 0:
            raise check.fail("prompts", "at least one prompt", "none")
        self._validate_values(vocab, context, outputs)
        return self

    def _validate_values(self, vocab: int | None, context: int | None, outputs: int | None) -> None:
        batch, length = self.tokens.shape
        if context is not None and length > context:
            raise check.fail("prompts.tokens", f"at most {context} positions", length)
        position = np.asarray(self.answer_position)
        if position.min() < 0 or position.max() >= length:
            raise check.fail("prompts.answer_position", f"in [0, {length})", position)
        mask = np.asarray(self.attention_mask)
        if not np.isin(mask, (0, 1)).all():
            raise check.fail("prompts.attention_mask", "1 on tokens, 0 on padding", np.unique(mask))
        if not mask[np.arange(batch), position].all():
            raise check.fail("prompts.answer_position", "a real token in every row", "padding")
        if vocab is None:
            return
        for name in ("tokens", "corrupted", "correct", "wrong"):
            value, answers = np.asarray(getattr(self, name)), name in ("correct", "wrong")
            limit = (outputs or vocab) if answers else vocab
            if value.max() >= limit or value.min() < (-1 if answers else 0):
                got = f"{value.min()}..{value.max()}"
                raise check.fail(f"prompts.{name}", f"token ids below {limit}", got)


def padded_right(prompts: Prompts) -> Prompts:
    """The same prompts with padding on the left moved to the right, so that column t is token t.

    What is averaged or listed by position then means the same, whatever side was padded.

    Args:
      prompts: not traced; with a mask.

    Returns:
      The prompts themselves where no row begins with padding.

    Example:
      >>> row, mask = np.array([[0, 5, 6]]), np.array([[0, 1, 1]])
      >>> found = padded_right(Prompts(row, row, mask, row[:, 0] + 2, row[:, 1:], row[:, 1:]))
      >>> found.tokens.tolist(), found.attention_mask.tolist(), found.answer_position.tolist()
      ([[5, 6, 0]], [[1, 1, 0]], [1])
    """
    ahead = np.asarray(prompts.attention_mask).argmax(axis=1)
    if not ahead.any():
        return prompts
    length = prompts.tokens.shape[1]
    columns = (np.arange(length)[None] + ahead[:, None]) % length
    moved = {
        name: np.take_along_axis(np.asarray(getattr(prompts, name)), columns, axis=1)
        for name in ("tokens", "corrupted", "attention_mask")
    }
    position = (prompts.answer_position - ahead).astype(prompts.answer_position.dtype)
    return dataclasses.replace(prompts, answer_position=position, **moved)


def others(count: int, rng: np.random.Generator) -> np.ndarray:
    """For each of some rows the number of another one, every row once: none is its own twin.

    Args:
      count: rows; a single one has no other and is its own.
      rng: draws in which order they follow each other, in one cycle.

    Example:
      >>> sorted(others(3, np.random.default_rng(0)).tolist())
      [0, 1, 2]
    """
    order = rng.permutation(count)
    found = np.empty_like(order)
    found[order] = np.roll(order, 1)
    return found


def alike(batches: Sequence[Prompts], context: int) -> list[Prompts]:
    """Pads batches to one length and number of answers: one compiled program for all of them.

    Padding changes no number, and compiling takes longer than anything else a small model does.

    Args:
      batches: of one model.
      context: longest input of the model, in tokens.

    Example:
      >>> def batch(length):
      ...     row = np.ones((1, length), np.int32)
      ...     return Prompts(row, row, row, row[:, 0], row[:, :1], row[:, :1])
      >>> [one.tokens.shape for one in alike([batch(3), batch(5)], 48)]
      [(1, 8), (1, 8)]
    """
    longest = max(batch.tokens.shape[1] for batch in batches)
    length = min(-(-longest // 8) * 8, max(context, longest))
    answers = max(side.shape[1] for batch in batches for side in (batch.correct, batch.wrong))

    def pad(array: Any, size: int, value: int) -> jax.Array:
        array = np.asarray(array)
        short = size - array.shape[1]
        return jnp.asarray(np.pad(array, ((0, 0), (0, short)), constant_values=value))

    return [
        Prompts(
            tokens=pad(batch.tokens, length, 0),
            corrupted=pad(batch.corrupted, length, 0),
            attention_mask=pad(batch.attention_mask, length, 0),
            answer_position=batch.answer_position,
            correct=pad(batch.correct, answers, -1),
            wrong=pad(batch.wrong, answers, -1),
        )
        for batch in batches
    ]
