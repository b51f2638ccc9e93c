"""Cost: counts equal hand counts, times are of what ran, and nothing unknown gets a number."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxcompress import tree
from jaxcompress.measure import Cost, cost, flops, nonembedding
from jaxcompress.models import LayerSize, ModelConfig, shapes
from jaxcompress.models.build import Model

SMALL = ModelConfig(
    family="gpt2", layers=3, heads=2, kv_heads=2, head_dim=8, width=16, neurons=64, vocab=50,
    context=32,
)  # fmt: skip
GPT2 = ModelConfig(
    family="gpt2", layers=12, heads=12, kv_heads=12, head_dim=64, width=768, neurons=3072,
    vocab=50257, context=1024,
)  # fmt: skip


def zeros(config):
    """A model without the seconds that compiling its initialisation takes; costs are the same."""
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes(config))
    return Model(config, jax.device_put(params))


def by_hand(config, length):
    """FLOPs per token of the matrix products; multiply and add are two."""
    attention_width = config.heads * config.head_dim
    weights = config.layers * config.width * (4 * attention_width + 2 * config.neurons)
    attention = config.layers * 4 * length * attention_width
    return 2 * weights + attention + 2 * config.width * config.vocab


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize(("batch", "length"), [(1, 64), (4, 64), (1, 256)])
def test_flops_of_gpt2_are_those_counted_by_hand(scan, batch, length):
    config = dataclasses.replace(GPT2, scan=scan)
    model = Model(config, shapes(config))  # Shapes only: GPT-2 is counted without being made.
    got = flops(model, batch=batch, length=length)
    assert got == pytest.approx(by_hand(GPT2, length), rel=0.02)
    # XLA counts the elementwise operations too, never less than the matrix products.
    assert got > by_hand(GPT2, length)


def test_parameters_of_gpt2_are_the_published_ones():
    params = shapes(GPT2)
    assert tree.count(params) == 124_439_808
    assert nonembedding(params) == 124_439_808 - 768 * (50257 + 1024)


def test_flops_grow_with_depth():
    deeper = dataclasses.replace(SMALL, layers=6)
    per_layer = by_hand(deeper, 32) - by_hand(SMALL, 32)
    difference = flops(Model(deeper, shapes(deeper)), length=32)
    difference -= flops(Model(SMALL, shapes(SMALL)), length=32)
    assert difference >= per_layer


def test_everything_is_measured(tmp_path):
    measured = cost(zeros(SMALL), batch=2, repeats=5, powercap=tmp_path)
    assert isinstance(measured, Cost)
    assert (measured.batch, measured.length, measured.repeats) == (2, 32, 5)
    assert measured.bytes == 4 * measured.parameters
    assert measured.latency_spread_seconds >= 0
    assert measured.tokens_per_second == pytest.approx(64 / measured.latency_seconds)
    assert measured.joules_per_token is None
    assert measured.joules_source == f"unavailable: no RAPL domains in {tmp_path}"
    assert measured.device.startswith("cpu: ")
    assert json.loads(json.dumps(dataclasses.asdict(measured))) == dataclasses.asdict(measured)


def test_joules_are_divided_by_the_tokens_that_were_run(tmp_path, monkeypatch):
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "0"), ("max_energy_range_uj", "9" * 9)):
        (folder / name).write_text(text)
    model = zeros(SMALL)
    runs = []

    def tick(result):
        runs.append(1)
        (folder / "energy_uj").write_text(str(len(runs) * 1_000_000))
        return block(result)

    block = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", tick)
    measured = cost(model, batch=1, length=10, repeats=2, powercap=tmp_path)
    assert measured.joules_source == "RAPL package-0"
    # One joule per forward of ten tokens.
    assert measured.joules_per_token == pytest.approx(0.1)
    assert len(runs) > 4


@pytest.mark.parametrize("change", [
    {"sizes": (LayerSize(2, 2, 64), LayerSize(1, 1, 8), LayerSize(0, 0, 0))},
    {"dtype": "bfloat16"},
    {"head": "none", "causal": False},
    {"tied": False, "unembed_bias": True},
])  # fmt: skip
def test_other_models_are_measured_too(change):
    config = dataclasses.replace(SMALL, **change)
    measured = cost(zeros(config), length=8, repeats=1)
    assert measured.flops_per_token > 2 * 0.9 * _used(config)
    assert measured.parameters_nonembedding < measured.parameters


def _used(config):
    """Weights of matrix products, unembedding included where there is one."""
    weights = sum(
        config.width * (4 * size.heads * config.head_dim + 2 * size.neurons)
        for size in config.layer_sizes
    )
    return weights + (config.width * config.vocab if config.head != "none" else 0)


def test_untied_unembedding_is_not_counted_as_compute():
    untied = dataclasses.replace(SMALL, tied=False, unembed_bias=True)
    assert nonembedding(shapes(untied)) == nonembedding(shapes(SMALL))


@pytest.mark.parametrize(("name", "value"), [("batch", 0), ("length", 33), ("repeats", 0)])
def test_wrong_sizes_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        cost(zeros(SMALL), **{name: value})
