"""Where a compressed model comes from: the `compression.json` beside it, read and carried on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxcompress import check

__all__ = ["FILE", "carried", "composed", "record_of"]

FILE = "compression.json"

_INDEXED = ("layers", "heads", "neurons", "width")


def record_of(directory: str | Path) -> dict[str, Any] | None:
    """What `save` wrote about how a model was compressed; `None` if nothing is there.

    Args:
      directory: of the model.

    Raises:
      ValueError: if the file is no JSON object.

    Example:
      >>> record_of("no-such-folder") is None
      True
    """
    path = Path(directory) / FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise check.fail(str(path), "JSON", error) from None
    if not isinstance(record, dict):
        raise check.fail(str(path), "a JSON object", type(record).__name__)
    return record


def carried(
    source: str, record: Mapping[str, Any] | None, kept: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the record of a model says of the one it was made from: `whole`, `kept` and `earlier`.

    Args:
      source: name of the model it was made from.
      record: of that model.
      kept: of `prune.kept`, if components were cut out: indices in that model.

    Returns:
      `kept`: indices in the model `whole`, the first that anything was cut out of, if anything was;
      `earlier`: the record of `source`, if it has one.

    Example:
      >>> carried("builtin:student", None, {"layers": [1]})
      {'whole': 'builtin:student', 'kept': {'layers': [1]}}
      >>> carried("builtin:student", None)
      {}
    """
    if record is None:
        return {} if kept is None else {"whole": source, "kept": dict(kept)}
    whole, before = record.get("whole", source), record.get("kept")
    if kept is not None:
        before = kept if before is None else composed(before, kept)
    found = {} if before is None else {"whole": whole, "kept": dict(before)}
    return found | {"earlier": dict(record)}


def composed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Indices in the whole model of what two prunings one after the other leave.

    Args:
      first: of `prune.kept`, in the whole model.
      second: of `prune.kept`, in the model that the first left.

    Example:
      >>> first = {"layers": [0, 2], "heads": [[1], [0, 3]], "neurons": [[], [5]], "width": [0, 2]}
      >>> second = {"layers": [1], "heads": [[1]], "neurons": [[0]], "width": [1]}
      >>> composed(first, second)
      {'layers': [2], 'heads': [[3]], 'neurons': [[5]], 'width': [2]}
    """
    found = {name: [first[name][i] for i in second[name]] for name in ("layers", "width")}
    for name in ("heads", "neurons"):
        found[name] = [
            [first[name][layer][i] for i in places]
            for layer, places in zip(second["layers"], second[name], strict=True)
        ]
    return {name: found[name] for name in _INDEXED}
