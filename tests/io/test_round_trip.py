"""What is saved is what stock `transformers` loads: the same tensors, the same logits."""

from __future__ import annotations

import copy
import json

import jax
import numpy as np
import pytest
import torch
import transformers

from jaxcompress import io, tree
from tests import families
from tests.torch_models import CASES, torch_model

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("shards", ["single", "sharded"])
@pytest.mark.parametrize("name", CASES)
def test_load_save_torch_is_the_original(name, shards, tmp_path):
    if shards == "sharded" and name not in ("gpt2", "llama-gqa-biased", "bert"):
        pytest.skip("one file or many is the same code for all families")
    original = torch_model(name)
    size = "2KB" if shards == "sharded" else "50GB"
    original.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    index = tmp_path / "theirs" / "model.safetensors.index.json"
    assert index.exists() == (shards == "sharded")
    io.save(io.load(tmp_path / "theirs"), tmp_path / "ours")
    back, info = type(original).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs, ours = original.state_dict(), back.state_dict()
    assert theirs.keys() == ours.keys()
    for key, tensor in theirs.items():
        if (name, key) != ("bert-untied", "cls.predictions.bias"):  # which reaches no logit
            assert torch.equal(tensor, ours[key]), key
    tokens = torch.tensor(families.tokens())
    with torch.no_grad():
        assert torch.equal(original(tokens).logits, back.eval()(tokens).logits)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "distilbert"])
def test_save_load_is_the_identity(name, tmp_path):
    config = {"gpt2": {"head_dim": 2}, "bert": {"head_dim": 2, "norm_eps": 1e-12}}
    config["distilbert"] = config["bert"]
    model = families.model(name, **config.get(name, {}))
    io.save(model, tmp_path / "model", extra={"bos_token_id": 3})
    back = io.load(tmp_path / "model")
    assert back.config == model.config and back.tokenizer is None
    jax.tree.map(np.testing.assert_array_equal, model.params, back.params)
    raw = json.loads((tmp_path / "model" / "config.json").read_text())
    assert raw["bos_token_id"] == 3 and raw["dtype"] == "float32"
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_where_texts_end_travels_along(tmp_path):
    """Ids that are not the defaults of transformers, several ends, and how text is sampled."""
    original = copy.deepcopy(torch_model("llama-mha"))
    ids = {"bos_token_id": 5, "eos_token_id": [6, 7], "pad_token_id": 8}
    original.config.update(ids)
    original.generation_config.update(**ids, do_sample=True, top_k=9)
    original.save_pretrained(tmp_path / "theirs")
    io.save(io.load(tmp_path / "theirs"), tmp_path / "native", form="native")
    io.save(io.load(tmp_path / "native"), tmp_path / "ours")
    back = type(original).from_pretrained(tmp_path / "ours")
    assert {key: getattr(back.config, key) for key in ids} == ids
    assert (back.generation_config.eos_token_id, back.generation_config.top_k) == ([6, 7], 9)


def test_half_precision_files(tmp_path):
    model = families.model("llama")
    io.save(model, tmp_path / "half", store=lambda array: array.astype(np.float16))
    back = io.load(tmp_path / "half")
    for path, leaf in tree.paths(back.params).items():
        assert leaf.dtype == np.float32, path
        expected = np.asarray(tree.paths(model.params)[path]).astype(np.float16)
        np.testing.assert_array_equal(leaf, expected.astype(np.float32))


def test_encoders_without_a_head(tmp_path):
    """`BertModel` alone: a pooler, no prefix, no masked-LM head; hidden states are the output."""
    original = torch_model("bert").bert
    pooled = transformers.BertModel(original.config).eval()
    pooled.load_state_dict(original.state_dict(), strict=False)
    pooled.save_pretrained(tmp_path / "theirs")
    model = io.load(tmp_path / "theirs")
    assert (model.config.head, model.config.pooler) == ("none", True)
    out = model.apply(model.params, families.tokens(), taps=("resid",))
    with torch.no_grad():
        expected = pooled(torch.tensor(families.tokens())).last_hidden_state
    np.testing.assert_allclose(out.taps["resid"][-1], expected, atol=1e-5)
    io.save(model, tmp_path / "ours")
    back = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    assert torch.equal(back.pooler.dense.weight, pooled.pooler.dense.weight)


def test_tokenizers_travel_along(tmp_path, shared_data):
    vocab = str(shared_data / "tokenizers" / "bert" / "vocab.txt")
    tokenizer = transformers.BertTokenizer(vocab=vocab)
    model = families.model("bert", head_dim=2, norm_eps=1e-12).replace(tokenizer=tokenizer)
    io.save(model, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["pad_token_id"] == 0
    back = io.load(tmp_path / "model").tokenizer
    assert back("hello world")["input_ids"] == tokenizer("hello world")["input_ids"]
