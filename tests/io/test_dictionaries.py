"""Dictionaries in files: the same features, also by other conventions; damage is told."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxcompress.io import load_dictionary, save_dictionary
from jaxcompress.models import create_autoencoder

OPTIONS = {"relu": {}, "topk": {"k": 3}, "jumprelu": {"threshold": 0.4}}
X = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)


def _made(kind):
    """Rows of the decoder differ in length, so that lengths matter."""
    one = create_autoencoder(5, 9, jax.random.key(0), kind=kind, **OPTIONS[kind])
    by = jnp.linspace(0.5, 2.0, 9)
    return dataclasses.replace(one, decoder=one.decoder * by[:, None], decoder_bias=jnp.ones(5))


def _by_their_formula(folder, x):
    """Features as SAELens computes them: nothing of ours."""
    config, w = (
        json.loads((folder / "cfg.json").read_text()),
        load_file(folder / "sae_weights.safetensors"),
    )
    raw = x @ w["W_enc"] + w["b_enc"]
    if config["architecture"] == "jumprelu":
        return np.maximum(raw, 0) * (raw > w["threshold"]), w
    if config["architecture"] == "topk":
        kept = np.zeros_like(raw)
        order = np.argsort(-raw, axis=1)[:, : config["k"]]
        np.put_along_axis(kept, order, np.take_along_axis(raw, order, axis=1), axis=1)
        return np.maximum(kept, 0), w
    return np.maximum(raw, 0), w


@pytest.mark.parametrize("kind", OPTIONS)
def test_what_is_written_is_the_dictionary_by_their_formula_too(kind, tmp_path):
    one = _made(kind)
    folder = save_dictionary(one, tmp_path / "out", model="tiny", layer=2)
    f, w = _by_their_formula(folder, X)
    np.testing.assert_allclose(f, one.encode(X) * one.norms[None], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(f @ w["W_dec"] + w["b_dec"], one.decode(one.encode(X)), atol=1e-5)
    again = load_dictionary(folder)
    assert (again.kind, again.k) == (one.kind, one.k)
    np.testing.assert_allclose(again.decode(again.encode(X)), one.decode(one.encode(X)), atol=1e-5)
    config = json.loads((folder / "cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.2.hook_resid_pre"


def test_a_bias_that_is_taken_from_the_input_and_an_npz_file(tmp_path):
    one = _made("jumprelu")
    folder = save_dictionary(one, tmp_path / "out")
    w = load_file(folder / "sae_weights.safetensors")
    np.savez(tmp_path / "params.npz", **w)
    theirs = load_dictionary(tmp_path / "params.npz")
    np.testing.assert_allclose(
        theirs.encode(X), one.encode(X) * one.norms[None], rtol=1e-5, atol=1e-6
    )
    config = json.loads((folder / "cfg.json").read_text()) | {"apply_b_dec_to_input": True}
    (folder / "cfg.json").write_text(json.dumps(config))
    raw = (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    np.testing.assert_allclose(load_dictionary(folder).raw(X), raw, atol=1e-5)


def test_an_older_layout(tmp_path):
    folder = save_dictionary(_made("topk"), tmp_path / "out")
    w = load_file(folder / "sae_weights.safetensors")
    scaled = {"scaling_factor": np.ones(9, np.float32)}  # was written with all for a time
    save_file(w | scaled, folder / "sae_weights.safetensors")
    old = {"d_in": 5, "d_sae": 9, "normalize_activations": False, "activation_fn_str": "topk"}
    (folder / "cfg.json").write_text(json.dumps(old | {"activation_fn_kwargs": {"k": 2}}))
    one = load_dictionary(folder)
    assert (one.kind, one.k) == ("topk", 2)
    np.testing.assert_allclose(one.raw(X), (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"], atol=1e-5)
    save_file(
        w | {"scaling_factor": 2 * scaled["scaling_factor"]}, folder / "sae_weights.safetensors"
    )
    with pytest.raises(ValueError, match="scaling_factor"):
        load_dictionary(folder)


def test_thresholds_below_zero_are_zero(tmp_path):
    folder = save_dictionary(_made("jumprelu"), tmp_path / "out")
    w = load_file(folder / "sae_weights.safetensors") | {"threshold": np.full(9, -1.0, np.float32)}
    save_file(w, folder / "sae_weights.safetensors")
    raw = X @ w["W_enc"] + w["b_enc"]
    np.testing.assert_allclose(load_dictionary(folder).encode(X), np.maximum(raw, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gated"}, "an architecture of standard, topk, jumprelu, got gated"),
        ({"architecture": "standard", "activation_fn": "tanh"}, "an architecture of .*, got tanh"),
        ({"normalize_activations": "layer_norm"}, "none as normalize_activations, got layer_norm"),
        ({"k": 0}, "^k: "),
        ({"k": None}, "^k: "),
    ],
)
def test_other_kinds_are_refused(changes, message, tmp_path):
    folder = save_dictionary(_made("topk"), tmp_path / "out")
    config = json.loads((folder / "cfg.json").read_text()) | changes
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_dictionary(folder)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("W_dec", np.ones((9, 4), np.float32), "^W_dec: "),
        ("b_enc", np.full(9, np.nan, np.float32), "^b_enc of "),
        ("extra", np.ones(3, np.float32), "tensors .*, got .*extra"),
        ("W_dec", np.arange(45, dtype=np.float32).reshape(9, 5), "directions of one length"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name, tensor, message, tmp_path):
    folder = save_dictionary(_made("topk"), tmp_path / "out")
    w = load_file(folder / "sae_weights.safetensors") | {name: tensor}
    save_file(w, folder / "sae_weights.safetensors")
    with pytest.raises(ValueError, match=message):
        load_dictionary(folder)


def test_damage_and_what_must_not_be_written(tmp_path):
    folder = save_dictionary(_made("relu"), tmp_path / "out")
    with pytest.raises(ValueError, match="out"):
        save_dictionary(_made("relu"), folder)
    save_dictionary(_made("topk"), folder, overwrite=True)
    assert load_dictionary(folder).kind == "topk"
    (folder / "sae_weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="a whole safetensors file"):
        load_dictionary(folder)
    for text in ("{", "[]"):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(ValueError, match="the JSON of a dictionary"):
            load_dictionary(folder)
    broken = dataclasses.replace(_made("relu"), encoder_bias=jnp.full(9, jnp.nan))
    with pytest.raises(ValueError, match=r"^b_enc"):
        save_dictionary(broken, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), _made("relu"))
    with pytest.raises(ValueError, match="^dictionary: "):
        save_dictionary(two, tmp_path / "new")
