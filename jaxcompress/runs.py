"""Run folders: what was asked, with which versions on which device, and what came out."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcompress import check, files, xla
from jaxcompress import config as configs

__all__ = ["Run", "environment", "forget", "log", "remember", "rows", "start"]

PACKAGES = ("jaxcompress", "jax", "jaxlib", "flax", "numpy")
MARKER, CONFIG, METRICS = "run.json", "config.yaml", "metrics.jsonl"
LAST = "report.html"  # what a run writes at its end: one without it was interrupted


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
      directory: holds config.yaml (as resolved), run.json (seed and environment) and metrics.jsonl.
      seed: the one number from which all randomness of the run is drawn.
      known: rows of the interrupted run that this one continues.
    """

    directory: Path
    seed: int
    known: tuple[dict[str, Any], ...] = ()


def start(
    out: str | Path,
    config: Any,
    seed: int,
    *,
    overwrite: bool = False,
    resume: bool = False,
    started: str | None = None,
) -> Run:
    """Makes a run folder and records what is about to be run, on a CPU with `xla.set_flags`.

    Args:
      out: the folder; one that is not empty is refused.
      config: a config dataclass; its values are written, defaults too, so that the file alone is
        enough to run it again.
      seed: the seed of the run.
      overwrite: whether an earlier run in `out` may go; anything that is not a run never does.
      resume: whether an earlier run in `out` is continued if it was interrupted and had the same
        config, seed, sources, versions, device and flags of XLA.
      started: when, as of `environment`, if it was before this call.

    Returns:
      The run, to be handed to `log` or `remember`.

    Raises:
      ValueError: for a folder that may not be replaced, and as `rows`.

    Example:
      >>> import tempfile
      >>> @dataclasses.dataclass(frozen=True)
      ... class Train:
      ...     steps: int = 100
      >>> run = start(tempfile.mkdtemp(), Train(), seed=0)
      >>> sorted(path.name for path in run.directory.iterdir())
      ['config.yaml', 'run.json']
    """
    xla.set_flags()  # before `environment` asks for the devices
    values = configs.to_yaml(config)
    record = {"seed": int(seed)} | environment() | ({"started": started} if started else {})
    known = _interrupted(Path(out), values, record) if resume else None
    fresh = known is None
    directory = files.fresh_directory(out, overwrite, marker=MARKER) if fresh else Path(out)
    # The marker first: from here on the folder is known as a run, and may be overwritten as one.
    files.write_text(directory / MARKER, json.dumps(record, indent=2) + "\n")
    files.write_text(directory / CONFIG, values)
    if known is not None:  # without what was being written when the run was killed
        files.write_text(directory / METRICS, "".join(f"{_line(row)}\n" for row in known))
    return Run(directory, int(seed), known or ())


def remember(
    run: Run, about: dict[str, Any], measure: Callable[..., dict[str, Any]], *args: Any
) -> dict[str, Any]:
    """The row `about | measure(*args)`, logged at once; not measured again where it is known.

    What makes a long experiment survive its interruption: `start(..., resume=True)` knows the rows
    that were logged, and the rows of both runs together are those of one that was not interrupted.

    Args:
      run: of `start`.
      about: which row it is; no two rows of a run agree in all of it.
      measure: what takes long.
      *args: its arguments.

    Returns:
      The row in plain numbers, text and lists, as it is logged.

    Example:
      >>> import tempfile
      >>> run = Run(Path(tempfile.mkdtemp()), seed=0, known=({"width": 8, "loss": 0.5},))
      >>> [remember(run, {"width": width}, lambda x: {"loss": 1 / x}, width) for width in (8, 4)]
      [{'width': 8, 'loss': 0.5}, {'width': 4, 'loss': 0.25}]
    """
    about = json.loads(_line(about))
    for row in run.known:
        if about.items() <= row.items():
            return row
    row = json.loads(_line(about | measure(*args)))
    log(run, **row)
    return row


def log(run: Run, **row: Any) -> None:
    """Appends one row of metrics; arrays and scalars of JAX and NumPy become plain numbers.

    Example:
      >>> import tempfile
      >>> run = Run(Path(tempfile.mkdtemp()), seed=0)
      >>> log(run, step=1, loss=np.float32(0.5))
      >>> rows(run.directory)
      [{'step': 1, 'loss': 0.5}]
    """
    with (run.directory / METRICS).open("a", encoding="utf-8") as file:
        file.write(_line(row) + "\n")


def forget(run: Run, known: Callable[[dict[str, Any]], bool]) -> None:
    """Takes rows of metrics back, such as those that a resumed training will log again.

    Args:
      run: of `start`.
      known: which rows.

    Example:
      >>> import tempfile
      >>> run = Run(Path(tempfile.mkdtemp()), seed=0)
      >>> for step in (1, 2):
      ...     log(run, step=step)
      >>> forget(run, lambda row: row["step"] > 1)
      >>> rows(run.directory)
      [{'step': 1}]
    """
    found = rows(run.directory)
    left = [row for row in found if not known(row)]
    if len(left) < len(found):
        files.write_text(run.directory / METRICS, "".join(f"{_line(row)}\n" for row in left))


def rows(directory: str | Path) -> list[dict[str, Any]]:
    """The rows that were logged in a run folder, in order; none if nothing was.

    What stands after the last end of line was being written when the run was killed: it is no row.

    Raises:
      ValueError: for any other line that is no row, by file and number.

    Example:
      >>> rows("no-such-folder")
      []
    """
    path = Path(directory) / METRICS
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    return [_row(f"{path}:{i}", line) for i, line in enumerate(whole.splitlines(), start=1)]


def environment() -> dict[str, Any]:
    """Versions, device, flags of XLA, source revision, time and command line, as plain values.

    Example:
      >>> sorted(environment())
      ['command', 'device', 'git', 'platform', 'python', 'sources', 'started', 'versions', 'xla']
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
        "xla": os.environ.get("XLA_FLAGS", ""),
        "git": _git_revision(Path(__file__)),
        "sources": _sources(),
    }


def _interrupted(
    directory: Path, values: str, record: dict[str, Any]
) -> tuple[dict[str, Any], ...] | None:
    """The rows of the run in a folder, if it did not end and was the same run in all else."""
    same = ("seed", "python", "platform", "versions", "device", "xla", "sources")
    try:
        earlier = json.loads((directory / MARKER).read_text(encoding="utf-8"))
        if (directory / LAST).exists() or any(earlier.get(k) != record[k] for k in same):
            return None
        if (directory / CONFIG).read_text(encoding="utf-8") != values:
            return None
    except (OSError, ValueError):
        return None
    return tuple(rows(directory))


def _row(place: str, line: str) -> dict[str, Any]:
    try:
        if isinstance(row := json.loads(line), dict):
            return row
    except ValueError:
        pass
    raise check.fail(place, "a row of metrics as JSON", repr(line[:40]))


def _sources() -> str:
    """SHA-256 of the package and of the script that runs."""
    script, package = Path(sys.argv[0]), Path(__file__).parent
    content = hashlib.sha256()
    for path in [*sorted(package.rglob("*.py")), *[script] * (script.suffix == ".py")]:
        content.update(path.read_bytes() if path.is_file() else b"")
    return content.hexdigest()[:16]


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


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return np.asarray(value).tolist()
    if isinstance(value, Path):
        return str(value)
    raise check.fail("row", "numbers, text, arrays or lists of them", type(value).__name__)
