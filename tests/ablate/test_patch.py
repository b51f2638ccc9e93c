"""Patching equals a loop of single patches, in both directions, for streams and components."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxcompress import ablate
from jaxcompress.ablate import patching
from jaxcompress.models import Edits, Gates
from tests import families
from tests.ablate.reference import FIELDS, difference, prompts_for
from tests.ablate.test_sweep import Interrupting
from tests.families import BATCH, LENGTH

STREAMS = [
    ("gpt2", "noise", "right"),
    ("gpt2", "denoise", "none"),
    ("llama", "denoise", "left"),
    ("bert", "noise", "right"),
    ("uneven", "denoise", "left"),
]


def sides(prompts, direction):
    """(tokens of the run that is patched, tokens of the run that the patches come from)."""
    pair = (prompts.tokens, prompts.corrupted)
    return pair if direction == "noise" else pair[::-1]


def whole(model, tokens, prompts, **options):
    return model.apply(model.params, tokens, attention_mask=prompts.attention_mask, **options)


@pytest.mark.parametrize(("name", "direction", "padding"), STREAMS)
def test_streams_equal_the_loop(name, direction, padding):
    model, prompts = families.model(name), prompts_for(name, padding)
    got = ablate.patch(model, prompts, direction=direction)
    into, out_of = sides(prompts, direction)
    base, source = (whole(model, t, prompts, taps=("resid",)) for t in (into, out_of))
    clean = difference(base.logits, prompts)
    expected = np.zeros((3, LENGTH, BATCH))
    ahead = np.argmax(prompts.attention_mask, axis=1)  # positions count real tokens
    for layer in range(3):
        for place in range(LENGTH):
            patched = np.array(base.taps["resid"][layer])
            patched[:, place] = source.taps["resid"][layer][:, place]
            out = model.resume(
                model.params, patched, layer, attention_mask=prompts.attention_mask
            ).logits
            where = (layer, (place - ahead) % LENGTH, np.arange(BATCH))
            expected[where] = difference(out, prompts) - clean
    np.testing.assert_allclose(got.clean, clean, atol=2e-5)
    np.testing.assert_allclose(got.per_example, expected, atol=5e-5)
    assert np.abs(expected).max() > 0.1
    if name != "bert":
        # A patch after the answer cannot reach it, nor can one of the last layers elsewhere.
        later = np.arange(LENGTH)[:, None] > np.asarray(prompts.answer_position)
        assert (np.asarray(got.per_example)[:, later] == 0).all()


@pytest.mark.parametrize(
    ("name", "over", "direction", "per_position"),
    [
        ("gpt2", "heads", "noise", False),
        ("gpt2", "heads", "denoise", True),
        ("llama", "mlps", "noise", True),
        ("bert", "layers", "denoise", True),
    ],
)
def test_components_equal_the_loop(name, over, direction, per_position):
    model, prompts = families.model(name), prompts_for(name, "right")
    got = ablate.patch(model, prompts, over, direction=direction, per_position=per_position)
    into, out_of = sides(prompts, direction)
    taps = whole(model, out_of, prompts, taps=FIELDS).taps
    edits = Edits(**taps)
    ones = dataclasses.replace(Gates.ones(model.config), width=None)
    spread = jax.tree.map(lambda g: np.ones((BATCH, LENGTH, *g.shape), np.float32), ones)

    def run(gates):
        return difference(whole(model, into, prompts, gates=gates, edits=edits).logits, prompts)

    clean = run(spread)
    places = range(LENGTH) if per_position else [slice(None)]
    fields = ("attns", "mlps") if over == "layers" else (over,)
    shape = (3, 4) if over == "heads" else (3,)
    for cell in np.ndindex(*shape):
        for place in places:
            gates = jax.tree.map(np.copy, spread)
            for field in fields:
                getattr(gates, field)[(slice(None), place, *cell)] = 0
            effect = got.per_example[(*cell, place)] if per_position else got.per_example[cell]
            np.testing.assert_allclose(effect, run(gates) - clean, atol=5e-5)
    assert got.per_example.shape == (*shape, *([LENGTH] if per_position else []), BATCH)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_patch_changes_nothing_before_it(layer):
    """What prefix sharing over positions rests on; also what `resume` with a prefix returns."""
    model, prompts = families.model("llama"), families.prompts("none")
    base = whole(model, prompts.tokens, prompts, taps=("resid",))
    patched = base.taps["resid"][layer].at[:, 3].add(1.0)
    out = model.resume(model.params, patched, layer, attention_mask=prompts.attention_mask)
    np.testing.assert_allclose(out.logits[:, :3], base.logits[:, :3], atol=1e-5)
    assert (np.abs(out.logits[:, 3:] - base.logits[:, 3:]).max(-1) > 1e-3).all()


def test_patching_everything_at_the_answer_gives_the_other_run():
    """In the last layer of a model with one position, the patch is the other prompt."""
    model, prompts = families.model("gpt2"), families.prompts("none")
    short = dataclasses.replace(
        prompts,
        tokens=prompts.tokens[:, :1],
        corrupted=prompts.corrupted[:, :1],
        attention_mask=prompts.attention_mask[:, :1],
        answer_position=np.zeros(BATCH, int),
    )
    got = ablate.patch(model, short)
    clean = difference(whole(model, short.tokens, short).logits, short)
    for layer in range(3):
        np.testing.assert_allclose(got.per_example[layer, 0] + got.clean, clean, atol=5e-5)


@pytest.fixture(scope="module")
def cells():
    model, prompts = families.model("gpt2"), families.prompts("right")
    return model, prompts, ablate.patch(model, prompts).per_example


@pytest.mark.parametrize("options", [{"chunk": 4}, {"devices": 8}], ids=str)
def test_chunks_and_devices_change_nothing(cells, options):
    model, prompts, expected = cells
    if "devices" in options:
        options = {"devices": jax.devices()}
    got = ablate.patch(model, prompts, **options).per_example
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_metrics_other_than_the_difference(cells):
    model, prompts, _ = cells
    got = ablate.patch(model, prompts, metric="kl", chunk=6)
    assert (np.asarray(got.clean) == 0).all() and (got.per_example > -1e-5).all()
    assert got.per_example.max() > 0.01


def test_compilations_do_not_grow_with_layers():
    inner, prompts, counts = patching._cells, families.prompts("right"), []
    for layers in (3, 6):
        model = families.model("gpt2", layers=layers, neurons=5)  # not compiled by another test
        before = inner._cache_size()
        ablate.patch(model, prompts)
        counts.append(inner._cache_size() - before)
    assert counts == [2, 2]  # one for each of the two blocks of positions


def test_ctrl_c_leaves_nothing_behind(cells, monkeypatch):
    model, prompts, expected = cells
    with monkeypatch.context() as patched:
        patched.setattr(patching, "tqdm", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            ablate.patch(model, prompts)
    np.testing.assert_array_equal(ablate.patch(model, prompts).per_example, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": "residual"}, "over: expected one of"),
        ({"metric": "loss"}, "metric: expected one of"),
        ({"chunk": 0}, "chunk: expected a whole number >= 1, got 0"),
        ({"over": "mlps", "devices": []}, "devices: expected at least one device, got none"),
        ({"devices": []}, "devices: expected at least one device, got none"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ablate.patch(families.model("gpt2"), families.prompts("none"), **arguments)


def test_a_stream_can_only_be_patched_with_resume():
    class Bare:
        model = families.model("gpt2")
        config, params, apply = model.config, model.params, model.apply

    with pytest.raises(ValueError, match="model: expected a model with `resume`"):
        ablate.patch(Bare(), families.prompts("none"))
