"""A sweep equals a loop of single ablations, whatever is swept, replaced, padded or shared."""

from __future__ import annotations

import dataclasses
import importlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import ablate
from jaxcompress.models import Gates
from tests import families
from tests.ablate.reference import difference, loop, prompts_for

# `jaxcompress.ablate.sweep` is the function; its module has the same name.
sweep_module = importlib.import_module("jaxcompress.ablate.sweep")

GROUPS = [{"heads": [(0, 1), (2, 3)]}, {"mlps": [1], "heads": [(1, 0)]}, {"layers": [2]}]
CASES = [
    ("gpt2", "heads", "zero", "none"),
    ("gpt2", "heads", "mean", "right"),
    ("gpt2", "heads", "pooled", "left"),
    ("gpt2", "attns", "resample", "left"),
    ("gpt2", "neurons", "mean", "none"),
    ("gpt2", GROUPS, "resample", "right"),
    ("llama", "heads", "resample", "right"),
    ("llama", "mlps", "zero", "left"),
    ("llama", "layers", "mean", "none"),
    ("gpt_neox", "heads", "mean", "left"),
    ("gpt_neox", "mlps", "resample", "right"),
    ("bert", "heads", "mean", "right"),
    ("bert", "layers", "resample", "none"),
    ("bert", "neurons", "zero", "left"),
    ("distilbert", "mlps", "zero", "left"),
    ("distilbert", "heads", "mean", "none"),
    ("distilbert", "attns", "resample", "right"),
    ("research", "heads", "pooled", "none"),
    ("research", "attns", "zero", "left"),
    ("research", "neurons", "resample", "right"),
    ("uneven", "heads", "mean", "left"),
    ("uneven", "heads", "resample", "right"),
    ("uneven", "neurons", "zero", "none"),
]


def arguments(kind):
    pooled = kind == "pooled"
    return {"replacement": "mean" if pooled else kind, "pooled": pooled}


@pytest.mark.parametrize(
    ("name", "over", "kind", "padding"),
    CASES,
    ids=lambda value: "groups" if isinstance(value, list) else str(value),
)
def test_equals_the_loop(name, over, kind, padding):
    model, prompts = families.model(name), prompts_for(name, padding)
    options = arguments(kind)
    got = ablate.sweep(model, prompts, over, **options)
    expected, clean = loop(model, prompts, over, options["replacement"], options["pooled"])
    np.testing.assert_allclose(got.clean, clean, atol=2e-5)
    np.testing.assert_allclose(got.per_example, expected, atol=5e-5)  # NaN where NaN is expected
    assert np.isnan(expected).any() == (name == "uneven")
    assert np.nanmax(np.abs(expected)) > 0.1
    np.testing.assert_allclose(got.mean, expected.mean(-1), atol=5e-5)


@pytest.fixture(scope="module")
def heads():
    """The sweep that the others below are compared with."""
    model, prompts = families.model("gpt2"), families.prompts("right")
    return model, prompts, ablate.sweep(model, prompts, replacement="mean").per_example


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_nothing(heads, chunk):
    model, prompts, expected = heads
    got = ablate.sweep(model, prompts, replacement="mean", chunk=chunk).per_example
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("count", [8, 3])
def test_devices_change_nothing(heads, count):
    model, prompts, expected = heads
    assert len(jax.devices()) == 8
    devices = jax.devices()[:count]
    got = ablate.sweep(model, prompts, replacement="mean", devices=devices).per_example
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_work_is_on_all_devices():
    spread = sweep_module._spread(jax.devices())(Gates(mlps=jnp.ones((16, 3))))
    assert len(spread.mlps.sharding.device_set) == 8
    assert {shard.data.shape for shard in spread.mlps.addressable_shards} == {(2, 3)}


def test_without_resume_the_numbers_are_the_same(heads):
    """A model that offers only `apply` is swept by whole forwards."""
    model, prompts, expected = heads

    @dataclasses.dataclass(frozen=True)
    class Bare:
        config: object
        params: object
        apply: object

    bare = Bare(model.config, model.params, model.apply)
    got = ablate.sweep(bare, prompts, replacement="mean", chunk=5)
    np.testing.assert_allclose(got.per_example, expected, atol=2e-5)


