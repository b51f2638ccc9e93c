"""Dictionaries in files: SAELens directories out and in, and the npz files of Gemma Scope in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jaxcompress import check, files
from jaxcompress.io import safetensors
from jaxcompress.models.autoencoder import Autoencoder

__all__ = ["load_dictionary", "save_dictionary"]

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"
_ARCHITECTURES = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
_NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def save_dictionary(
    dictionary: Autoencoder,
    directory: str | Path,
    *,
    model: str = "",
    layer: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a directory that SAELens loads: `cfg.json` and `sae_weights.safetensors`.

    Rows of the decoder are written with length 1, which changes no sum and is what the selection
    of `topk` in SAELens asks for: there the largest features stay, whatever they write.

    Args:
      dictionary: one.
      directory: to write; whole or not at all.
      model: that its activations are of, for the record.
      layer: that the residual stream enters.
      overwrite: replace a directory of such files.

    Returns:
      The directory.

    Raises:
      ValueError: for parameters that are not finite, several dictionaries at once, a directory that
        holds something, or a disk without room.

    Example:
      >>> import jax, tempfile
      >>> from jaxcompress.models import create_autoencoder
      >>> folder = Path(tempfile.mkdtemp()) / "dictionary"
      >>> one = create_autoencoder(4, 8, jax.random.key(0), kind="topk", k=2)
      >>> load_dictionary(save_dictionary(one, folder)).k
      2
    """
    if np.ndim(dictionary.decoder) != 2:
        hint = "jaxcompress.tree.unstack takes several apart"
        raise check.fail("dictionary", "one dictionary", np.shape(dictionary.decoder), hint)
    lengths = np.asarray(dictionary.norms)
    tensors = {
        "W_enc": dictionary.encoder * lengths[None],
        "b_enc": dictionary.encoder_bias * lengths,
        "W_dec": dictionary.decoder / lengths[:, None],
        "b_dec": dictionary.decoder_bias,
    }
    if dictionary.kind == "jumprelu":
        tensors["threshold"] = jnp.exp(dictionary.log_threshold) * lengths
    written = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
    for name, tensor in written.items():
        safetensors.parameter(name, tensor)
    features, width = dictionary.decoder.shape
    hook = "" if layer is None else f"blocks.{layer}.hook_resid_pre"
    config = {"architecture": {v: k for k, v in _ARCHITECTURES.items()}[dictionary.kind]}
    config |= {"d_in": width, "d_sae": features, "dtype": "float32", "device": "cpu"}
    config |= {"apply_b_dec_to_input": False, "normalize_activations": "none"}
    config |= {"reshape_activations": "none"}
    version = {"sae_lens_version": "6.0.0"}  # of the layout: without it an older one is assumed
    config |= {"metadata": {"model_name": model, "hook_name": hook} | version}
    config |= {} if dictionary.k is None else {"k": dictionary.k}
    with files.atomic_directory(directory, overwrite, marker=_CONFIG) as folder:
        safetensors.write(folder / _WEIGHTS, written)
        files.write_json(folder / _CONFIG, config)
    return Path(directory)


def load_dictionary(path: str | Path) -> Autoencoder:
    """Reads a directory of SAELens (standard, topk, jumprelu), or a `params.npz` of Gemma Scope.

    Args:
      path: of the directory, or of the npz file.

    Raises:
      ValueError: if files are missing or damaged, tensors do not fit each other or are not finite,
        or the dictionary is of a kind that is not one of `models.autoencoder.KINDS`: other
        architectures, inputs normalised one by one, top-k of features whose directions differ in
        length.

    Example:
      >>> load_dictionary("gpt2-small-res/blocks.8.hook_resid_pre").norms.shape  # doctest: +SKIP
      (24576,)
    """
    path = Path(path)
    if path.suffix == ".npz":
        tensors = files.read_npz(path, [*_NAMES, "threshold"])
        return _built(path, tensors, "jumprelu", {"apply_b_dec_to_input": False})
    config = _config(path / _CONFIG)
    where, named = str(path / _CONFIG), config.get("architecture", "standard")
    # Before version 6 the activation stood beside the architecture, its k among its arguments.
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if named == "standard" and activation != "relu":
        named, config = activation, config | (config.get("activation_fn_kwargs") or {})
    kind = _ARCHITECTURES.get(named)
    if kind is None:
        raise check.fail(where, f"an architecture of {', '.join(_ARCHITECTURES)}", named)
    for name in ("normalize_activations", "reshape_activations"):
        if (got := config.get(name) or "none") != "none":
            raise check.fail(where, f"none as {name}", got)
    try:
        tensors = load_file(path / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise check.fail(str(path / _WEIGHTS), "a whole safetensors file", error) from None
    # SAELens wrote it for a time with all dictionaries; most do not scale anything.
    if np.all(np.asarray(tensors.get("scaling_factor", 0)) == 1):
        del tensors["scaling_factor"]
    return _built(path, tensors, kind, config)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise check.fail(str(path), "the JSON of a dictionary", error) from None
    if not isinstance(config, dict):
        raise check.fail(str(path), "the JSON of a dictionary", type(config).__name__)
    return config


def _built(path: Path, tensors: dict[str, Any], kind: str, config: dict[str, Any]) -> Autoencoder:
    wanted = [*_NAMES, *(["threshold"] if kind == "jumprelu" else [])]
    if sorted(tensors) != sorted(wanted):
        raise check.fail(str(path), f"tensors {sorted(wanted)}", sorted(tensors))
    for name in wanted:
        safetensors.parameter(f"{name} of {path}", tensors[name])
    encoder, bias, decoder, shift = (np.asarray(tensors[name], np.float32) for name in _NAMES)
    check.shape("W_dec", decoder, [encoder.shape[::-1]], "(feature, width)")
    check.shape("b_enc", bias, [decoder.shape[:1]], "(feature,)")
    check.shape("b_dec", shift, [decoder.shape[1:]], "(width,)")
    if config.get("apply_b_dec_to_input", True):
        bias = bias - shift @ encoder
    k, threshold = None, None
    if kind == "topk":
        k = check.integer("k", config.get("k"), 1, len(decoder))
        lengths = np.linalg.norm(decoder, axis=1)
        alike = np.allclose(lengths, lengths.mean(), rtol=1e-3)
        if not (alike or config.get("rescale_acts_by_decoder_norm")):
            got = f"lengths of {lengths.min():.3g} to {lengths.max():.3g}"
            raise check.fail("W_dec", "directions of one length, for topk", got)
    if kind == "jumprelu":
        theta = np.maximum(np.asarray(tensors["threshold"], np.float32), 0)
        check.shape("threshold", theta, [decoder.shape[:1]], "(feature,)")
        threshold = jnp.log(theta)  # of 0 it is -inf, whose exp is 0 again
    arrays = map(jnp.asarray, (encoder, bias, decoder, shift))
    return Autoencoder(*arrays, log_threshold=threshold, kind=kind, k=k)
