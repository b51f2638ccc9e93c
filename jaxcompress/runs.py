"""Run folders: what was asked, with which versions on which device, and what came out."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check, files
from jaxcompress import config as configs

__all__ = ["Run", "environment", "log", "rows", "start"]

PACKAGES = ("jaxcompress", "jax", "jaxlib", "flax", "numpy")
MARKER = "run.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
      directory: holds config.yaml (as resolved), run.json (seed and environment) and metrics.jsonl.
      seed: the one number from which all randomness of the run is drawn.
    """

    directory: Path
    seed: int


def start(out: str | Path, config: Any, seed: int, *, overwrite: bool = False) -> Run:
    """Makes a run folder and records what is about to be run.

    Args:
      out: the folder; one that is not empty is refused.
      config: a config dataclass; its values are written, defaults too, so that the file alone is
        enough to run it again.
      seed: the seed of the run.
      overwrite: whether an earlier run in `out` may go; anything that is not a run never does.

    Returns:
      The run, to be handed to `log`.

    Example:
      >>> import tempfile
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     steps: int = 100
      >>> run = start(tempfile.mkdtemp(), Train(), seed=0)
      >>> sorted(path.name for path in run.directory.iterdir())
      ['config.yaml', 'run.json']
    """
    values = configs.to_yaml(config)
    directory = files.fresh_directory(out, overwrite, marker=MARKER)
    record = {"seed": int(seed)} | environment()
    # The marker first: from here on the folder is known as a run, and may be overwritten as one.
    files.write_text(directory / MARKER, json.dumps(record, indent=2) + "\n")
    files.write_text(directory / "config.yaml", values)
    return Run(directory, int(seed))


def log(run: Run, **row: Any) -> None:
    """Appends one row of metrics; arrays and scalars of JAX and NumPy become plain numbers.

    Example:
      >>> import tempfile
      >>> run = Run(Path(tempfile.mkdtemp()), seed=0)
      >>> log(run, step=1, loss=np.float32(0.5))
      >>> rows(run.directory)
      [{'step': 1, 'loss': 0.5}]
    """
    line = json.dumps(row, default=_plain) + "\n"
    with (run.directory / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)


def rows(directory: str | Path) -> list[dict[str, Any]]:
    """The rows that were logged in a run folder, in order; none if nothing was.

    Example:
      >>> rows("no-such-folder")
      []
    """
    path = Path(directory) / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def environment() -> dict[str, Any]:
    """Versions, device, source revision, time and command line, as plain values.

    Example:
      >>> sorted(environment())
      ['command', 'device', 'git', 'platform', 'python', 'started', 'versions']
    """
    devices = jax.devices()
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "git": _git_revision(Path(__file__)),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # A checkout that was never installed.


def _git_revision(source: Path) -> dict[str, Any] | None:
    """Commit and whether the tree differs from it; `None` unless git tracks the source file.

    Without that question, a package installed inside some other repository would report its commit.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return np.asarray(value).tolist()
    if isinstance(value, Path):
        return str(value)
    raise check.fail("row", "numbers, text, arrays or lists of them", type(value).__name__)
