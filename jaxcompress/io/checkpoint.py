"""Checkpoints of any pytree, by step; the only place that knows orbax."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from jaxcompress import check

__all__ = ["latest", "restore", "save"]


def save(directory: str | Path, step: int, tree: Any, *, keep: int = 2) -> None:
    """Writes a pytree of arrays and typed keys to `directory/<step>`, whole or not at all.

    Args:
      directory: of the checkpoints of one run.
      step: its number; a checkpoint of that number is replaced.
      tree: what to save.
      keep: older checkpoints go, until so many are left.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> save(folder, 10, {"w": jax.numpy.ones(2)})
      >>> latest(folder)
      10
    """
    check.integer("keep", keep, 1)
    directory = Path(directory).resolve()
    ocp.save(str(directory / str(check.integer("step", step, 0))), tree, overwrite=True)
    for old in sorted(_steps(directory))[:-keep]:
        shutil.rmtree(directory / str(old))


def latest(directory: str | Path) -> int | None:
    """The number of the last checkpoint in a directory; `None` if there is none.

    Example:
      >>> latest("no-such-folder") is None
      True
    """
    return max(_steps(Path(directory)), default=None)


def restore(directory: str | Path, like: Any, step: int | None = None) -> Any:
    """Reads a checkpoint into the structure, shapes and types of another tree.

    Args:
      directory: of the checkpoints of one run.
      like: a tree such as was saved; its values do not matter.
      step: which one; the last one by default.

    Raises:
      ValueError: if there is no such checkpoint, or it holds a tree of another structure or shape.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> save(folder, 10, {"w": jax.numpy.ones(2)})
      >>> restore(folder, {"w": jax.numpy.zeros(2)})["w"].tolist()
      [1.0, 1.0]
    """
    directory = Path(directory).resolve()
    found = sorted(_steps(directory))
    step = found[-1] if step is None and found else step
    if step not in found:
        raise check.fail(str(directory), f"a checkpoint {step}", f"{found or 'none'}")
    path = directory / str(step)
    try:
        return ocp.load(str(path), jax.tree.map(_abstract, like))
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise check.fail(str(path), "a checkpoint of this kind of state", reason) from None


def _steps(directory: Path) -> list[int]:
    # Orbax renames a checkpoint to its final name when all of it is written.
    names = (path.name for path in directory.iterdir()) if directory.is_dir() else ()
    return [int(name) for name in names if name.isdecimal()]


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
