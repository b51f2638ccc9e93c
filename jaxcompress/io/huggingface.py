"""Models from Hugging Face directories, and from our own, without PyTorch."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxcompress import check, tree
from jaxcompress.io import hf_config, hf_names, native, safetensors
from jaxcompress.models.build import Model, create, shapes
from jaxcompress.models.config import ModelConfig

__all__ = ["GENERATION", "TOKEN_IDS", "load", "pack", "resolve"]

GENERATION = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Keys of `config.json` that say where a text begins and ends."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "added_tokens.json",
)
_BUILTIN = "builtin:"


def load(source: str | Path, *, dtype: Literal["float32", "bfloat16"] = "float32") -> Model:
    """Loads a model from a Hugging Face id, a local directory or `builtin:<name>`.

    Args:
      source: `"gpt2"`, `"org/name"`, a directory with `config.json` and safetensors, or
        `"builtin:teacher"`. Ids go through `huggingface_hub`, whose offline cache is honoured.
      dtype: of parameters and computation; norms, softmax and logits are float32 always.

    Returns:
      The model, with its tokenizer if the directory has one.

    Raises:
      ValueError: for a model that cannot be found, an architecture or configuration key that is
        not implemented, tensors that are missing, left over, misshapen, or hold NaN or integers,
        files that are truncated, and checkpoints that are pickles only.

    Example:
      >>> load("builtin:nothing")
      Traceback (most recent call last):
      ...
      ValueError: source: expected a built-in model, got 'nothing'. ...
    """
    directory = resolve(source)
    path = directory / "config.json"
    if not path.is_file():
        raise check.fail(str(path), "a model's configuration", "no such file")
    raw = _object(path)
    check.known("dtype", dtype, ("float32", "bfloat16"))
    archive = safetensors.Archive(directory)
    ours = raw.get("model_type") == native.MODEL_TYPE
    if ours:
        config = dataclasses.replace(native.from_raw(raw, str(path)), dtype=dtype)
        params = native.read(config, archive)
    else:
        config = _with_head(hf_config.from_hf(raw, str(path)), archive.names)
        config = dataclasses.replace(config, dtype=dtype)
        params = _read(config, archive)
    model = create(config, params, tokenizer=_tokenizer(directory, ours), name=str(source))
    generation = {path.name: {key: raw[key] for key in TOKEN_IDS if key in raw}}
    if (directory / GENERATION).is_file():
        generation[GENERATION] = _object(directory / GENERATION)
    return model.replace(generation=generation)


def _object(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise check.fail(str(path), "JSON", error) from None
    if not isinstance(raw, dict):
        raise check.fail(str(path), "a JSON object", type(raw).__name__)
    return raw


def resolve(source: str | Path) -> Path:
    """The directory behind a source; downloads a Hugging Face id if it is not cached.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> resolve(folder) == Path(folder)
      True
    """
    if not isinstance(source, str | Path):
        raise check.fail("source", "a directory, a Hugging Face id or builtin:<name>", repr(source))
    text = str(source)
    if text.startswith(_BUILTIN):
        name = text.removeprefix(_BUILTIN)
        root = Path(str(resources.files("jaxcompress"))) / "builtin"
        names = sorted(path.parent.name for path in root.glob("*/config.json"))
        if name not in names:
            raise check.fail("source", "a built-in model", repr(name), check.nearest(name, names))
        return root / name
    if text and Path(source).is_dir():
        return Path(source)
    text = text.removeprefix("hf://")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(@[\w.-]+)?", text):
        raise check.fail("source", "a directory, a Hugging Face id or builtin:<name>", repr(text))
    return _download(text)


def _download(source: str) -> Path:
    import huggingface_hub

    repo, _, revision = source.partition("@")
    weights = ("*.safetensors", "*.safetensors.index.json")
    patterns = ["config.json", GENERATION, *weights, *_TOKENIZER_FILES]
    try:
        found = huggingface_hub.snapshot_download(
            repo, revision=revision or None, allow_patterns=patterns
        )
    except Exception as error:  # the hub's client raises a dozen kinds, also for no network
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        expected = "a directory, a cached or reachable Hugging Face id, or builtin:<name>"
        raise check.fail("source", expected, f"{source!r} ({reason})") from None
    return Path(found)


def _with_head(config: ModelConfig, names: list[str]) -> ModelConfig:
    """Encoders come with and without a masked-LM head and a pooler; the file says which."""
    if config.family not in ("bert", "distilbert"):
        return config
    has = {name.rsplit(".", 1)[0] for name in names}
    pooler = bool(has & {"pooler.dense", "bert.pooler.dense"})
    if has & {"cls.predictions.transform.dense", "vocab_transform"}:
        return dataclasses.replace(config, pooler=pooler)
    return dataclasses.replace(config, pooler=pooler, head="none", unembed_bias=False)


def _canonical(archive: safetensors.Archive, expected: set[str]) -> dict[str, str]:
    """Our spelling of each tensor name -> the file's: old LayerNorm names, optional prefixes."""
    found: dict[str, str] = {}
    for name in archive.names:
        plain = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        plain = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", plain)
        options = [plain, *(base + plain for base in hf_names.BASES)]
        options += [plain.removeprefix(base) for base in hf_names.BASES]
        ours = next((option for option in options if option in expected), name)
        first = found.setdefault(ours, name)
        if first != name and not np.array_equal(archive[first], archive[name]):
            where = f"{archive.directory}: {name}"
            raise check.fail(where, f"the tensor {first}, as both are {ours}", "another")
    return found


