"""Signs and values: exact on a linear model, the gradient at the gates, one run per edge."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import ablate
from jaxcompress.circuits import Graph, attribute, both_ways
from jaxcompress.circuits.attribution import METHODS
from jaxcompress.models import Edits, Gates, ModelConfig, create
from jaxcompress.tasks import Prompts, logit_difference
from tests import families
from tests.circuits import examples

pytestmark = pytest.mark.slow


@functools.cache
def exact(which="linear", level="edge"):
    model = getattr(examples, which)()
    padding = "right" if which == "gpt2" else "none"
    return attribute(model, examples.prompts(padding), method="exact", level=level)


@pytest.mark.parametrize("method", METHODS[:-1])
def test_attribution_is_exact_on_a_linear_model(method):
    found = attribute(examples.linear(), examples.prompts(), method=method, steps=2)
    scale = np.abs(exact().values).max()
    assert scale > 0.1
    np.testing.assert_allclose(found.values, exact().values, atol=1e-5 * scale)


def test_the_sign_by_hand():
    """embed->logits carries (other - this) . (right - wrong column of the unembedding)."""
    model, prompts = examples.linear(), examples.prompts()
    table = np.asarray(model.params["embed"]["tokens"])
    rows = np.arange(len(prompts))
    at = prompts.answer_position
    change = table[prompts.corrupted[rows, at]] - table[prompts.tokens[rows, at]]
    kernel = np.asarray(model.params["head"]["kernel"]).T
    slope = kernel[prompts.correct[:, 0]] - kernel[prompts.wrong[:, 0]]
    place = Graph.of(model.config).edge("embed->logits")
    expected = (change * slope).sum(1).mean()
    np.testing.assert_allclose(exact().values[place], expected, rtol=1e-4)
    scores = attribute(model, prompts, method="eap")
    np.testing.assert_allclose(scores.importance[place], -expected, rtol=1e-4)


def test_on_a_linear_model_all_edges_of_the_logits_add_up():
    """Every path ends in an edge into the logits, so these sum to corrupted minus clean."""
    found = exact()
    total = found.corrupted.mean() - found.clean.mean()
    np.testing.assert_allclose(found.values[-1].sum(), total, rtol=1e-4)


def test_nodes_are_the_gradient_at_the_gates():
    model, prompts = examples.gpt2(), examples.prompts("right")
    found = attribute(model, prompts, level="node", method="eap")
    mask = {"attention_mask": prompts.attention_mask}
    taps = model.apply(model.params, prompts.corrupted, taps=("heads", "mlps"), **mask).taps

    def total(gates):
        logits = model.apply(
            model.params, prompts.tokens, gates=gates, edits=Edits(**taps),
            answer_position=prompts.answer_position, **mask,
        ).logits  # fmt: skip
        return logit_difference(logits, jax.tree.map(jnp.asarray, prompts)).mean()

    slopes = jax.grad(total)(Gates(heads=jnp.ones((2, 2)), mlps=jnp.ones(2)))
    values = found.values[1:].reshape(2, 3)
    np.testing.assert_allclose(values[:, :2], -slopes.heads, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(values[:, 2], -slopes.mlps, rtol=1e-3, atol=1e-5)


def test_exact_nodes_are_patched_components():
    model, prompts = examples.gpt2(), examples.prompts("right")
    values = exact("gpt2", "node").values[1:].reshape(2, 3)
    for over, ours in (("heads", values[:, :2]), ("mlps", values[:, 2])):
        effects = ablate.patch(model, prompts, over, direction="noise", progress=False)
        np.testing.assert_allclose(ours, effects.mean, atol=1e-5)


def test_neurons_sum_to_their_mlp():
    """An MLP is linear in its neurons' activations, wherever the gradient is taken."""
    model, prompts = examples.gpt2(), examples.prompts("right")
    sums = {}
    for method in ("eap", "eap-ig"):
        neurons = attribute(model, prompts, level="neuron", method=method, steps=3)
        nodes = attribute(model, prompts, level="node", method=method, steps=3)
        mlps = [nodes.values[nodes.graph.node(f"m{i}")] for i in range(2)]
        sums[method] = neurons.values.sum(1)
        np.testing.assert_allclose(sums[method], mlps, rtol=1e-3, atol=1e-5)
    assert np.abs(sums["eap"] - sums["eap-ig"]).max() > 1e-3


