"""Checkpoints of any pytree, by step, whole or not at all; the only place that knows orbax."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from jaxcompress import check, files, tree

__all__ = ["latest", "prepare", "restore", "save"]

_MANIFEST = "manifest.json"  # without it a checkpoint is not whole


def prepare(directory: str | Path, size: int = 0) -> Path:
    """Makes a directory for checkpoints; asks first what would otherwise fail after hours.

    Args:
      directory: of the checkpoints of one run.
      size: bytes that there must be room for.

    Returns:
      The directory as an absolute path.

    Raises:
      ValueError: if it cannot be made or written to, or has too little room.

    Example:
      >>> prepare(tempfile.mkdtemp(), 1000).is_dir()
      True
    """
    directory = Path(directory).resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise _unwritable(directory, size, error.strerror) from None
    return directory


def save(directory: str | Path, step: int, state: Any, *, keep: int = 2) -> None:
    """Writes a pytree of arrays and typed keys to `directory/<step>`, whole or not at all.

    Args:
      directory: of the checkpoints of one run.
      step: its number; a checkpoint of that number is replaced.
      state: what to save.
      keep: how many are kept: this one and those before it. Later ones, which this run has not
        come to, go, and so does what an interrupted writer left.

    Raises:
      ValueError: if the directory cannot be written to or the disk is full.

    Example:
      >>> folder = tempfile.mkdtemp()
      >>> save(folder, 10, {"w": jax.numpy.ones(2)})
      >>> latest(folder)
      10
    """
    check.integer("keep", keep, 1)
    check.integer("step", step, 0)
    size = tree.nbytes(state)
    # Orbax writes from threads that wait for minutes where a folder cannot be made: ask before.
    directory = prepare(directory, size)
    for left in _unfinished(directory):
        shutil.rmtree(left)
    try:
        with files.atomic_directory(directory / str(step), overwrite=True) as temporary:
            ocp.save(str(temporary), state, overwrite=True)
            found = {"files": _contents(temporary), "leaves": _kinds(state)}
            (temporary / _MANIFEST).write_text(json.dumps(found, indent=1), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unwritable(directory, size, str(error).splitlines()[0]) from None
    earlier = sorted(other for other in _steps(directory) if other < step)
    kept = {step, *earlier[max(0, len(earlier) - keep + 1) :]}
    for other in set(_steps(directory)) - kept:
        shutil.rmtree(directory / str(other))


def latest(directory: str | Path) -> int | None:
    """The number of the last whole checkpoint in a directory; `None` if there is none.

    What is not whole, because its writer was killed or the disk failed, is passed over with a
    `UserWarning`.

    Example:
      >>> latest("no-such-folder") is None
      True
    """
    directory = Path(directory)
    for left in _unfinished(directory):
        warnings.warn(f"{left}: half-written checkpoint ignored", stacklevel=2)
    for step in sorted(_steps(directory), reverse=True):
        problem = _damage(directory / str(step))
        if problem is None:
            return step
        message = f"{directory / str(step)}: damaged checkpoint ignored, {problem}"
        warnings.warn(message, stacklevel=2)
    return None


def restore(directory: str | Path, like: Any, step: int | None = None) -> Any:
    """Reads a checkpoint into the structure, shapes, types and shardings of another tree.

    Args:
      directory: of the checkpoints of one run.
      like: a tree such as was saved; its values do not matter.
      step: which one; the last whole one by default.

    Raises:
      ValueError: if there is no such checkpoint, it is damaged, or it holds a tree of another
        structure or shape.

    Example:
      >>> folder = tempfile.mkdtemp()
      >>> save(folder, 10, {"w": jax.numpy.ones(2)})
      >>> restore(folder, {"w": jax.numpy.zeros(2)})["w"].tolist()
      [1.0, 1.0]
    """
    directory = Path(directory).resolve()
    step = latest(directory) if step is None else step
    if step is None or step not in _steps(directory):
        found = sorted(_steps(directory)) or "none"
        which = "a whole checkpoint" if step is None else f"a checkpoint {step}"
        raise check.fail(str(directory), which, found)
    path = directory / str(step)
    problem = _damage(path)
    if problem is not None:
        raise check.fail(str(path), "a whole checkpoint", problem)
    # Orbax finds this half-way only, and leaves readers behind that complain when collected.
    there, asked = _manifest(path)["leaves"], _kinds(like)
    for name in sorted(there.keys() | asked.keys()):
        if there.get(name) != asked.get(name):
            got = f"{name}: {there.get(name, 'nothing')} for {asked.get(name, 'nothing')}"
            raise check.fail(str(path), "a checkpoint of this kind of state", got)
    try:
        return ocp.load(str(path), jax.tree.map(_abstract, like))
    except (ValueError, KeyError, TypeError) as error:  # a dict where a list was, and the like
        reason = str(error).strip().splitlines()[0]
        raise check.fail(str(path), "a checkpoint of this kind of state", reason) from None


def _steps(directory: Path) -> list[int]:
    # A checkpoint is renamed to its number when all of it is written.
    names = (path.name for path in directory.iterdir()) if directory.is_dir() else ()
    return [int(name) for name in names if name.isdecimal()]


def _unfinished(directory: Path) -> list[Path]:
    """The temporary folders of `files.atomic_directory`, and orbax's within it."""
    paths = directory.glob(".[0-9]*.*") if directory.is_dir() else ()
    return sorted(path for path in paths if path.is_dir())


def _contents(path: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file of a checkpoint but the manifest."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file != path / _MANIFEST:
            content = file.read_bytes()
            found[file.relative_to(path).as_posix()] = [len(content), zlib.crc32(content)]
    return found


def _kinds(state: Any) -> dict[str, str]:
    """The shape of every leaf, and the type of random keys; other types are converted."""
    return {
        name: f"{leaf.dtype} {leaf.shape}"
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else f"shape {leaf.shape}"
        for name, leaf in tree.paths(state).items()
    }


def _manifest(path: Path) -> dict[str, Any]:
    """Size and CRC-32 of every file, and the kind of every leaf."""
    return json.loads((path / _MANIFEST).read_text(encoding="utf-8"))


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, if anything is.

    Orbax finds most of this too, but late, in threads, with pages of messages.
    """
    try:
        expected = _manifest(path)["files"]
        contents = _contents(path)
    except (OSError, ValueError, KeyError) as error:
        return f"its {_MANIFEST} cannot be read ({type(error).__name__})"
    changed = [name for name, content in expected.items() if contents.get(name) != content]
    return f"{changed[0]} is missing or changed" if changed else None


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _unwritable(directory: Path, size: int, reason: str | None) -> ValueError:
    expected = f"a directory that can be written to, with room for {size / 1e6:.1f} MB"
    return check.fail(str(directory), expected, reason)
