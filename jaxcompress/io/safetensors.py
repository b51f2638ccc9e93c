"""Tensors in safetensors files: one file or shards, read one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxcompress import check
from jaxcompress.files import atomic_write

__all__ = ["Archive", "parameter", "write"]

_CONVERT = (
    "convert it where PyTorch is installed: "
    "AutoModel.from_pretrained(directory).save_pretrained(directory), which writes safetensors"
)


class Archive:
    """The tensors of a checkpoint directory by name; nothing is read before it is asked for.

    Args:
      directory: holds `model.safetensors`, or `model.safetensors.index.json` and its shards.

    Raises:
      ValueError: if a file is missing, truncated or corrupted, or only a pickle is there.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._files: dict[str, Any] = {}
        self._where: dict[str, str] = {}
        for file, expected in self._listing().items():
            names = set(self._open(file).keys())
            for name in names if expected is None else expected:
                if name not in names:
                    raise check.fail(
                        str(self.directory / file), f"tensor {name!r}", "no such tensor"
                    )
                self._where[name] = file

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return sorted(self._where)

    def __getitem__(self, name: str) -> np.ndarray:
        file = self._where[name]
        try:
            return self._files[file].get_tensor(name)
        except SafetensorError as error:
            raise check.fail(str(self.directory / file), f"a readable {name!r}", error) from None

    def _listing(self) -> dict[str, set[str] | None]:
        """Files to read, with the names expected in each (`None`: whatever is in it)."""
        index = self.directory / "model.safetensors.index.json"
        if (self.directory / "model.safetensors").exists():
            return {"model.safetensors": None}
        if not index.exists():
            pickles = sorted(p.name for p in self.directory.glob("*.bin"))
            pickled = pickles[0] if pickles else "a pytorch_model.bin, if there is one,"
            hint = f"{pickled} is a pickle, which can run code; {_CONVERT}"
            raise check.fail(str(self.directory), "model.safetensors", "no such file", hint)
        try:
            weights = json.loads(index.read_text())["weight_map"]
            items = list(weights.items())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise check.fail(str(index), "JSON with a weight_map", error) from None
        shards: dict[str, set[str] | None] = {}
        for name, file in items:
            if not isinstance(file, str) or Path(file).name != file:
                raise check.fail(str(index), "shards in the same directory", repr(file))
            names = shards.setdefault(file, set())
            assert names is not None
            names.add(name)
        return shards

    def _open(self, file: str) -> Any:
        path = self.directory / file
        if not path.is_file():
            raise check.fail(str(path), "a shard of the checkpoint", "no such file")
        try:
            self._files[file] = safe_open(path, framework="np")
        except (SafetensorError, OSError) as error:
            raise check.fail(str(path), "a whole safetensors file", error) from None
        return self._files[file]


def parameter(name: str, tensor: np.ndarray) -> np.ndarray:
    """Returns a tensor of finite floating-point numbers; raises `ValueError` for any other.

    Example:
      >>> parameter("w", np.ones(2, np.int8))
      Traceback (most recent call last):
      ...
      ValueError: w: expected floating-point numbers, got int8
    """
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise check.fail(name, "floating-point numbers", tensor.dtype)
    check.finite(name, tensor)
    return tensor


def write(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one safetensors file, whole or not at all.

    Args:
      path: of the file.
      tensors: by name; the mapping is not changed.

    Raises:
      ValueError: if the file cannot be written or the disk is full.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> write(folder / "model.safetensors", {"w": np.ones(2, np.float32)})
      >>> Archive(folder)["w"].tolist()
      [1.0, 1.0]
    """
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode  # of a file made here: the library's is for its owner
            save_file(whole, temporary, metadata={"format": "pt"})
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in whole.values())
        expected = f"a file that can be written, with room for {size / 1e6:.1f} MB"
        raise check.fail(str(path), expected, error) from None