def test_batches_positions_and_padding_change_nothing():
    model, prompts = examples.gpt2(), examples.prompts("right")
    whole = attribute(model, prompts, steps=2)
    parts = attribute(model, prompts, steps=2, batch=1, per_position=True)
    np.testing.assert_allclose(parts.values.sum(0), whole.values, atol=1e-5)
    assert parts.values.shape == (prompts.tokens.shape[1], *whole.graph.shape)


@pytest.mark.parametrize("run", [ablate.sweep, attribute])
@pytest.mark.parametrize(
    ("outputs", "change", "message"),
    [
        (15, {"tokens": 4}, r"prompts\.tokens: expected token ids below 11"),
        (5, {}, r"prompts\.(correct|wrong): expected token ids below 5"),
        (15, {"wrong": 20}, r"prompts\.wrong: expected token ids below 15"),
        (15, {"wrong": 8}, None),
    ],
)
def test_tokens_are_those_read_and_answers_those_written(run, outputs, change, message):
    model = families.model("research", layers=1, outputs=outputs, causal=True)
    prompts = examples.prompts()
    most = {name: getattr(prompts, name) + more for name, more in change.items()}
    prompts = dataclasses.replace(prompts, **most)
    if message is None:
        assert prompts.wrong.max() >= 11
        assert np.isfinite(run(model, prompts).clean).all()
        return
    with pytest.raises(ValueError, match=message):
        run(model, prompts)


def test_integrated_gradients_of_the_inputs_by_hand():
    """Their mean over points, of which the first is the corrupted run: two one-step gradients."""
    model, prompts = examples.gpt2(), examples.prompts("right")
    ends = attribute(model, prompts, method="clean-corrupted").values
    clean = attribute(model, prompts, method="eap").values
    first = attribute(model, prompts, method="eap-ig", steps=1).values
    np.testing.assert_allclose(ends, (clean + first) / 2, atol=1e-5)


def test_kl_and_means():
    model, prompts = examples.gpt2(), examples.prompts("right")
    found = attribute(model, prompts, metric="kl", steps=2)
    assert (found.clean == 0).all()
    assert (found.corrupted > 0).all()
    assert np.abs(found.values).max() > 0
    np.testing.assert_array_equal(found.importance, found.values)
    prompts = examples.prompts()
    mean = attribute(examples.linear(), prompts, method="eap", replacement="mean")
    ours = attribute(examples.linear(), prompts, method="exact", replacement="mean")
    np.testing.assert_allclose(mean.values, ours.values, atol=1e-5)


def test_both_ways_of_a_divergence_do_not_cancel():
    """From either run, what patching a component does is a divergence, and so is their mean."""
    model, prompts = examples.gpt2(), examples.prompts("right")
    found = both_ways(model, prompts, metric="kl", level="node", progress=False)
    mean = 0
    for way in ("noise", "denoise"):
        patched = ablate.patch(
            model, prompts, "mlps", direction=way, metric="kl", progress=False
        ).mean
        mlps = found[way].values[1:].reshape(2, 3)[:, 2]
        np.testing.assert_allclose(mlps, patched, atol=1e-5)
        assert (mlps > 1e-3).all()
        mean = mean + mlps / 2
    np.testing.assert_allclose(found["mean"].values[1:].reshape(2, 3)[:, 2], mean, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ig"}, "method: expected one of"),
        ({"steps": 0}, "steps: expected a whole number"),
        ({"memory": 100}, "memory: expected at least .* bytes.* pass a larger memory="),
        ({"level": "neuron", "method": "exact"}, "method: expected one of .* for neurons"),
        ({"level": "neuron", "replacement": "mean"}, "replacement: expected resample"),
        ({"level": "neuron", "per_position": True}, "per_position: expected False for neurons"),
        ({"level": "node", "method": "exact", "per_position": True}, "False for nodes by exact"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        attribute(examples.gpt2(), examples.prompts(), **options)


def test_many_receivers_and_positions_together_are_those_of_prompts_one_by_one():
    """72 receivers of 64 rows: a vmap over this many was compiled into something else."""
    config = ModelConfig(
        family="gpt2", layers=1, heads=24, kv_heads=24, head_dim=2, width=48, neurons=16, vocab=50,
        context=32,
    )  # fmt: skip
    model = create(config, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    tokens, corrupted = rng.integers(0, 50, (2, 4, 32))
    ones, last = np.ones((4, 32), int), np.full(4, 31)
    prompts = Prompts(tokens, corrupted, ones, last, *rng.integers(0, 50, (2, 4, 1)))
    found = [attribute(model, prompts, method="eap", batch=batch).values for batch in (4, 1)]
    np.testing.assert_allclose(*found, atol=1e-5 * np.abs(found[1]).max())
