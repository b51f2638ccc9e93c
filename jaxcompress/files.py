"""Files and folders that appear whole or not at all, and are never overwritten by accident."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check

__all__ = [
    "atomic_directory",
    "atomic_write",
    "fresh_directory",
    "plain",
    "read_npz",
    "refuse_existing",
    "refuse_nonempty",
    "write_bytes",
    "write_json",
    "write_text",
]

_OVERWRITE = "pass overwrite (--overwrite) to replace"


def refuse_nonempty(
    directory: str | Path, overwrite: bool = False, *, marker: str | tuple[str, ...] = ()
) -> Path:
    """Raises `ValueError` where writing a directory would fail or could destroy something.

    Args:
      directory: where something is about to be written; need not exist.
      overwrite: whether what is there may go.
      marker: a file, or several, by which an earlier result of ours is known. With it, `overwrite`
        lets only a directory go that holds them all: anything else was not written by us.

    Returns:
      The directory as a path.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> refuse_nonempty(folder) == folder
      True
      >>> _ = write_text(folder / "thesis.tex", "...")
      >>> refuse_nonempty(folder, overwrite=True, marker="run.json")
      Traceback (most recent call last):
      ...
      ValueError: ...: expected an earlier result with a run.json, got files such as thesis.tex. ...
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise check.fail(str(directory), "a directory", "a file")
    _try_to_write(directory)
    names = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    markers = _names(marker)
    if not names or (overwrite and set(markers) <= set(names)):
        return directory
    got = f"files such as {names[0]}"
    if overwrite:
        expected = f"an earlier result with a {' and a '.join(markers)}"
        hint = "choose another directory, or remove it yourself"
        raise check.fail(str(directory), expected, got, hint)
    raise check.fail(str(directory), "a new or empty directory", got, _OVERWRITE)


def refuse_existing(path: str | Path, overwrite: bool = False) -> Path:
    """Raises `ValueError` where writing a file would fail or could destroy something.

    Args:
      path: where a file is about to be written.
      overwrite: whether a file that is there may go.

    Returns:
      The path.

    Example:
      >>> import tempfile
      >>> path = write_text(Path(tempfile.mkdtemp()) / "effects.json", "{}")
      >>> refuse_existing(path, overwrite=True) == path
      True
    """
    path = Path(path)
    _try_to_write(path.parent)
    if path.is_dir():
        raise check.fail(str(path), "a file", "a directory")
    if path.exists() and not overwrite:
        raise check.fail(str(path), "a new file", "one that is there", _OVERWRITE)
    return path


def _names(marker: str | tuple[str, ...]) -> tuple[str, ...]:
    return (marker,) if isinstance(marker, str) else marker


def _try_to_write(directory: Path) -> None:
    """Raises if the directory cannot be made: before hours of work, not after them."""
    there = directory.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        # Tried out, since permissions do not say it: file systems may be read-only or no real ones.
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        expected = "a directory that can be written to"
        raise check.fail(str(directory), expected, f"{there}: {error.strerror}") from None


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; it is renamed to `path` if the body succeeds.

    On any exception, Ctrl-C too, the temporary file goes and what was at `path` stays. The
    temporary name keeps the suffix, from which writers such as matplotlib tell the format.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.txt"
      >>> with atomic_write(path) as temporary:
      ...     _ = temporary.write_text("whole")
      >>> path.read_text()
      'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, path.suffix)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Writes a file of bytes, whole or not at all, and returns its path.

    Example:
      >>> import tempfile
      >>> write_bytes(Path(tempfile.mkdtemp()) / "raw.bin", b"kept").read_bytes()
      b'kept'
    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Writes a UTF-8 text file, whole or not at all, and returns its path.

    Example:
      >>> import tempfile
      >>> write_text(Path(tempfile.mkdtemp()) / "note.txt", "kept").read_text()
      'kept'
    """
    return write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> Path:
    r"""Writes `plain(value)` as JSON, whole or not at all, and returns its path.

    Example:
      >>> import tempfile
      >>> write_json(Path(tempfile.mkdtemp()) / "a.json", {"loss": np.nan}).read_text()
      '{\n "loss": null\n}\n'
    """
    return write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Arrays as lists; what is not a finite number as `None`, since JSON has no NaN.

    Example:
      >>> plain({"effects": np.array([0.5, np.inf]), "names": ("a",)})
      {'effects': [0.5, None], 'names': ['a']}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        value = np.asarray(value).tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def read_npz(path: str | Path, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an npz file; nothing is unpickled.

    Args:
      path: of the file.
      names: of the arrays that are wanted; all of them by default.

    Raises:
      ValueError: if there is no such file, it is damaged or holds objects, or lacks an array.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.npz"
      >>> np.savez(path, tokens=np.arange(3))
      >>> read_npz(path, ["tokens"])["tokens"].tolist()
      [0, 1, 2]
    """
    expected = f"an npz file of {', '.join(names) or 'arrays'}"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise check.fail(str(path), expected, f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def atomic_directory(
    directory: str | Path, overwrite: bool = False, *, marker: str | tuple[str, ...] = ()
) -> Iterator[Path]:
    """Yields a temporary directory that becomes `directory` if the body succeeds.

    Args:
      directory: must not hold anything, unless `overwrite`.
      overwrite: replace what is there, in one rename.
      marker: as in `refuse_nonempty`.

    Yields:
      The directory to write to.

    Raises:
      ValueError: if the directory is not empty and may not be replaced.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp()) / "model"
      >>> with atomic_directory(folder) as temporary:
      ...     _ = (temporary / "config.json").write_text("{}")
      >>> [path.name for path in folder.iterdir()]
      ['config.json']
    """
    directory = refuse_nonempty(directory, overwrite, marker=marker).resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _beside(directory), _beside(directory, ".old")
    temporary.mkdir()
    try:
        yield temporary
        if directory.exists():
            directory.replace(old)
        temporary.replace(directory)
    finally:
        # Interrupted between the two renames: what was there comes back.
        if old.exists() and not directory.exists():
            old.replace(directory)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def fresh_directory(
    directory: str | Path, overwrite: bool = False, *, marker: str | tuple[str, ...] = ()
) -> Path:
    """An empty directory: made if missing, emptied where `refuse_nonempty` allows it.

    Example:
      >>> import tempfile
      >>> folder = fresh_directory(Path(tempfile.mkdtemp()) / "runs" / "first")
      >>> list(folder.iterdir())
      []
    """
    directory = refuse_nonempty(directory, overwrite, marker=marker)
    directory.mkdir(parents=True, exist_ok=True)
    # The marker goes last: a removal that was interrupted can be taken up again.
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name in _names(marker)):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return directory


def _beside(path: Path, suffix: str = "") -> Path:
    """A new name in the same folder, so that a rename suffices.

    Not `tempfile`: what it makes only its owner can read, and the mode would stay.
    """
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{suffix}")
