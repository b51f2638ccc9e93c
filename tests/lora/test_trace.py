"""Closing a gate is leaving the direction out; slopes are exact where the metric is linear."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import lora, tasks
from jaxcompress.lora import directions
from jaxcompress.lora.answers import forward
from jaxcompress.lora.trace import measure, rows
from jaxcompress.types import Output
from tests import families
from tests.lora import examples

RANKS = {"*/attn/query/kernel": 2, "*/attn/output/kernel": 1, "*/down/kernel": 2}
QUERY, DOWN = "blocks/attn/query/kernel", "blocks/mlp/down/kernel"


@pytest.fixture(scope="module")
def model():
    return families.model("gpt2")


@pytest.fixture(scope="module")
def route(model):
    adapter = examples.adapter(model.params, RANKS)
    return lora.trace(model, families.prompts("right"), adapter, chunk=3)


def metric(model, adapter):
    prompts = jax.tree.map(jnp.asarray, families.prompts("right"))
    return tasks.logit_difference(forward(model.apply, model.params, prompts, adapter), prompts)


@pytest.mark.parametrize("variant", ["lora", "rslora", "pissa"])
def test_turned_is_the_same_edit_along_its_singular_directions(model, variant):
    adapter = examples.adapter(model.params, RANKS, variant=variant)
    turned = lora.turned(adapter)
    expected, got = (examples.effects(one, model.params) for one in (adapter, turned))
    for spec in turned.specs:
        np.testing.assert_allclose(got[spec.path], expected[spec.path], atol=2e-6)
        a, b = (np.asarray(turned.leaves[spec.path][name]) for name in "ab")
        values = np.square(a).sum(axis=-2)
        np.testing.assert_allclose(values, np.square(b).sum(axis=-1), atol=1e-4)
        matrix = expected[spec.path].reshape(len(a), a.shape[-2], b.shape[-1])
        singular = np.linalg.svd(matrix, compute_uv=False)[:, : values.shape[-1]]
        np.testing.assert_allclose(values, singular, atol=1e-4)


def test_removed_and_kept_are_the_loop(model, route):
    whole = directions.ones(route.adapter)
    np.testing.assert_allclose(route.whole, metric(model, route.adapter), atol=1e-5)
    np.testing.assert_allclose(route.base, metric(model, None), atol=1e-5)
    for path, place in ((QUERY, (2, 1)), (DOWN, (0, 0)), (DOWN, (1, 1))):
        alone = {name: np.zeros(gate.shape, bool) for name, gate in whole.items()}
        alone[path][place] = True
        others = {name: ~gate for name, gate in alone.items()}
        without = metric(model, lora.transplant(route.adapter, others))
        only = metric(model, lora.transplant(route.adapter, alone))
        np.testing.assert_allclose(route.removed[path][place], without - route.whole, atol=1e-4)
        np.testing.assert_allclose(route.kept[path][place], only - route.base, atol=1e-4)
        assert np.abs(route.removed[path][place]).max() > 1e-3


def test_integrated_gradients_add_up(model):
    adapter = examples.scaled(examples.adapter(model.params, RANKS), 0.2)
    route = lora.trace(model, families.prompts("right"), adapter, steps=16)
    total = sum(float(value.sum()) for value in route.integrated.values())
    np.testing.assert_allclose(total, float((route.whole - route.base).mean()), rtol=0.02)


def test_slopes_are_the_small_edits(model):
    adapter = examples.scaled(examples.adapter(model.params, RANKS), 0.01)
    route = lora.trace(model, families.prompts("right"), adapter)
    for path, loss in route.loss.items():
        scale = np.abs(loss).max()
        np.testing.assert_allclose(-route.slope_removed[path], loss, atol=0.1 * scale)
        np.testing.assert_allclose(route.slope_kept[path], route.gain[path], atol=0.1 * scale)


def test_slopes_are_exact_where_the_metric_is_linear():
    rng = np.random.default_rng(0)
    params = {"kernel": rng.standard_normal((4, 6)).astype(np.float32)}
    inputs = rng.standard_normal((3, 4)).astype(np.float32)

    def apply(params, tokens, attention_mask=None, lora=None):
        kernel = params["kernel"] if lora is None else lora.merged(params)["kernel"]
        return Output(jnp.asarray(inputs)[tokens] @ kernel, {})

    linear = SimpleNamespace(params=params, apply=apply)
    row = np.arange(3)[:, None]
    prompts = tasks.Prompts(row, row, row + 1, 0 * row[:, 0], row, row + 1)
    adapter = examples.adapter(params, {"kernel": 3})
    route = lora.trace(linear, prompts, adapter, steps=1)
    for exact in (route.loss["kernel"], route.gain["kernel"]):
        np.testing.assert_allclose(-route.slope_removed["kernel"], exact, atol=1e-4)
        np.testing.assert_allclose(route.integrated["kernel"], exact, atol=1e-4)
        np.testing.assert_allclose(route.slope_kept["kernel"], exact, atol=1e-4)


def test_transplant_is_the_gated_adapter_made_smaller(model, route):
    keep = directions.strongest(route.loss, 5)
    assert sum(int(gate.sum()) for gate in keep.values()) == 5
    small = lora.transplant(route.adapter, keep)
    gates = {path: jnp.asarray(gate, jnp.float32) for path, gate in keep.items()}
    expected = metric(model, directions.gated(route.adapter, gates))
    np.testing.assert_allclose(metric(model, small), expected, atol=1e-4)
    assert all(spec.rank == keep[spec.path].sum(axis=-1).max() for spec in small.specs)
    worst = min(route.loss[path][gate].min() for path, gate in keep.items() if gate.any())
    best = max(route.loss[path][~gate].max() for path, gate in keep.items() if not gate.all())
    assert worst >= best
    stacked = {path: np.stack([np.zeros(g.shape), g]) for path, g in keep.items()}
    got = measure(model, families.prompts("right"), route.adapter, stacked, metrics=["kl"])
    assert abs(got[0]) < 1e-6 < got[1]


def test_size_and_rows(model, route):
    everything = directions.size(route.adapter)
    leaves = jax.tree.leaves(route.adapter.leaves)
    assert everything == (3 * (2 + 1 + 2), sum(leaf.size for leaf in leaves))
    none = {path: np.zeros(gate.shape) for path, gate in route.loss.items()}
    assert directions.size(route.adapter, none) == (0, 0)
    found = rows(route)
    assert len(found) == 15 and found[0]["removed"] <= found[-1]["removed"]


def test_bad_input(model, route):
    dora = examples.adapter(model.params, RANKS, variant="dora")
    with pytest.raises(ValueError, match="dora"):
        lora.trace(model, families.prompts(), dora)
    with pytest.raises(ValueError, match="steps: expected a whole number >= 1, got 0"):
        lora.trace(model, families.prompts(), route.adapter, steps=0)
    with pytest.raises(ValueError, match=r"gates: expected the paths"):
        directions.gated(route.adapter, {})
    with pytest.raises(ValueError, match="shape"):
        directions.gated(route.adapter, {path: np.ones(1) for path in route.loss})
    pissa = examples.adapter(model.params, RANKS, variant="pissa")
    with pytest.raises(ValueError, match="plain product"):
        directions.gated(pissa, directions.ones(pissa))
    with pytest.raises(ValueError, match="count"):
        lora.strongest(route.loss, 99)
    with pytest.raises(ValueError, match="at least one direction"):
        lora.transplant(route.adapter, lora.strongest(route.loss, 0))
