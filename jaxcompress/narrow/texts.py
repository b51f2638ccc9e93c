"""Rows of text whose tokens are to be explained: of the built-in language, and from files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcompress import check
from jaxcompress.data import language

__all__ = ["Texts", "decoder", "determined", "stored"]


class Texts(NamedTuple):
    """Rows of text.

    Attributes:
      rows: (row, position) token ids.
      wanted: (row, position) bool, the tokens that may be chosen.
      families: of each row; "" where it is unknown.
    """

    rows: np.ndarray
    wanted: np.ndarray
    families: list[str]


def determined(
    tokenizer: Any, families: Sequence[str], count: int, key: Any, *, context: int = 48
) -> Texts:
    """Documents of the built-in language; the tokens that the text before them determines.

    Args:
      tokenizer: of the language.
      families: names from `data.language.SHARES`.
      count: documents drawn of each.
      key: typed.
      context: positions of a row; documents are filled up with token 0, longer ones cut.

    Example:
      >>> from jaxcompress.data.text import word_level
      >>> tokenizer = word_level(language.texts())
      >>> texts = determined(tokenizer, ["months"], 3, jax.random.key(0))
      >>> texts.rows.shape[1], set(texts.families)
      (48, {'months'})
    """
    keys = jax.random.split(key, len(families))
    drawn = [
        (name, document)
        for name, one in zip(families, keys, strict=True)
        for document in language.documents(name, tokenizer, count, one)
    ]
    rows = np.zeros((len(drawn), context), np.int32)
    wanted = np.zeros(rows.shape, bool)
    for i, (_, document) in enumerate(drawn):
        ids = document.ids[:context]
        rows[i, : len(ids)] = ids
        wanted[i, [place for place in document.answers if place < context]] = True
    return Texts(rows, wanted, [name for name, _ in drawn])


def stored(path: str | Path, *, context: int = 64) -> Texts:
    """Rows of tokens from an .npz file: `tokens` (row, position), `lengths` (row,) if it has them.

    Args:
      path: the file.
      context: positions that are kept.

    Raises:
      ValueError: if there is no such file, or it has no rows of tokens.

    Example:
      >>> stored("no-such-file.npz")
      Traceback (most recent call last):
      ...
      ValueError: tokens: expected an .npz file with `tokens`, got 'no-such-file.npz'
    """
    expected = "an .npz file with `tokens`"
    if not Path(path).is_file():
        raise check.fail("tokens", expected, repr(str(path)))
    arrays = np.load(path)
    if "tokens" not in arrays or arrays["tokens"].ndim != 2:
        raise check.fail("tokens", expected + " (row, position)", sorted(arrays))
    rows = np.asarray(arrays["tokens"], np.int32)[:, : check.integer("context", context, 2)]
    ends = arrays["lengths"] if "lengths" in arrays else np.full(len(rows), rows.shape[1])
    wanted = np.arange(rows.shape[1])[None] < ends[:, None]
    return Texts(rows, wanted, [""] * len(rows))


def decoder(tokenizer: Any = None, pieces: Sequence[Any] | None = None) -> Callable[[Any], str]:
    """What turns token ids into text, with a space after it where tokens are words.

    Args:
      tokenizer: a Hugging Face tokenizer; or
      pieces: (text, score) by id; or neither, and ids are written as numbers.

    Example:
      >>> decoder(pieces=[("Once", 0.0), (" upon", 0.0)])([0, 1]), decoder()([7, 8])
      ('Once upon', '7 8 ')
    """

    def words(ids: Any) -> str:
        ids = np.asarray(ids).tolist()
        if pieces is not None:
            return "".join(str(pieces[i][0]) for i in ids)
        return (" ".join(map(str, ids)) if tokenizer is None else tokenizer.decode(ids)) + " "

    return words
