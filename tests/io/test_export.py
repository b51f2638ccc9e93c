"""A shrunk model loads elsewhere: in stock transformers or here, with the same logits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import transformers

from jaxcompress import io, tree
from jaxcompress.models import Gates
from jaxcompress.prune import kept, shrink
from tests import families
from tests.torch_models import logits as torch_logits

SIZES = {
    "gpt2": {"head_dim": 2},
    "llama": {},
    "gpt_neox": {"head_dim": 2, "rotary_dim": 0},
    "bert": {"head_dim": 2, "norm_eps": 1e-12},
    "distilbert": {"head_dim": 2, "norm_eps": 1e-12},
}
UNEVEN = Gates(
    heads=np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 1]], np.float32),
    neurons=np.array([[1] * 6, [1, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1]], np.float32),
)


def whole(name):
    return families.model(name, **SIZES[name])


def ours(model, gates=None):
    return model.apply(model.params, families.tokens(), gates=gates).logits


def theirs(directory):
    """The logits of stock transformers, which must have found every tensor."""
    architecture = json.loads((directory / "config.json").read_text())["architectures"][0]
    model, info = getattr(transformers, architecture).from_pretrained(
        directory, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return torch_logits(model.eval(), families.tokens())


@pytest.mark.torch
@pytest.mark.parametrize("name", SIZES)
def test_uneven_models_are_padded_for_stock_transformers(name, tmp_path):
    model = whole(name)
    small = shrink(model, UNEVEN)
    assert not small.config.stacked
    io.save(small, tmp_path / "padded", form="padded")
    expected = ours(model, UNEVEN)
    np.testing.assert_allclose(theirs(tmp_path / "padded"), expected, atol=5e-5)
    np.testing.assert_allclose(ours(io.load(tmp_path / "padded")), expected, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("name", SIZES)
def test_even_models_are_stock(name, tmp_path):
    """Fewer neurons and, before the last norm, one layer less; width where the family allows it."""
    model = whole(name)
    gates = Gates(neurons=np.array([[1, 0, 1, 0, 1, 1]] * 3, np.float32))
    if name in ("gpt2", "llama", "gpt_neox"):
        gates = Gates(
            neurons=gates.neurons,
            attns=np.array([1, 0, 1], np.float32),
            mlps=np.array([1, 0, 1], np.float32),
        )
    small = shrink(model, gates)
    io.save(small, tmp_path / "small", compression={"kept": kept(model, gates)})
    np.testing.assert_allclose(theirs(tmp_path / "small"), ours(model, gates), atol=5e-5)
    back = io.load(tmp_path / "small")
    assert back.config == small.config
    record = json.loads((tmp_path / "small" / "compression.json").read_text())
    assert record["kept"]["neurons"][0] == [0, 2, 4, 5]
    assert record["jaxcompress"]


@pytest.mark.torch
def test_fewer_channels_are_stock_where_heads_stay_apart(tmp_path):
    model = whole("llama")
    gates = Gates(width=np.array([1, 1, 0, 1, 1, 1, 0, 1], np.float32))
    narrow = shrink(shrink(model, Gates.off(model.config, heads=[(i, 3) for i in range(3)])), gates)
    with pytest.raises(ValueError, match="heads: expected a divisor of the width"):
        io.save(shrink(model, gates), tmp_path / "no")
    io.save(narrow, tmp_path / "narrow")
    np.testing.assert_allclose(theirs(tmp_path / "narrow"), ours(narrow), atol=5e-5)


@pytest.mark.parametrize("name", families.NAMES)
def test_our_own_directory_takes_any_shape(name, tmp_path):
    model = families.model(name)
    gates = Gates(
        heads=UNEVEN.heads, neurons=UNEVEN.neurons, width=np.array([1, 0] * 4, np.float32)
    )
    small = shrink(model, gates)
    io.save(small, tmp_path / "native", form="native")
    back = io.load(tmp_path / "native")
    assert back.config == small.config
    for path, leaf in tree.paths(small.params).items():
        np.testing.assert_array_equal(tree.paths(back.params)[path], leaf, err_msg=path)


def test_refusals_name_the_constraint(tmp_path):
    model = whole("gpt2")
    with pytest.raises(ValueError, match="config.sizes: expected layers of one size"):
        io.save(shrink(model, UNEVEN), tmp_path / "no")
    fewer = shrink(model, Gates.off(model.config, heads=[(i, 0) for i in range(3)]))
    with pytest.raises(ValueError, match="width: expected a multiple of the number of heads"):
        io.save(fewer, tmp_path / "no")
    odd = shrink(model, Gates.off(model.config, width=[0]))
    with pytest.raises(ValueError, match="shape that zeros can fill up.*form='native'"):
        io.save(odd, tmp_path / "no", form="padded")
    with pytest.raises(ValueError, match="extra: expected nothing for the native form"):
        io.save(odd, tmp_path / "no", form="native", extra={"bos_token_id": 1})
    assert not (tmp_path / "no").exists()


def test_bad_native_files(tmp_path):
    model = families.model("uneven")
    io.save(model, tmp_path / "native", form="native")
    path = tmp_path / "native" / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "config": {**raw["config"], "layrs": 3}}))
    with pytest.raises(ValueError, match="did you mean 'layers'"):
        io.load(tmp_path / "native")
    path.write_text(json.dumps({**raw, "config": {**raw["config"], "vocab": 12}}))
    with pytest.raises(ValueError, match="embed/tokens: expected shape"):
        io.load(tmp_path / "native")
    path.write_text(json.dumps({"model_type": "jaxcompress"}))
    with pytest.raises(ValueError, match="config: expected the fields of a ModelConfig"):
        io.load(tmp_path / "native")
