"""Text as rows of tokens: tokenised once, packed, cached as a file and mapped into memory."""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxcompress import check, files

__all__ = ["SUFFIXES", "packed", "packed_texts"]

SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".csv", ".json", ".py")
"""Files of a directory that are read as text; a file that is named itself may have any suffix."""

_BATCH = 256  # documents that are tokenised in one call


def packed(
    source: str | Path,
    tokenizer: Any,
    context: int,
    *,
    cache: str | Path | None = None,
    split: str = "train",
    column: str = "text",
) -> np.memmap:
    """Rows of `context` tokens from text; the second call with the same text only opens a file.

    Every document is followed by the end-of-text token, documents are put one after the other, and
    the long sequence is cut into rows; the tokens after the last whole row are dropped. The cache
    is found by what is in the documents and in the tokenizer, not by their names, so that neither
    can change unnoticed.

    Args:
      source: a text file (one document); a directory, whose files with one of `SUFFIXES`, at any
        depth and in the order of their paths, are the documents; or the id of a Hugging Face data
        set, which needs the package `datasets`.
      tokenizer: a Hugging Face tokenizer with an end-of-text token.
      context: tokens of a row.
      cache: folder for the files; by default `jaxcompress/packed` in `$XDG_CACHE_HOME` or
        `~/.cache`.
      split: of a data set.
      column: of a data set, which holds the text.

    Returns:
      (row, position) int32, mapped from the file, read-only.

    Raises:
      ValueError: if there is no such text, it is not UTF-8, it is shorter than a row, the tokenizer
        has no end-of-text token, or the cache cannot be written.

    Example:
      >>> import tempfile
      >>> from jaxcompress.data.text import word_level
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "a.txt").write_text("one two three")
      >>> rows = packed(folder / "a.txt", word_level(["one two three"]), 2, cache=folder)
      >>> rows.tolist()
      [[3, 5], [4, 2]]
    """
    documents, content = _documents(source, split, column)
    return _cached(documents, content, tokenizer, context, cache, str(source))


def packed_texts(
    texts: Sequence[str], tokenizer: Any, context: int, *, cache: str | Path | None = None
) -> np.memmap:
    """Rows of `context` tokens from documents that are in memory; otherwise as `packed`.

    Args:
      texts: the documents.
      tokenizer: a Hugging Face tokenizer with an end-of-text token.
      context: tokens of a row.
      cache: as in `packed`.

    Returns:
      (row, position) int32, mapped from the file, read-only.

    Raises:
      ValueError: if the texts are shorter than a row, and as `packed`.

    Example:
      >>> import tempfile
      >>> from jaxcompress.data.text import word_level
      >>> texts = ["one two three"]
      >>> packed_texts(texts, word_level(texts), 2, cache=tempfile.mkdtemp()).tolist()
      [[3, 5], [4, 2]]
    """
    content = hashlib.sha256()
    for text in texts:
        content.update(hashlib.sha256(text.encode()).digest())
    return _cached(texts, content.hexdigest(), tokenizer, context, cache, f"{len(texts)} texts")


def _cached(
    documents: Iterable[str],
    content: str,
    tokenizer: Any,
    context: int,
    cache: str | Path | None,
    source: str,
) -> np.memmap:
    """Rows of the documents, whose content has that hash."""
    check.integer("context", context, 1)
    ends = (getattr(tokenizer, name, None) for name in ("eos_token_id", "sep_token_id"))
    end = next((token for token in ends if token is not None), None)
    if end is None:
        raise check.fail("tokenizer", "one with an end-of-text or separator token", "neither")
    key = hashlib.sha256(f"{content} {_fingerprint(tokenizer)} {end} {context}".encode())
    path = _folder(cache) / f"{key.hexdigest()[:32]}.npy"
    if not path.exists():
        _write(path, _rows(documents, tokenizer, end, context), context, source)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        hint = "Delete the file; it will be made again"
        raise check.fail(str(path), "a file of packed rows", error, hint) from None


def _documents(source: str | Path, split: str, column: str) -> tuple[Iterable[str], str]:
    """The documents, and a hash of what is in them."""
    path = Path(source)
    if not path.exists():
        return _dataset(source, split, column)
    paths = [path]
    if path.is_dir():
        found = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        paths = sorted(file for file in found if file.is_file())
    if not paths:
        raise check.fail(str(path), f"text files ({', '.join(SUFFIXES)})", "none")
    content = hashlib.sha256()
    for file in paths:
        with file.open("rb") as opened:
            content.update(hashlib.file_digest(opened, "sha256").digest())
    return map(_text, paths), content.hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise check.fail(str(path), "UTF-8 text", f"{error.reason} at byte {error.start}") from None


def _dataset(source: str | Path, split: str, column: str) -> tuple[Iterable[str], str]:
    """A column of a Hugging Face data set; its own fingerprint stands for what is in it."""
    expected = "a text file, a directory, or the id of a data set"
    path = isinstance(source, Path) or source.startswith((".", "/", "~")) or source.count("/") > 1
    if path or Path(source).suffix.lower() in SUFFIXES:  # nothing to ask the hub for
        raise check.fail("source", expected, f"{str(source)!r}, which is not there")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        hint = f"{source!r} is no file here; for data sets pip install 'jaxcompress[datasets]'"
        raise check.fail("source", expected, "no package datasets", hint) from None
    try:
        dataset = datasets.load_dataset(source, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise check.fail("source", expected, f"{source!r}: {reason}") from None
    check.known("column", column, dataset.column_names)
    return (row[column] for row in dataset), f"{dataset._fingerprint} {column}"


def _fingerprint(tokenizer: Any) -> str:
    """A hash of what decides the tokens of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state: dict[str, Any] = {"type": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    else:
        state = json.loads(backend.to_str())
        for asked in ("truncation", "padding"):  # by an earlier call, not by this one
            state.pop(asked, None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _folder(cache: str | Path | None) -> Path:
    if cache is not None:
        return Path(cache)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "jaxcompress" / "packed"


def _rows(documents: Iterable[str], tokenizer: Any, end: int, context: int) -> Iterator[np.ndarray]:
    """(row, position) blocks; what does not fill a row waits for the next block."""
    rest = np.zeros(0, np.int32)
    remaining = iter(documents)
    while batch := list(itertools.islice(remaining, _BATCH)):
        # `verbose` would warn that documents are longer than the model's context; rows are not.
        found = tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
        parts = [np.asarray([*ids, end], np.int32) for ids in found]
        tokens = np.concatenate([rest, *parts])
        whole = len(tokens) // context * context
        rest = tokens[whole:]
        yield tokens[:whole].reshape(-1, context)


def _write(path: Path, blocks: Iterator[np.ndarray], context: int, source: str) -> None:
    """An .npy file whose number of rows is known only when all of them are written."""
    try:
        with files.atomic_write(path) as temporary, temporary.open("wb") as file:
            count = 0
            _header(file, count, context)
            for block in blocks:
                file.write(block.tobytes())
                count += len(block)
            if not count:
                expected, got = f"at least {context} tokens, a row", f"fewer in {source}"
                raise check.fail("source", expected, got)
            _header(file, count, context)
    except OSError as error:
        raise check.fail(str(path.parent), "a folder to write to", error.strerror) from None


def _header(file: BinaryIO, count: int, context: int) -> None:
    """Written twice: NumPy leaves room in it for the first axis to grow."""
    header = io.BytesIO()
    described = {"descr": "<i4", "fortran_order": False, "shape": (count, context)}
    np.lib.format.write_array_header_1_0(header, described)
    file.seek(0)
    file.write(header.getvalue())
    file.seek(0, os.SEEK_END)