def _read(config: ModelConfig, archive: safetensors.Archive) -> dict[str, Any]:
    """Fills the configuration's parameter tree, one tensor at a time."""
    slots = hf_names.slots(config)
    names = {slot: _names(slot, config) for slot in slots}
    expected = {name for group in names.values() for name in group}
    where = _canonical(archive, expected)
    _refuse_mismatch(config, expected, where, archive)
    target = tree.paths(shapes(config)) | _pooler_shapes(config)
    params: dict[str, Any] = {}
    for slot in slots:
        each = [target[path].shape[slot.layered :] for path in slot.paths]
        parts = [
            _unpack(archive[where[name]], slot, each, f"{archive.directory}: {name}")
            for name in names[slot]
        ]
        columns = zip(*parts, strict=True)
        for path, column in zip(slot.paths, columns, strict=True):
            array = np.stack(column) if slot.layered else column[0]
            params[path] = jnp.asarray(array, dtype=config.dtype)
    return tree.nest(params)


def _names(slot: hf_names.Slot, config: ModelConfig) -> list[str]:
    return [slot.name.format(l=i) for i in range(config.layers)] if slot.layered else [slot.name]


def _refuse_mismatch(
    config: ModelConfig, expected: set[str], where: dict[str, str], archive: Any
) -> None:
    missing = sorted(expected - set(where))
    if missing:
        got = f"no {', '.join(missing[:6])}" + (
            f" and {len(missing) - 6} more" if missing[6:] else ""
        )
        raise check.fail(str(archive.directory), "every parameter of the configuration", got)
    left = [
        name
        for name in sorted(set(where) - expected)
        if not any(re.fullmatch(pattern, name) for pattern in hf_names.ignored(config))
        and not _repeats_embedding(config, name, where, archive)
    ]
    if left:
        got = f"also {', '.join(left[:6])}" + (f" and {len(left) - 6} more" if left[6:] else "")
        raise check.fail(str(archive.directory), "only parameters that are implemented", got)


def _repeats_embedding(config: ModelConfig, name: str, where: dict[str, str], archive: Any) -> bool:
    """Tied checkpoints may store the unembedding once more; it has to be the same."""
    decoders = (
        "lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight",
        "vocab_projector.weight",
    )  # fmt: skip
    if not config.tied or name not in decoders:
        return False
    slot = next(s for s in hf_names.slots(config) if s.paths == ("embed/tokens",))
    if not np.array_equal(archive[where[name]], archive[where[slot.name]]):
        raise check.fail(
            name, "the token embedding, as the configuration ties them", "another matrix"
        )
    return True


def _unpack(
    tensor: np.ndarray, slot: hf_names.Slot, each: list[tuple[int, ...]], name: str
) -> list[np.ndarray]:
    """One stored tensor as arrays of our shapes."""
    safetensors.parameter(name, tensor)
    flat = [_flat(shape, slot.inputs) for shape in each]
    expected = (*flat[0][:-1], sum(shape[-1] for shape in flat))
    check.shape(name, tensor, [expected[::-1] if slot.transposed else expected])
    tensor = tensor.T if slot.transposed else tensor
    if slot.heads:
        tensor = tensor[..., np.argsort(slot.order(tensor.shape[-1]))]
    pieces = np.split(tensor, np.cumsum([shape[-1] for shape in flat])[:-1], axis=-1)
    return [piece.reshape(shape) for piece, shape in zip(pieces, each, strict=True)]


def pack(
    config: ModelConfig, params: Any, store: Callable[[np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint of stock transformers, by name.

    Args:
      config: one that `hf_config.to_hf` accepts.
      params: of the model.
      store: applied to every array, for example a cast to float16.

    Example:
      >>> import jax
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> tensors = pack(config, create(config, key=jax.random.key(0)).params, np.asarray)
      >>> tensors["transformer.h.1.attn.c_attn.weight"].shape
      (8, 24)
    """
    leaves = tree.paths(params)
    tensors: dict[str, np.ndarray] = {}
    for slot in hf_names.slots(config):
        arrays = [store(np.asarray(leaves[path])) for path in slot.paths]
        for i, name in enumerate(_names(slot, config)):
            tensors[name] = _pack([a[i] if slot.layered else a for a in arrays], slot)
    return tensors


def _pack(arrays: list[np.ndarray], slot: hf_names.Slot) -> np.ndarray:
    """The inverse of `_unpack`."""
    flat = [array.reshape(_flat(array.shape, slot.inputs)) for array in arrays]
    tensor = np.concatenate(flat, axis=-1)
    tensor = tensor[..., slot.order(tensor.shape[-1])] if slot.heads else tensor
    return tensor.T if slot.transposed else tensor


def _flat(shape: tuple[int, ...], inputs: int) -> tuple[int, ...]:
    """Our axes flattened into (in, out), or into (out,) for a vector."""
    out = math.prod(shape[inputs:])
    return (math.prod(shape[:inputs]), out) if inputs else (out,)


def _pooler_shapes(config: ModelConfig) -> dict[str, Any]:
    if not config.pooler:
        return {}
    return {
        "pooler/kernel": np.empty((config.width, config.width)),
        "pooler/bias": np.empty((config.width,)),
    }


def _tokenizer(directory: Path, ours: bool) -> Any:
    if not any((directory / name).exists() for name in _TOKENIZER_FILES):
        return None
    import transformers

    # Our config.json says nothing of tokenizers, and transformers warns of a type it cannot know.
    options = {"config": transformers.PretrainedConfig()} if ours else {}
    try:
        return transformers.AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False, **options
        )
    except Exception as error:  # whatever the tokenizer's own parser raises
        raise check.fail(str(directory), "a readable tokenizer", error) from None
