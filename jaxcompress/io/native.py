"""Our own directory, for shapes that stock transformers has no configuration for.

`config.json` holds `{"model_type": "jaxcompress", "config": {...}}` with the fields of
`ModelConfig`, `model.safetensors` the arrays under their slash paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcompress import check, tree
from jaxcompress import config as configs
from jaxcompress.io.safetensors import Archive, parameter
from jaxcompress.models.config import ModelConfig

__all__ = ["MODEL_TYPE", "from_raw", "read", "tensors", "to_raw"]

MODEL_TYPE = "jaxcompress"


def to_raw(config: ModelConfig) -> dict[str, Any]:
    """The contents of `config.json`.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> from_raw(to_raw(config)) == config
      True
    """
    return {"model_type": MODEL_TYPE, "config": configs.to_dict(config)}


def from_raw(raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """The inverse of `to_raw`.

    Raises:
      ValueError: for a field that is missing, unknown or of the wrong type.

    Example:
      >>> from_raw({"model_type": MODEL_TYPE})
      Traceback (most recent call last):
      ...
      ValueError: config.json: config: expected the fields of a ModelConfig, got None
    """
    if not isinstance(raw.get("config"), dict):
        raise check.fail(f"{where}: config", "the fields of a ModelConfig", repr(raw.get("config")))
    return configs.from_dict(ModelConfig, raw["config"])


def tensors(params: Any, store: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays to write, by slash path.

    Example:
      >>> tensors({"a": {"b": jnp.ones(2)}}, np.asarray)
      {'a/b': array([1., 1.], dtype=float32)}
    """
    return {path: store(np.asarray(leaf)) for path, leaf in tree.paths(params).items()}


def read(config: ModelConfig, archive: Archive) -> dict[str, Any]:
    """The parameters in an archive; `models.create` checks that they fit.

    Raises:
      ValueError: for NaN in them, and for integers.

    Example:
      >>> import tempfile
      >>> from jaxcompress.io.safetensors import write
      >>> folder = tempfile.mkdtemp()
      >>> write(f"{folder}/model.safetensors", {"embed/tokens": np.ones((2, 3), np.float32)})
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> read(config, Archive(folder))["embed"]["tokens"].shape
      (2, 3)
    """
    flat = {}
    for name in archive.names:
        flat[name] = jnp.asarray(parameter(name, archive[name]), dtype=config.dtype)
    return tree.nest(flat)