@pytest.mark.parametrize("metric", ["probability", "kl"])
def test_metrics_over_all_logits(metric):
    model, prompts = families.model("gpt2"), families.prompts("right")
    got = ablate.sweep(model, prompts, "mlps", replacement="zero", metric=metric)
    rows = np.arange(families.BATCH)

    def final(gates):
        out = model.apply(
            model.params, prompts.tokens, attention_mask=prompts.attention_mask, gates=gates
        )
        return jax.nn.log_softmax(out.logits[rows, prompts.answer_position])

    clean = final(Gates(mlps=jnp.ones(3)))
    for layer in range(3):
        off = final(Gates.off(model.config, mlps=[layer]))
        if metric == "kl":
            expected = (jnp.exp(clean) * (clean - off)).sum(-1)
        else:
            right = prompts.correct[:, 0]
            expected = jnp.exp(off[rows, right]) - jnp.exp(clean[rows, right])
        np.testing.assert_allclose(got.per_example[layer], expected, atol=2e-5)


def test_a_metric_of_ones_own():
    model, prompts = families.model("gpt2"), families.prompts("right")

    def first_logit(logits, prompts, clean_logits):
        return logits[:, 0] - clean_logits[:, 0]

    got = ablate.sweep(model, prompts, "mlps", replacement="zero", metric=first_logit)
    np.testing.assert_allclose(got.clean, 0.0, atol=1e-6)
    assert (np.abs(got.per_example) > 1e-3).all()


def test_mean_of_identical_corruptions_is_resampling():
    model, prompts = families.model("gpt2"), families.prompts("none")
    same = dataclasses.replace(prompts, corrupted=np.repeat(prompts.corrupted[:1], 3, axis=0))
    mean = ablate.sweep(model, same, "mlps", replacement="mean").per_example
    resampled = ablate.sweep(model, same, "mlps", replacement="resample").per_example
    np.testing.assert_allclose(mean, resampled, atol=2e-5)


def test_resampling_from_the_clean_prompt_changes_nothing():
    model, prompts = families.model("llama"), families.prompts("left")
    same = dataclasses.replace(prompts, corrupted=prompts.tokens)
    effects = ablate.sweep(model, same, "heads", replacement="resample").per_example
    np.testing.assert_allclose(effects, 0.0, atol=2e-5)


@pytest.mark.parametrize("name", families.NAMES)
def test_width_in_a_group(name):
    """Channels are gated from the embedding on, which norms and other models see in other ways."""
    model = families.model(name)
    prompts = families.prompts("none", causal=model.config.causal)
    group = {"width": [2], "heads": [(1, 1)]}
    got = ablate.sweep(model, prompts, [group], replacement="zero")
    out = model.apply(model.params, prompts.tokens, gates=Gates.off(model.config, **group)).logits
    expected = difference(out, prompts) - np.asarray(got.clean)
    np.testing.assert_allclose(got.per_example[0], expected, rtol=1e-5, atol=2e-5)


def test_compilations_do_not_grow_with_layers():
    """Three and six layers: one program for all layers of a model."""
    inner, prompts, counts = sweep_module._suffix, families.prompts("right"), []
    for layers in (3, 6):
        model = families.model("gpt2", layers=layers, neurons=5)  # not compiled by another test
        before = inner._cache_size()
        first = ablate.sweep(model, prompts, replacement="zero").per_example
        counts.append(inner._cache_size() - before)
        again = ablate.sweep(model, prompts, replacement="zero").per_example
        np.testing.assert_array_equal(first, again)
        assert inner._cache_size() - before == counts[-1]
    assert counts == [1, 1]


def test_prefixes_are_shared():
    """The whole model is run once; components of a layer start from the stream that enters it."""
    model, prompts = families.model("gpt2"), families.prompts("right")
    started = []

    def report(layer, first):
        started.append((int(layer), float(first)))

    def resume(params, resid, layer, **options):
        jax.debug.callback(report, layer, resid[0, 0, 0])
        return model.resume(params, resid, layer, **options)

    def apply(*arguments, **options):
        jax.debug.callback(lambda: started.append("whole"))
        return model.apply(*arguments, **options)

    watched = types.SimpleNamespace(
        config=model.config, params=model.params, apply=apply, resume=resume
    )
    ablate.sweep(watched, prompts, "mlps", replacement="zero")
    jax.effects_barrier()
    mask = prompts.attention_mask
    stream = model.apply(model.params, prompts.tokens, attention_mask=mask, taps=("resid",)).taps[
        "resid"
    ]
    assert started[0] == "whole" and [layer for layer, _ in started[1:]] == [0, 1, 2]
    np.testing.assert_allclose([first for _, first in started[1:]], stream[:3, 0, 0, 0], atol=1e-5)


