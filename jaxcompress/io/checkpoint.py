"""Checkpoints of any pytree, by step, whole or not at all; the only place that knows orbax."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import uuid
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxcompress import check, files, tree

__all__ = ["fingerprint", "latest", "prepare", "restore", "save"]

_MANIFEST = "manifest.json"  # without it a checkpoint is not whole
_SAMPLED = 256  # rows of a memory-mapped array that its fingerprint looks at


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


def save(
    directory: str | Path,
    step: int,
    state: Any,
    *,
    keep: int = 2,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a pytree of arrays and typed keys to `directory/<step>`, whole or not at all.

    Args:
      directory: of the checkpoints of one run.
      step: its number; a checkpoint of that number is replaced, and anything else of that name is
        renamed, with a `UserWarning`.
      state: what to save.
      keep: how many are kept: this one and those before it. Later ones, which this run has not
        come to, go, and so does what an interrupted writer left; nothing that `save` did not write.
      about: what the run is known by, in values that JSON has; see `restore`.

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
    _make_way(directory / str(step))
    try:
        with files.atomic_directory(directory / str(step), overwrite=True) as temporary:
            ocp.save(str(temporary), jax.tree.map(_unless_empty, state), overwrite=True)
            found = {"files": _contents(temporary), "leaves": _kinds(state), "about": about or {}}
            (temporary / _MANIFEST).write_text(json.dumps(found, indent=1), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unwritable(directory, size, str(error).splitlines()[0]) from None
    earlier = sorted(other for other in _steps(directory) if other < step)
    kept = {step, *earlier[max(0, len(earlier) - keep + 1) :]}
    for other in set(_steps(directory)) - kept:
        if _is_ours(directory / str(other)):
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


def restore(
    directory: str | Path,
    like: Any,
    step: int | None = None,
    *,
    about: Mapping[str, Any] | None = None,
) -> Any:
    """Reads a checkpoint into the structure, shapes, types and shardings of another tree.

    Args:
      directory: of the checkpoints of one run.
      like: a tree such as was saved; its values do not matter.
      step: which one; the last whole one by default.
      about: what the run is known by; `None` reads a checkpoint of any run.

    Raises:
      ValueError: if there is no such checkpoint, it is damaged, it holds a tree of another
        structure or shape, or it is of a run that is not known by `about`.

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
    if about is not None:
        _same_run(path, about)
    # Orbax finds this half-way only, and leaves readers behind that complain when collected.
    there, asked = _manifest(path)["leaves"], _kinds(like)
    for name in sorted(there.keys() | asked.keys()):
        if there.get(name) != asked.get(name):
            got = f"{name}: {there.get(name, 'nothing')} for {asked.get(name, 'nothing')}"
            raise check.fail(str(path), "a checkpoint of this kind of state", got)
    try:
        saved = ocp.load(str(path), jax.tree.map(_abstract, like))
    except (ValueError, KeyError, TypeError) as error:  # a dict where a list was, and the like
        reason = str(error).strip().splitlines()[0]
        raise check.fail(str(path), "a checkpoint of this kind of state", reason) from None
    return jax.tree.map(_filled, like, saved)


def fingerprint(state: Any) -> str:
    """A short name for the values of a pytree, by which a run can be known.

    Of memory-mapped arrays, which may be larger than the memory, only some rows are looked at.

    Args:
      state: pytree of arrays and typed keys.

    Example:
      >>> fingerprint({"w": np.ones(2)}) == fingerprint({"w": np.ones(2)})
      True
      >>> fingerprint({"w": np.ones(2)}) == fingerprint({"w": np.zeros(2)})
      False
    """
    content = hashlib.sha256()
    for name, leaf in tree.paths(state).items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        content.update(f"{name} {leaf.dtype} {leaf.shape} ".encode())
        if isinstance(leaf, np.memmap) and leaf.ndim and len(leaf) > _SAMPLED:
            leaf = leaf[np.linspace(0, len(leaf) - 1, _SAMPLED).astype(int)]
        content.update(np.ascontiguousarray(leaf).tobytes())
    return content.hexdigest()[:16]


def _same_run(path: Path, about: Mapping[str, Any]) -> None:
    """Raises if a checkpoint is of another run: its result would pass for that of this one."""
    saved, asked = _manifest(path).get("about", {}), json.loads(json.dumps(about))
    other = [name for name in sorted(saved | asked) if saved.get(name) != asked.get(name)]
    if other:
        hint = "Choose another folder for checkpoints, or remove this one"
        got = f"one with another {', '.join(other)}"
        raise check.fail(str(path), "a checkpoint of this run", got, hint)


def _make_way(path: Path) -> None:
    """Renames what has the name of a checkpoint and is none of ours, or lost its manifest."""
    if path.exists() and not _is_ours(path):
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.kept")
        path.rename(aside)
        warnings.warn(f"{path}: not a whole checkpoint, renamed to {aside.name}", stacklevel=3)


def _is_ours(path: Path) -> bool:
    """Whether `save` wrote a directory, and it may go."""
    try:
        return bool(_manifest(path))
    except (OSError, ValueError):
        return False


def _steps(directory: Path) -> list[int]:
    # A checkpoint is renamed to its number when all of it is written.
    paths = directory.iterdir() if directory.is_dir() else ()
    return [int(path.name) for path in paths if re.fullmatch(r"0|[1-9]\d*", path.name, re.ASCII)]


def _unfinished(directory: Path) -> list[Path]:
    """The temporary folders of `files.atomic_directory`, and orbax's within it."""
    paths = directory.iterdir() if directory.is_dir() else ()
    name = re.compile(r"\.\d+\.[0-9a-f]{8}(\.old)?", re.ASCII)
    return sorted(path for path in paths if name.fullmatch(path.name) and path.is_dir())


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
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else f"shape {leaf.shape}"
        for name, leaf in tree.paths(state).items()
    }


def _manifest(path: Path) -> dict[str, Any]:
    """Size and CRC-32 of every file, and the kind of every leaf."""
    found = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    entries = found if isinstance(found, dict) else {}
    if not all(isinstance(entries.get(name), dict) for name in ("files", "leaves")):
        raise check.fail(str(path / _MANIFEST), "an object of files and leaves", repr(found)[:80])
    return found


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, if anything is.

    Orbax finds most of this too, but late, in threads, with pages of messages.
    """
    try:
        expected = _manifest(path)["files"]
        contents = _contents(path)
    except (OSError, ValueError) as error:
        return f"its {_MANIFEST} cannot be read ({type(error).__name__})"
    changed = [name for name, content in expected.items() if contents.get(name) != content]
    return f"{changed[0]} is missing or changed" if changed else None


def _unless_empty(leaf: Any) -> Any:
    """The leaf, or `None`: Orbax refuses arrays without an element."""
    return leaf if math.prod(leaf.shape) else None


def _abstract(leaf: Any) -> Any:
    if not math.prod(leaf.shape):
        return None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _filled(leaf: Any, saved: Any) -> Any:
    """What was saved, or the array without an element that was left out."""
    if math.prod(leaf.shape):
        return saved
    return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)


def _unwritable(directory: Path, size: int, reason: str | None) -> ValueError:
    expected = f"a directory that can be written to, with room for {size / 1e6:.1f} MB"
    return check.fail(str(directory), expected, reason)
