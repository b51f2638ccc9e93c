"""The same sweep over models of other people: a plain dict, a `flax.nnx` module, an MLP."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcompress import ablate
from jaxcompress.models import Gates, MLPConfig, create_mlp
from jaxcompress.tasks.prompts import Prompts
from jaxcompress.types import Output
from tests import families, plain

OURS = families.model("gpt2")
PLAIN = plain.PlainModel(OURS.config, plain.from_model(OURS))


class Network(nnx.Module):
    """GPT-2 as an `nnx.Module` whose variables hold the plain parameters."""

    def __init__(self, params):
        self.leaves = nnx.data([nnx.Param(leaf) for leaf in jax.tree.leaves(params)])
        self.structure = jax.tree.structure(params)

    def __call__(self, tokens, **options):
        params = jax.tree.unflatten(self.structure, [leaf[...] for leaf in self.leaves])
        return plain.forward(params, tokens, **options)


class NnxModel:
    """`params` and `apply` for a module: `nnx.split` and `nnx.merge`."""

    def __init__(self, module):
        self.config = OURS.config
        graph, self.params = nnx.split(module)
        self.apply = lambda params, *args, **options: nnx.merge(graph, params)(*args, **options)


NNX = NnxModel(Network(PLAIN.params))


@pytest.mark.parametrize("theirs", [PLAIN, NNX], ids=["plain", "nnx"])
@pytest.mark.parametrize(("over", "kind"), [("heads", "mean"), ("layers", "zero")])
def test_the_same_numbers(theirs, over, kind):
    prompts = families.prompts("right")
    expected = ablate.sweep(OURS, prompts, over, replacement=kind)
    got = ablate.sweep(theirs, prompts, over, replacement=kind)
    np.testing.assert_allclose(got.clean, expected.clean, atol=2e-5)
    np.testing.assert_allclose(got.per_example, expected.per_example, atol=5e-5)


def test_components_can_be_patched_without_resume():
    prompts = families.prompts("right")
    expected = ablate.patch(OURS, prompts, "mlps")
    got = ablate.patch(PLAIN, prompts, "mlps")
    np.testing.assert_allclose(got.per_example, expected.per_example, atol=5e-5)


def test_the_least_that_a_model_can_be():
    """Only tokens and gates: no mask, no edits, no taps."""
    weights = jnp.array([[1.0, 2.0], [0.0, 4.0]])

    def apply(params, tokens, *, gates):
        value = (gates.heads * params).sum()
        logits = jnp.zeros((*tokens.shape, 3)).at[..., 1].set(value)
        return Output(logits, {})

    model = types.SimpleNamespace(
        config=types.SimpleNamespace(layers=2, heads=2), params=weights, apply=apply
    )

    def run(params, tokens, *, gates=None):
        return apply(params, tokens, gates=gates or Gates(heads=jnp.ones((2, 2))))

    model.apply = run
    ones = np.ones((4, 2), int)
    prompts = Prompts(ones, ones, ones, ones[:, 0], ones[:, :1], 2 * ones[:, :1])
    effects = ablate.sweep(model, prompts, replacement="zero")
    np.testing.assert_allclose(effects.clean, 7.0)
    expected = np.broadcast_to(-np.asarray(weights)[..., None], (2, 2, 4))
    np.testing.assert_allclose(effects.per_example, expected)


def test_neurons_of_an_mlp():
    """A network without positions: its inputs are the prompt, its logits the answer."""
    model = create_mlp(MLPConfig(inputs=5, width=4, depth=3), key=jax.random.key(0))
    bits = np.random.default_rng(0).integers(0, 2, (6, 5))
    right = bits.sum(1, keepdims=True) % 2
    last = np.full(6, 4)
    prompts = Prompts(bits, bits, np.ones_like(bits), last, right, 1 - right)
    effects = ablate.sweep(model, prompts, "neurons", replacement="zero").per_example
    assert effects.shape == (2, 4, 6)
    off = np.ones((2, 4), np.float32)
    off[1, 2] = 0

    def logit_difference(gates):
        logits = np.asarray(model.apply(model.params, bits, gates=gates).logits)
        rows = np.arange(6)
        return logits[rows, right[:, 0]] - logits[rows, 1 - right[:, 0]]

    expected = logit_difference(Gates(neurons=off)) - logit_difference(None)
    np.testing.assert_allclose(effects[1, 2], expected, atol=1e-6)