class Interrupting:
    """A progress bar during which the user presses Ctrl-C."""

    def __init__(self, **options):
        self.left = 2

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        return False

    def update(self, count):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_ctrl_c_leaves_nothing_behind(heads, monkeypatch, tmp_path):
    model, prompts, expected = heads
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sweep_module, "tqdm", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            ablate.sweep(model, prompts, replacement="mean")
    assert not list(tmp_path.iterdir())
    got = ablate.sweep(model, prompts, replacement="mean").per_example
    np.testing.assert_array_equal(got, expected)


def test_the_bar_is_shown_on_request(capsys, monkeypatch):
    model, prompts = families.model("gpt2"), families.prompts("right")
    bar = sweep_module.tqdm
    monkeypatch.setattr(sweep_module, "tqdm", lambda **options: bar(**options | {"delay": 0}))
    for shown in (True, False):
        ablate.sweep(model, prompts, "mlps", replacement="zero", progress=shown)
        assert ("sweep" in capsys.readouterr().err) == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": "head"}, "over: expected one of .* did you mean 'heads'"),
        ({"over": []}, "over: expected at least one group of components, got none"),
        ({"over": [{"mlps": [0]}, {}]}, "over: expected a component in every group"),
        ({"over": [{"head": [(0, 1)]}]}, "over: expected one of .* did you mean 'heads'"),
        ({"over": [{"mlps": [3]}]}, r"Gates\.off\(mlps\): expected an index within \(3,\), got"),
        ({"replacement": "means"}, "replacement: expected one of .* did you mean 'mean'"),
        ({"metric": "logit_diff"}, "metric: expected one of .* did you mean 'logit_difference'"),
        ({"devices": []}, "devices: expected at least one device, got none"),
        ({"chunk": 0}, "chunk: expected a whole number >= 1, got 0"),
        ({"chunk": -2}, "chunk: expected a whole number >= 1, got -2"),
    ],
)
def test_wrong_arguments(arguments, message):
    options = {"replacement": "zero", "over": "mlps", **arguments}
    with pytest.raises(ValueError, match=message):
        ablate.sweep(families.model("gpt2"), families.prompts("none"), **options)


def longer(prompts):
    wide = {name: np.tile(getattr(prompts, name), 2) for name in ("tokens", "corrupted")}
    mask = np.tile(prompts.attention_mask, 2)
    return dataclasses.replace(prompts, attention_mask=mask, **wide)


@pytest.mark.parametrize("run", [ablate.sweep, ablate.patch])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (longer, r"prompts\.tokens: expected at most 9 positions, got 12"),
        (
            lambda p: dataclasses.replace(p, tokens=p.tokens + 5),
            r"prompts\.tokens: expected token ids below 11, got 5\.\.1\d",
        ),
        (
            lambda p: dataclasses.replace(p, wrong=p.wrong + 30),
            r"prompts\.wrong: expected token ids below 11",
        ),
        (
            lambda p: dataclasses.replace(p, answer_position=np.full(3, 6)),
            r"prompts\.answer_position: expected in \[0, 6\)",
        ),
        (
            lambda p: dataclasses.replace(p, attention_mask=2 * p.attention_mask),
            r"prompts\.attention_mask: expected 1 on tokens, 0 on padding",
        ),
    ],
)
def test_prompts_that_do_not_fit_the_model(run, change, message):
    with pytest.raises(ValueError, match=message):
        run(families.model("gpt2"), change(families.prompts("none")))


@pytest.mark.parametrize("run", [ablate.sweep, ablate.patch])
def test_a_model_without_a_head_has_no_metric(run):
    model = families.model("bert", head="none", unembed_bias=False)
    with pytest.raises(ValueError, match="model: expected one with a language-model head"):
        run(model, families.prompts("none"))
