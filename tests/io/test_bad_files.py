"""Files that are broken, foreign or not understood: one clear error, and nothing half-written."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxcompress import io
from jaxcompress.models import Model
from tests import families

ROPE = {
    "rope_type": "llama3",
    "factor": 2.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


@pytest.fixture
def folder(tmp_path):
    """A good GPT-2 directory to break."""
    io.save(families.model("gpt2", head_dim=2), tmp_path / "model")
    return tmp_path / "model"


def tensors(folder, change):
    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors")


def configuration(folder, **changes):
    path = folder / "config.json"
    raw = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in raw.items() if v is not ...}))


def sharded(folder, where):
    """Splits the file into two shards and writes an index."""
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(arrays)
    for file, part in (("a.safetensors", names[:9]), ("b.safetensors", names[9:])):
        save_file({name: arrays[name] for name in part}, folder / file)
    weights = {name: "a.safetensors" if name in names[:9] else "b.safetensors" for name in names}
    index = {"weight_map": {**weights, **where}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def refused(folder, message):
    with pytest.raises(ValueError, match=message):
        io.load(folder)


def test_truncated_and_corrupted_files(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for data in (whole[:-10], whole[: len(whole) // 2], whole[:4], b"", b"\xff" * 64, whole[8:]):
        path.write_bytes(data)
        refused(folder, "model.safetensors: expected a whole safetensors file")


def test_shards(folder):
    names = sharded(folder, {})
    assert names is None
    expected = families.model("gpt2", head_dim=2).params["embed"]["tokens"]
    np.testing.assert_array_equal(io.load(folder).params["embed"]["tokens"], expected)


def test_missing_shard(folder):
    sharded(folder, {})
    (folder / "b.safetensors").unlink()
    refused(folder, "b.safetensors: expected a shard of the checkpoint, got no such file")


def test_an_index_that_is_wrong(folder):
    sharded(folder, {"transformer.wte.weight": "a.safetensors"})
    refused(folder, "a.safetensors: expected tensor 'transformer.wte.weight', got no such tensor")


@pytest.mark.parametrize("path", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", ".."])
def test_an_index_that_points_elsewhere(folder, path):
    sharded(folder, {"transformer.wte.weight": path})
    refused(folder, "expected shards in the same directory|expected a shard of the checkpoint")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"w": 3}}']
)
def test_an_index_that_cannot_be_read(folder, text):
    sharded(folder, {})
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, "index.json: expected (JSON with a weight_map|shards in the same directory)")


def test_pickles_are_refused_with_a_way_out(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin is a pickle.*AutoModel.from_pretrained.*save_pretrained")
    (folder / "pytorch_model.bin").unlink()  # those of the hub are never downloaded
    refused(folder, "got no such file. a pytorch_model.bin, if there is one, is a pickle")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "config.json: model_type: expected one of .*gpt2.*got 'mamba'"),
        ({"model_type": ...}, "model_type: expected one of"),
        ({"model_type": ["gpt2"]}, "model_type: expected one of"),
        (
            {"sliding_window": 4, "alibi": True},
            "config.json: .*implemented for gpt2, got alibi, sl",
        ),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: expected Fa"),
        ({"n_embd": ...}, "config.json: n_embd: expected a value, got no such key"),
        ({"n_head": 3}, "width: expected a multiple of the number of heads, got 8 over 3"),
        ({"activation_function": "mish"}, "activation: expected one of .*'mish'"),
        ({"n_layer": 0}, "config.json: n_layer: expected a positive number, got 0"),
        ({"n_head": 0}, "config.json: n_head: expected a positive number, got 0"),
        ({"n_layer": "2"}, "config.json: n_layer: expected a value of type int, got '2'"),
        ({"n_layer": None}, "config.json: n_layer: expected a value of type int, got None"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings: expected a value of type bool"),
        ({"layer_norm_epsilon": -1.0}, "norm_eps: expected a finite number >= 0, got -1"),
        ({"layer_norm_epsilon": True}, "layer_norm_epsilon: expected a value of type float"),
        ({"activation_function": 3}, "activation_function: expected a value of type str, got 3"),
        ({"n_layer": 4}, "got no transformer.h.3.attn.c_attn.bias, .* and 6 more"),
        ({"n_layer": 2}, "only parameters that are implemented, got also transformer.h.2.attn"),
        (
            {"vocab_size": 12},
            r"transformer.wte.weight: expected shape \(12, 8\), got shape \(11, 8",
        ),
        ({"tie_word_embeddings": False}, "got no lm_head.weight"),
    ],
)
def test_configurations(folder, changes, message):
    configuration(folder, **changes)
    refused(folder, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "rope_type: expected 'default'",
        ),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_scaling: expected factor, low_freq"),
        ({"rope_parameters": {"rope_theta": 1e4, "beta": 2}}, "rope_scaling: .*got .'beta'"),
        ({"rope_parameters": [1]}, r"rope_scaling: expected a JSON object, got \[1\]"),
        (
            {"rope_parameters": {"rope_theta": "x"}},
            "rope_theta: expected a positive number, got 'x",
        ),
        (
            {"rope_parameters": {**ROPE, "factor": "2"}},
            "config.json: factor: expected a positive number, got '2'",
        ),
        (
            {"rope_parameters": {**ROPE, "original_max_position_embeddings": 16.7}},
            "original_max_position_embeddings: expected a whole number >= 1, got 16.7",
        ),
        ({"rope_parameters": {**ROPE, "low_freq_factor": 4.0}}, "high_freq_factor: expected a f"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: expected 'absol"),
    ],
)
def test_llama_configurations(tmp_path, changes, message):
    io.save(families.model("llama"), tmp_path / "model")
    configuration(tmp_path / "model", rope_scaling=None, **changes)
    refused(tmp_path / "model", message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotary_pct": 0.1}, "rotary_pct: expected a share that turns 1 to 2 numbers of a head"),
        ({"rotary_pct": 2.0}, "rotary_pct: expected a share that turns 1 to 2 numbers of a head"),
        ({"rotary_pct": 0.5}, "config.rotary_dim: expected even, as rotary positions pair it"),
        ({"rotary_pct": "x"}, "rotary_pct: expected a positive number, got 'x'"),
        (
            {"rope_theta": 5.0},
            "rotary_emb_base and rope_theta: expected one value, got .10000.0, 5",
        ),
        ({"use_parallel_residual": 1}, "use_parallel_residual: expected a value of type bool"),
    ],
)
def test_gpt_neox_configurations(tmp_path, changes, message):
    io.save(families.model("gpt_neox", head_dim=2, rotary_dim=0), tmp_path / "model")
    configuration(tmp_path / "model", **{"rope_parameters": None, "rotary_pct": 1.0, **changes})
    refused(tmp_path / "model", message)


def test_old_and_new_spelling_of_rope(tmp_path):
    model = families.model("llama")
    io.save(model, tmp_path / "model")
    new = json.loads((tmp_path / "model" / "config.json").read_text())["rope_parameters"]
    old = {k: v for k, v in new.items() if k != "rope_theta"}
    configuration(
        tmp_path / "model", rope_parameters=..., rope_theta=new["rope_theta"], rope_scaling=old
    )
    assert io.load(tmp_path / "model").config == model.config


def test_no_configuration(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "config.json: expected JSON")
    (folder / "config.json").write_text("[]")
    refused(folder, "config.json: expected")
    (folder / "config.json").unlink()
    refused(folder, "config.json: expected a model's configuration, got no such file")


def test_missing_and_left_over_tensors_are_named(folder):
    tensors(folder, lambda arrays: arrays.pop("transformer.h.1.mlp.c_fc.bias"))
    refused(folder, "got no transformer.h.1.mlp.c_fc.bias")
    extra = np.zeros((2, 2), np.float32)
    restore = np.zeros(6, np.float32)
    tensors(folder, lambda arrays: arrays.update({"transformer.h.1.mlp.c_fc.bias": restore}))
    tensors(folder, lambda arrays: arrays.update({"score.weight": extra}))
    refused(folder, "only parameters that are implemented, got also score.weight")


def test_wrong_shapes_and_transposed_weights(folder):
    key = "transformer.h.0.mlp.c_fc.weight"
    tensors(folder, lambda arrays: arrays.update({key: np.ascontiguousarray(arrays[key].T)}))
    refused(folder, rf"{key}: expected shape \(8, 6\), got shape \(6, 8\)")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none(folder, bad):
    def change(arrays):
        arrays["transformer.ln_f.weight"][3] = bad

    tensors(folder, change)
    refused(folder, "transformer.ln_f.weight: expected finite numbers, got 1 NaN or infinite of 8")


@pytest.mark.parametrize("form", ["stock", "native"])
def test_numbers_that_are_integers(folder, form):
    if form == "native":
        io.save(families.model("gpt2", head_dim=2), folder, form="native", overwrite=True)

    def change(arrays):
        arrays.update({name: (50 * array).astype(np.int8) for name, array in arrays.items()})

    tensors(folder, change)
    refused(folder, "expected floating-point numbers, got int8")


def test_two_tensors_for_one_parameter(folder):
    tensors(folder, lambda a: a.update({"wte.weight": a["transformer.wte.weight"].copy()}))
    assert io.load(folder).config.tied
    tensors(folder, lambda a: a.update({"wte.weight": 2 * a["transformer.wte.weight"]}))
    refused(
        folder,
        "wte.weight: expected the tensor transformer.wte.weight, as both are tr|"
        "transformer.wte.weight: expected the tensor wte.weight, as both are",
    )


def test_a_tied_head_must_be_the_embedding(folder):
    tensors(folder, lambda a: a.update({"lm_head.weight": a["transformer.wte.weight"].copy()}))
    assert io.load(folder).config.tied
    tensors(folder, lambda a: a.update({"lm_head.weight": 2 * a["transformer.wte.weight"]}))
    refused(folder, "lm_head.weight: expected the token embedding, as the configuration ties them")


def test_names_of_hub_files(folder):
    """GPT-2 on the hub has no prefix, and carries its causal masks along."""

    def change(arrays):
        for name in list(arrays):
            arrays[name.removeprefix("transformer.")] = arrays.pop(name)
        for i in range(3):
            arrays[f"h.{i}.attn.bias"] = np.tril(np.ones((1, 1, 9, 9), np.float32))
            arrays[f"h.{i}.attn.masked_bias"] = np.array(-1e4, np.float32)

    tensors(folder, change)
    expected = families.model("gpt2", head_dim=2).params
    for name, leaf in expected["blocks"]["mlp"]["up"].items():
        np.testing.assert_array_equal(io.load(folder).params["blocks"]["mlp"]["up"][name], leaf)


def test_buffers_of_pythia_files(tmp_path):
    """Causal masks and rotary frequencies, and, in a tied one, the embedding once more."""
    model = families.model("gpt_neox", head_dim=2, rotary_dim=0, tied=True)
    io.save(model, tmp_path / "model")

    def change(arrays):
        arrays["embed_out.weight"] = arrays["gpt_neox.embed_in.weight"].copy()
        for i in range(3):
            attention = f"gpt_neox.layers.{i}.attention"
            arrays[f"{attention}.bias"] = np.tril(np.ones((1, 1, 9, 9), np.float32))
            arrays[f"{attention}.masked_bias"] = np.array(-1e4, np.float32)
            arrays[f"{attention}.rotary_emb.inv_freq"] = np.ones(1, np.float32)

    tensors(tmp_path / "model", change)
    jax.tree.map(np.testing.assert_array_equal, io.load(tmp_path / "model").params, model.params)
    tensors(tmp_path / "model", lambda a: a.update({"embed_out.weight": 2 * a["embed_out.weight"]}))
    refused(tmp_path / "model", "embed_out.weight: expected the token embedding")


def test_names_of_old_bert_files(tmp_path):
    """LayerNorm.gamma and beta, a next-sentence head, a pooler and a repeated decoder."""
    model = families.model("bert", head_dim=2, norm_eps=1e-12)
    io.save(model, tmp_path / "bert")

    def change(arrays):
        for name in list(arrays):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            arrays[old.replace("LayerNorm.bias", "LayerNorm.beta")] = arrays.pop(name)
        arrays["cls.seq_relationship.weight"] = np.zeros((2, 8), np.float32)
        arrays["cls.seq_relationship.bias"] = np.zeros(2, np.float32)
        arrays["bert.pooler.dense.weight"] = np.eye(8, dtype=np.float32)
        arrays["bert.pooler.dense.bias"] = np.zeros(8, np.float32)
        arrays["bert.embeddings.position_ids"] = np.arange(9)[None]
        embedding = arrays["bert.embeddings.word_embeddings.weight"]
        arrays["cls.predictions.decoder.weight"] = embedding.copy()
        arrays["cls.predictions.decoder.bias"] = arrays["cls.predictions.bias"].copy()

    tensors(tmp_path / "bert", change)
    back = io.load(tmp_path / "bert")
    assert back.config.pooler and (back.params["pooler"]["kernel"] == np.eye(8)).all()
    got = back.apply(back.params, families.tokens()).logits
    expected = model.apply(model.params, families.tokens()).logits
    np.testing.assert_array_equal(got, expected)


def test_a_tokenizer_that_cannot_be_read(folder):
    (folder / "tokenizer.json").write_text("{")
    refused(folder, "expected a readable tokenizer")


def test_files_are_readable_for_whom_files_made_here_are(folder, tmp_path):
    (tmp_path / "usual").touch()
    files = [tmp_path / "usual", folder / "model.safetensors", folder / "config.json"]
    assert len({path.stat().st_mode for path in files}) == 1


def test_save_refuses_a_directory_with_something_in_it(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = families.model("llama")
    with pytest.raises(ValueError, match=r"expected a new or empty directory.*--overwrite"):
        io.save(other, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "model.safetensors").rename(folder / "thesis.tex")
    with pytest.raises(ValueError, match=r"an earlier result with a config\.json and a model\."):
        io.save(other, folder, overwrite=True)
    assert (folder / "thesis.tex").is_file()
    (folder / "thesis.tex").rename(folder / "model.safetensors")
    io.save(other, folder, overwrite=True)
    assert io.load(folder).config == other.config
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


FAILURES = {OSError: ValueError, SafetensorError: ValueError, KeyboardInterrupt: KeyboardInterrupt}


@pytest.mark.parametrize("error", FAILURES)
@pytest.mark.parametrize("present", [False, True])
def test_a_save_that_fails_leaves_everything_as_it_was(folder, monkeypatch, error, present):
    target = folder if present else folder.parent / "new"
    before = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}

    def fail(tensors, path, **options):
        path.write_bytes(b"half")
        raise error("disk full")

    monkeypatch.setattr("jaxcompress.io.safetensors.save_file", fail)
    with pytest.raises(FAILURES[error], match="disk full"):
        io.save(families.model("llama"), target, overwrite=True)
    after = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    assert after == before and sorted(p.name for p in folder.parent.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("uneven", {}, "config.sizes: expected layers of one size"),
        ("research", {}, "config.family: expected one of"),
        ("gpt2", {}, r"stock transformers can express for gpt2.*head_dim=4 .it can only be 2"),
        ("llama", {"positions": "learned"}, "express for llama.*positions='learned'"),
        ("bert", {"head_dim": 2}, "express for bert|norm_eps"),
        ("distilbert", {"head_dim": 2, "norm_eps": 1e-5}, "distilbert.*norm_eps=1e-05"),
        ("gpt2", {"head_dim": 2, "causal": False}, "causal=False .it can only be True"),
        ("gpt_neox", {}, r"head_dim: expected width / heads \(8 / 4\), as stock GPT-NeoX demands"),
    ],
)
def test_what_transformers_cannot_say_is_not_saved(tmp_path, name, changes, message):
    config = families.config(name, **changes)
    if name == "bert":
        config = families.config("bert", **changes, qkv_bias=False)
        message = "express for bert.*qkv_bias=False"
    with pytest.raises(ValueError, match=message):
        io.save(Model(config, {}), tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["stock", "native"])
@pytest.mark.parametrize(("value", "store"), [(np.nan, np.float32), (1e5, np.float16)])
def test_numbers_that_are_none_are_not_saved(tmp_path, form, value, store):
    model = families.model("gpt2", head_dim=2)
    tokens = model.params["embed"]["tokens"].copy()
    tokens[2, 3] = value
    params = {**model.params, "embed": {**model.params["embed"], "tokens": tokens}}
    name = {"stock": "transformer.wte.weight", "native": "embed/tokens"}[form]
    with pytest.raises(ValueError, match=f"{name}: expected finite numbers, got 1 NaN or infinite"):
        io.save(
            model.replace(params=params),
            tmp_path / "model",
            form=form,
            store=lambda array: array.astype(store),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"n_head": 2, "bos_token_id": 1}, r"extra: expected keys beside .*, got \['n_head'\]"),
        ({"alibi": True}, "expected keys that are implemented for gpt2, got alibi"),
        ({"scale_attn_weights": False}, "scale_attn_weights: expected True, got False"),
    ],
)
def test_further_keys_do_not_change_the_model(tmp_path, extra, message):
    with pytest.raises(ValueError, match=message):
        io.save(families.model("gpt2", head_dim=2), tmp_path / "model", extra=extra)


def lens_arrays():
    """The smallest network in TransformerLens's names: one layer, one head, width 2."""
    block = "blocks.0."
    shapes = {f"{block}attn.W_{c}": (1, 2, 2) for c in "QKVO"}
    shapes |= {f"{block}mlp.W_in": (2, 3), f"{block}mlp.W_out": (3, 2)}
    shapes |= {"embed.W_E": (5, 2), "pos_embed.W_pos": (4, 2), "unembed.W_U": (2, 5)}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def test_research_arrays_that_are_missing_or_not_finite():
    assert io.from_transformer_lens(lens_arrays()).config.layers == 1
    for name in ("embed.W_E", "blocks.0.attn.W_O", "unembed.W_U"):
        arrays = lens_arrays()
        arrays[name][..., 0] = np.nan
        with pytest.raises(ValueError, match="arrays.* expected finite numbers, got"):
            io.from_transformer_lens(arrays)
        del arrays[name]
        with pytest.raises(ValueError, match=f"arrays: expected '{name}'"):
            io.from_transformer_lens(arrays)


@pytest.mark.parametrize("name", ["blocks.0.mlp.bin", "blocks.0.ln1.w", "blocks.0.attn.b_O_"])
def test_research_arrays_that_are_left_over(name):
    buffers = {"blocks.0.attn.mask": np.ones((4, 4), bool), "blocks.0.attn.IGNORE": np.ones(())}
    arrays = lens_arrays() | buffers
    assert io.from_transformer_lens(arrays).config.layers == 1
    with pytest.raises(ValueError, match=rf"arrays: expected only .*, got also \['{name}'\]"):
        io.from_transformer_lens(arrays | {name: np.ones(2, np.float32)})
