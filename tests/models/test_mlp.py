"""The plain ReLU network: PyTorch's numbers and initialisation, and gates that are widths."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxcompress.models import Gates, MLPConfig, create_mlp
from jaxcompress.models.mlp import apply, init

BATCH = 5


def network(depth=4, width=6, inputs=7):
    return create_mlp(MLPConfig(inputs, width, depth), key=jax.random.key(1))


def layers(model):
    """Kernels and biases in order."""
    p = model.params
    hidden = zip(p["hidden"]["kernel"], p["hidden"]["bias"], strict=True)
    ends = [(p[name]["kernel"], p[name]["bias"]) for name in ("first", "last")]
    return [ends[0], *hidden, ends[1]]


def bits(model, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (BATCH, model.config.inputs))


@pytest.mark.torch
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_equals_a_stack_of_torch_linear(depth):
    model, stack = network(depth), []
    for kernel, bias in layers(model):
        linear = torch.nn.Linear(*kernel.shape)
        linear.weight.data = torch.tensor(np.asarray(kernel)).T
        linear.bias.data = torch.tensor(np.asarray(bias))
        stack += [linear, torch.nn.ReLU()]
    x = bits(model)
    expected = torch.nn.Sequential(*stack[:-1])(torch.tensor(x, dtype=torch.float32))
    out = model.apply(model.params, x, taps=("neurons",))
    np.testing.assert_allclose(out.logits, expected.detach().numpy(), atol=1e-6)
    seen = torch.nn.Sequential(*stack[:2])(torch.tensor(x, dtype=torch.float32))
    assert out.taps["neurons"].shape == (depth - 1, BATCH, 6)
    np.testing.assert_allclose(out.taps["neurons"][0], seen.detach().numpy(), atol=1e-6)


def test_initialisation_is_uniform_by_fan_in():
    """narrow's networks: U(+-1/sqrt(fan_in)) for weights and biases alike; 25,602 parameters."""
    config = MLPConfig(inputs=68, width=128, depth=3)
    params = init(config, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 25602
    for name, fan_in in (("first", 68), ("hidden", 128), ("last", 128)):
        bound = fan_in**-0.5
        kernel = np.asarray(params[name]["kernel"])
        assert 0.95 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.1)
        assert 0 < np.abs(params[name]["bias"]).max() <= bound
    assert not np.array_equal(params["first"]["bias"], params["last"]["bias"][:1])


def test_gated_is_the_narrower_network_and_widths_run_under_vmap():
    model, widths = network(width=8), (3, 5, 8)
    x = bits(model)
    gates = (np.arange(8) < np.array(widths)[:, None]).astype(np.float32)
    gates = Gates(neurons=jnp.asarray(np.repeat(gates[:, None], 3, axis=1)))
    got = jax.vmap(lambda g: model.apply(model.params, x, gates=g).logits)(gates)
    for i, width in enumerate(widths):
        cut = {
            "first": jax.tree.map(lambda leaf, w=width: leaf[..., :w], model.params["first"]),
            "hidden": {
                "kernel": model.params["hidden"]["kernel"][:, :width, :width],
                "bias": model.params["hidden"]["bias"][:, :width],
            },
            "last": {**model.params["last"], "kernel": model.params["last"]["kernel"][:width]},
        }
        small = create_mlp(MLPConfig(7, width, 4), cut)
        np.testing.assert_allclose(got[i], small.apply(small.params, x).logits, atol=1e-6)


def test_gates_per_example_equal_the_loop():
    model = network()
    x = bits(model)
    gates = np.random.default_rng(2).uniform(0, 1, (BATCH, 3, 6)).astype(np.float32)
    got = model.apply(model.params, x, gates=Gates(neurons=gates)).logits
    for b in range(BATCH):
        alone = model.apply(model.params, x[b : b + 1], gates=Gates(neurons=gates[b])).logits
        np.testing.assert_allclose(got[b], alone[0], atol=1e-6)
    whole = model.apply(model.params, x).logits
    same = model.apply(model.params, x, gates=Gates(neurons=np.ones((3, 6), np.float32))).logits
    np.testing.assert_allclose(whole, same, atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (6,), (3, 1), (1, 6), (1, 3, 6), (4, 3, 6), (5, 1, 6)])
def test_wrong_gates_are_errors(shape):
    model = network()
    with pytest.raises(ValueError, match=r"gates\.neurons: expected shape \(3, 6\) or \(5, 3, 6\)"):
        model.apply(model.params, bits(model), gates=Gates(neurons=np.ones(shape)))


def test_other_errors():
    model = network()
    x = bits(model)
    with pytest.raises(ValueError, match=r"gates\.heads: expected None: an MLP has neurons only"):
        model.apply(model.params, x, gates=Gates(heads=np.ones((3, 1))))
    with pytest.raises(ValueError, match="taps: expected one of"):
        model.apply(model.params, x, taps=("resid",))
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, 7\)"):
        apply(model.config, model.params, x[:, :6])
    last = {"kernel": model.params["last"]["kernel"]}
    with pytest.raises(ValueError, match=r"params: .*missing: \['last/bias'\]"):
        create_mlp(model.config, {**model.params, "last": last})
    with pytest.raises(ValueError, match="params/first/kernel: expected shape"):
        create_mlp(MLPConfig(8, 6, 4), model.params)
    with pytest.raises(ValueError, match="either params or key"):
        create_mlp(model.config)
    with pytest.raises(ValueError, match=r"config\.depth"):
        MLPConfig(7, 6, 1)


def test_equal_configurations_share_their_apply():
    assert network().apply is network().replace(name="again").apply
