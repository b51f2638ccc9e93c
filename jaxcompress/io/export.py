"""Models out: directories for stock transformers where it knows the shape, else our own."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcompress import check
from jaxcompress.files import atomic_directory
from jaxcompress.io import hf_config, native, provenance, safetensors
from jaxcompress.io.huggingface import GENERATION, TOKEN_IDS, pack
from jaxcompress.models.build import Model
from jaxcompress.models.config import ModelConfig
from jaxcompress.prune.shrink import pad

__all__ = ["MARKER", "Form", "padded", "save", "settled"]

Form = Literal["stock", "padded", "native"]

MARKER = ("config.json", "model.safetensors")
"""Files by which a directory is known that `save` wrote."""

_WIDEST = 8  # times as many heads as the largest layer has, before a padded shape is given up


def save(
    model: Model,
    directory: str | Path,
    *,
    form: Form = "stock",
    overwrite: bool = False,
    store: Callable[[np.ndarray], np.ndarray] = np.asarray,
    extra: Mapping[str, Any] | None = None,
    compression: Mapping[str, Any] | None = None,
) -> None:
    """Writes `config.json`, `model.safetensors`, the tokenizer and, if asked, `compression.json`.

    The ids of special tokens and `generation_config.json` are those of the model's source.

    * `stock`: what stock `transformers` loads; layers must have one size.
    * `padded`: likewise, uneven layers filled up with zeros first (`padded`): the same logits, and
      no faster than the widest layer.
    * `native`: any shape, as small as it is; `jaxcompress.load` reads it.

    Args:
      model: to write.
      directory: new or empty, unless `overwrite`; it appears whole or not at all.
      form: see above.
      overwrite: replace a model that is there.
      store: applied to every array, for example a cast to float16.
      extra: further keys of `config.json`, such as `bos_token_id`; not for `native`.
      compression: what was done to the model: the teacher's name, the recipe, `prune.kept`. Written
        to `compression.json` with the version of the library; others ignore that file.

    Raises:
      ValueError: if the directory is not empty, a stored array would hold NaN or infinity, `extra`
        says otherwise than the model, or stock transformers has no way to say what the model is,
        naming the constraint.

    Example:
      >>> import jax, tempfile
      >>> from jaxcompress.io import load
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> folder = Path(tempfile.mkdtemp()) / "model"
      >>> save(create(config, key=jax.random.key(0)), folder)
      >>> load(folder).config == config
      True
    """
    check.known("form", form, ("stock", "padded", "native"))
    if form == "native" and extra:
        raise check.fail("extra", "nothing for the native form", sorted(extra))
    model = padded(model) if form == "padded" else model
    with np.errstate(over="ignore"):  # what does not fit its type is refused instead
        raw, tensors = _packed(model, form == "native", store, extra or {})
    for name, array in tensors.items():
        check.finite(name, array)
    record = None
    if compression is not None:
        version = importlib.metadata.version("jaxcompress")
        record = _json({**compression, "jaxcompress": version})
    with atomic_directory(directory, overwrite, marker=MARKER) as temporary:
        (temporary / "config.json").write_text(_json(raw))
        safetensors.write(temporary / "model.safetensors", tensors)
        if record is not None:
            (temporary / provenance.FILE).write_text(record)
        if GENERATION in model.generation:
            (temporary / GENERATION).write_text(_json(model.generation[GENERATION]))
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(temporary)


def _packed(
    model: Model,
    ours: bool,
    store: Callable[[np.ndarray], np.ndarray],
    extra: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`config.json` and the arrays beside it."""
    if ours:
        raw, tensors = native.to_raw(model.config), native.tensors(model.params, store)
        return _token_ids(model) | raw, tensors
    raw = hf_config.to_hf(model.config, _token_ids(model) | dict(extra))
    tensors = pack(model.config, model.params, store)
    return raw | {"dtype": str(next(iter(tensors.values())).dtype)}, tensors


def _token_ids(model: Model) -> dict[str, Any]:
    """Those of the source, which may name several ends of a text, before those of the tokenizer."""
    found = {key: getattr(model.tokenizer, key, None) for key in TOKEN_IDS}
    known = {k: v for k, v in found.items() if v is not None and v < model.config.vocab}
    return known | dict(model.generation.get("config.json", {}))


def settled(config: ModelConfig, form: Form | None = None) -> Form:
    """The form that a model of this shape is written in: the one asked for, or the first that can.

    Asked before a model of a known shape is trained, so that it is not trained for nothing.

    Args:
      config: of the model.
      form: as for `save`; left out, `stock` where stock transformers can load it, else `native`.

    Raises:
      ValueError: as `save` would, for the form that is asked for.

    Example:
      >>> config = ModelConfig(family="research", layers=1, heads=1, kv_heads=1, head_dim=4,
      ...                      width=4, neurons=8, vocab=11, context=5)
      >>> settled(config)
      'native'
    """
    problem = _problem(config)
    if form is None:
        return "native" if problem else "stock"
    if form == "stock" and problem:
        raise problem
    if form == "padded":
        _padding(config)
    return form


def padded(model: Model) -> Model:
    """A model with layers of one size that stock transformers can load, by adding zeros.

    Raises:
      ValueError: if no number of heads gives such a shape, naming the constraint.

    Example:
      >>> from jaxcompress.io import load
      >>> model = load("builtin:teacher")
      >>> padded(model) is model
      True
    """
    shape = _padding(model.config)
    if shape is None:
        return model
    config, params = pad(model.config, model.params, **shape)
    return model.replace(config=config, params=params)


def _padding(config: ModelConfig) -> dict[str, int] | None:
    """The size that all layers are filled up to; `None` if stock transformers loads it as it is."""
    if _problem(config) is None:
        return None
    sizes = config.layer_sizes
    kv_heads = max(1, *(size.kv_heads for size in sizes))
    group = max(1, *(size.heads // max(size.kv_heads, 1) for size in sizes))
    neurons = max(1, *(size.neurons for size in sizes))
    for more in range(kv_heads, _WIDEST * kv_heads + 1):
        shape = {"heads": group * more, "kv_heads": more, "neurons": neurons}
        if _problem(dataclasses.replace(config, sizes=None, **shape)) is None:
            return shape
    even = {"heads": group * kv_heads, "kv_heads": kv_heads, "neurons": neurons}
    problem = _problem(dataclasses.replace(config, sizes=None, **even))
    raise check.fail("model", "a shape that zeros can fill up", problem, "form='native' writes it")


def _problem(config: ModelConfig) -> ValueError | None:
    """Why stock transformers cannot load a configuration; `None` if it can."""
    try:
        hf_config.to_hf(config)
    except ValueError as error:
        return error
    return None


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
