"""Adapters in and out: directories of Hugging Face PEFT, without PyTorch."""

from __future__ import annotations

import importlib.metadata
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxcompress import check, tree
from jaxcompress.files import atomic_directory
from jaxcompress.io import hf_names, peft_config, peft_modules, provenance, safetensors
from jaxcompress.io.checkpoint import fingerprint
from jaxcompress.io.peft_modules import Edit
from jaxcompress.lora.adapters import Adapter
from jaxcompress.lora.several import combine
from jaxcompress.lora.variants import norms, scale
from jaxcompress.matrices import layout_of
from jaxcompress.models.build import Model

__all__ = ["MARKER", "load_adapter", "manifest", "save_adapter"]

MARKER = _CONFIG, _FILE = "adapter_config.json", "adapter_model.safetensors"
"""Files by which a directory is known that `save_adapter` wrote."""

_PREFIX = "base_model.model."
_ENDINGS = {"a": ".lora_A.weight", "b": ".lora_B.weight", "m": ".lora_magnitude_vector"}


def save_adapter(
    model: Model,
    adapter: Adapter,
    directory: str | Path,
    *,
    overwrite: bool = False,
    compression: Mapping[str, Any] | None = None,
) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`, which PEFT loads.

    The base may have a shape that stock transformers cannot load, such as layers of different
    sizes: then PEFT cannot either, and the adapter is for `load_adapter` and for merging.

    Beside them `compression.json`, which PEFT does not look at, says of which values the base was
    and what kind of adapter was trained.

    LoRA, rsLoRA and DoRA are written as such, PiSSA as the ordinary LoRA of twice the rank that
    has the same effect on the unchanged base. Modules are named in full, as PEFT would take
    `output.dense` of BERT for two. What was written is read back and compared with `manifest`.

    Args:
      model: the base; its name is recorded as `base_model_name_or_path`.
      adapter: for its parameters.
      directory: new or empty, unless `overwrite`; it appears whole or not at all.
      overwrite: replace an adapter that is there.
      compression: what else `compression.json` says, such as the recipe.

    Raises:
      ValueError: if the directory is not empty, the model's family has no names for its modules, or
        the adapter does not fit it, or edits what is no linear module of it.

    Example:
      >>> import tempfile
      >>> from jaxcompress import lora
      >>> from jaxcompress.io import load
      >>> model = load("builtin:teacher")
      >>> adapter = lora.init(model.params, ["*/up/*"], rank=2, alpha=4, key=jax.random.key(0))
      >>> folder = Path(tempfile.mkdtemp()) / "adapter"
      >>> save_adapter(model, adapter, folder)
      >>> load_adapter(model, folder).specs == adapter.specs
      True
    """
    expected = manifest(model, adapter)
    record = {**(compression or {}), "variants": sorted({spec.variant for spec in adapter.specs})}
    record |= {"base": _values(model.params)}
    record["jaxcompress"] = importlib.metadata.version("jaxcompress")
    if any(spec.variant == "pissa" for spec in adapter.specs):
        adapter = combine([adapter])
    flat = tree.paths(model.params)
    tensors, ranks, alphas = {}, {}, {}
    for slot in peft_modules.slots(model.config):
        edit = peft_modules.join(slot, peft_modules.base(slot, flat), adapter)
        if edit is None:
            continue
        for i, module in enumerate(peft_modules.names(slot, model.config)):
            ranks[module], alphas[module] = edit.a.shape[-1], edit.alpha
            for name, ending in _ENDINGS.items():
                stacked = getattr(edit, name)
                if stacked is not None:
                    tensors[_PREFIX + module + ending] = stacked[i].T
    variant = adapter.specs[0].variant
    raw = peft_config.write(ranks, alphas, variant, model.config, model.name)
    with atomic_directory(directory, overwrite, marker=MARKER) as temporary:
        (temporary / _CONFIG).write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")
        (temporary / provenance.FILE).write_text(
            json.dumps(record, indent=1, sort_keys=True) + "\n"
        )
        safetensors.write(temporary / _FILE, tensors)
        written = sorted(_read(temporary / _FILE))
        if written != expected:
            raise check.fail(str(directory), f"the tensors {expected}", written)


def manifest(model: Model, adapter: Adapter) -> list[str]:
    """The names of exactly the tensors that the PEFT directory of an adapter holds.

    PEFT only warns of tensors with other names, and goes on without the edit.

    Args:
      model: the base.
      adapter: for its parameters.

    Raises:
      ValueError: as `save_adapter`, but for the directory.

    Example:
      >>> from jaxcompress import lora
      >>> from jaxcompress.io import load
      >>> model = load("builtin:teacher")
      >>> adapter = lora.init(model.params, ["*/up/*"], rank=2, alpha=4, key=jax.random.key(0))
      >>> manifest(model, adapter)[0]
      'base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight'
    """
    jax.eval_shape(adapter.merged, model.params)  # refuses what does not fit
    slots = peft_modules.slots(model.config)
    known = {path for slot in slots for path in slot.paths}
    for spec in adapter.specs:
        if spec.path not in known or spec.layout != layout_of(spec.path):
            hint = check.nearest(spec.path, known)
            raise check.fail("adapter", "linear modules of the model", repr(spec.path), hint)
    paths = {spec.path for spec in adapter.specs}
    kinds = {spec.variant for spec in adapter.specs}
    if len(kinds) != 1:
        raise check.fail("adapter", "edits of one variant", sorted(kinds) or "no edit")
    endings = [end for name, end in _ENDINGS.items() if name != "m" or kinds == {"dora"}]
    return sorted(
        _PREFIX + module + ending
        for slot in slots
        if paths.intersection(slot.paths)
        for module in peft_modules.names(slot, model.config)
        for ending in endings
    )


def load_adapter(model: Model, directory: str | Path) -> Adapter:
    """Reads an adapter that PEFT or `save_adapter` wrote: LoRA, rsLoRA or DoRA.

    Every tensor is used or refused, and so is every option. A base of other values than those it
    was trained on, as far as the directory tells, gets a `UserWarning`. Layers that the file leaves
    out, and ranks that some layers lack, are filled up with zeros, which training leaves at zero.

    Args:
      model: the base it was made for.
      directory: with `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
      An adapter for `model.params`.

    Raises:
      ValueError: for a missing or broken file, an option that is not implemented, a tensor that is
        not of this model or has another shape.

    Example:
      >>> from jaxcompress.io import load
      >>> load_adapter(load("builtin:teacher"), "nowhere")
      Traceback (most recent call last):
      ...
      ValueError: nowhere/adapter_config.json: expected an adapter's configuration, got no such file
    """
    directory = Path(directory)
    options = peft_config.read(directory / _CONFIG)
    base = (provenance.record_of(directory) or {}).get("base")
    if base is not None and base != _values(model.params):
        message = (
            f"{directory}: trained on a base of other values than {model.name or 'this model'}"
        )
        warnings.warn(message, stacklevel=2)
    slots, flat = peft_modules.slots(model.config), tree.paths(model.params)
    modules = {slot: peft_modules.names(slot, model.config) for slot in slots}
    known = [module for group in modules.values() for module in group]
    found = _by_module(_read(directory / _FILE), known, options)
    leaves, specs = {}, []
    for slot, group in modules.items():
        if found.keys() & group:
            weights = peft_modules.base(slot, flat)
            edit = _stacked(group, found, weights, options)
            for spec, parts in peft_modules.part(slot, weights, edit, options.variant):
                leaves[spec.path] = parts
                specs.append(spec)
    return Adapter(leaves, tuple(specs))


def _values(params: Any) -> str:
    """What a base is known by, in whichever type it was loaded."""
    return fingerprint(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params))


def _by_module(
    tensors: Mapping[str, np.ndarray], known: list[str], options: peft_config.Options
) -> dict[str, dict[str, np.ndarray]]:
    """Factors in our orientation, by the name that the module has in our model."""
    found: dict[str, dict[str, np.ndarray]] = {}
    names = {ending: name for name, ending in _ENDINGS.items() if name != "m" or options.dora}
    for key, tensor in tensors.items():
        match = re.fullmatch(rf"{re.escape(_PREFIX)}(.+?)(\.lora_\w+(?:\.weight)?)", key)
        if match is None or match[2] not in names:
            expected = f"a name of the form {_PREFIX}<module>({'|'.join(names)})"
            raise check.fail("tensor", expected, repr(key))
        module = _canonical(match[1], known)
        found.setdefault(module, {})[names[match[2]]] = tensor.T
    if not found:
        raise check.fail("adapter", "at least one tensor", "none")
    for module, parts in found.items():
        missing = sorted(set(names.values()) - parts.keys())
        if missing:
            raise check.fail(module, "all its factors", f"no {', '.join(missing)}")
    return found


def _canonical(module: str, known: list[str]) -> str:
    """Our name of a module: the bare encoder or decoder lacks a prefix."""
    options = [module, *(start + module for start in hf_names.BASES)]
    options += [module.removeprefix(start) for start in hf_names.BASES]
    for option in options:
        if option in known:
            return option
    raise check.fail(
        f"module {module!r}", "a linear module of the model", "none", check.nearest(module, known)
    )


def _stacked(
    modules: list[str],
    found: Mapping[str, Mapping[str, np.ndarray]],
    weights: list[np.ndarray],
    options: peft_config.Options,
) -> Edit:
    """The edits of a slot's modules, filled up to one rank; the rest of a scale goes into `b`."""
    shapes = [weight.shape[-2:] for weight in weights]
    inputs, outputs = shapes[0][0], sum(shape[1] for shape in shapes)
    said = {module: options.of(module) for module in modules if module in found}
    rank, alpha = max(said.values(), key=lambda pair: pair[0])
    lengths = np.concatenate([norms(jnp.asarray(w)) for w in weights], axis=-1)
    edit = Edit(
        np.zeros((len(modules), inputs, rank), np.float32),
        np.zeros((len(modules), rank, outputs), np.float32),
        lengths if options.dora else None,
        alpha,
    )
    whole = scale(options.variant, rank, alpha)
    for i, module in enumerate(modules):
        if module not in said:
            continue
        size, own = said[module]
        expected = {"a": (inputs, size), "b": (size, outputs), "m": (outputs,)}
        for name, array in found[module].items():
            check.shape(f"{module}{_ENDINGS[name]}, transposed", array, [expected[name]])
        edit.a[i, :, :size] = found[module]["a"]
        edit.b[i, :size] = found[module]["b"] * (scale(options.variant, size, own) / whole)
        if edit.m is not None:
            edit.m[i] = found[module]["m"]
    return edit


def _read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, in float32."""
    if not path.is_file():
        others = sorted(other.name for other in path.parent.glob("*.bin"))
        hint = f"{others[0]} is a pickle, which can run code" if others else ""
        raise check.fail(str(path), "the tensors of an adapter", "no such file", hint)
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise check.fail(str(path), "a whole safetensors file", error) from None
    return {
        name: safetensors.parameter(name, tensor).astype(np.float32)
        for name, tensor in tensors.items()
    }
