"""Edits against the formulas in float64, exact merges, gradients, and what an optimizer holds."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress import lora, train, tree
from jaxcompress.lora import Layout
from jaxcompress.train.lora_plus import lora_plus
from jaxcompress.types import Adapter
from tests import families
from tests.lora import examples

VARIANTS = ("lora", "rslora", "dora", "pissa")
RANKS = {"*/attn/query/kernel": 2, "*/attn/output/kernel": 3, "*/down/kernel": 1}


def by_hand(weight, leaves, spec):
    """The papers' formulas for one (out, in) matrix in float64."""
    a, b = (np.asarray(leaves[name], np.float64).T for name in ("a", "b"))
    scale = spec.alpha / (np.sqrt(spec.rank) if spec.variant == "rslora" else spec.rank)
    moved = weight + scale * b @ a
    if spec.variant == "pissa":
        a0, b0 = (np.asarray(leaves[name], np.float64).T for name in ("a0", "b0"))
        moved = weight - scale * b0 @ a0 + scale * b @ a
    if spec.variant == "dora":
        length = np.linalg.norm(moved, axis=1, keepdims=True)
        moved = np.asarray(leaves["m"], np.float64)[:, None] * moved / length
    return moved


@pytest.mark.parametrize(
    ("name", "variant"), [*(("llama", variant) for variant in VARIANTS), ("uneven", "dora")]
)
def test_merge_is_the_formula(name, variant):
    params = families.model(name).params
    adapter = examples.adapter(params, RANKS, variant=variant)
    merged, flat = tree.paths(lora.merge(params, adapter)), tree.paths(params)
    assert len(adapter.specs) == (3 if name == "llama" else 6)
    for spec in adapter.specs:
        leaf, leaves = np.asarray(flat[spec.path], np.float64), adapter.leaves[spec.path]
        got = np.asarray(merged[spec.path])
        for layer in range(len(leaf)) if name == "llama" else [None]:
            one = leaf if layer is None else leaf[layer]
            own = leaves if layer is None else tree.index(leaves, layer)
            axes = 2 if "output" in spec.path else 1
            matrix = one.reshape(np.prod(one.shape[:axes]), -1).T
            expected = by_hand(matrix, own, spec).T.reshape(one.shape)
            np.testing.assert_allclose(got if layer is None else got[layer], expected, atol=1e-6)
            assert np.abs(expected - one).max() > 0.1
    untouched = set(flat) - {spec.path for spec in adapter.specs}
    assert all(merged[path] is flat[path] for path in untouched)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_adapter_starts_as_the_identity(variant, key):
    params = families.model("gpt2").params
    adapter = lora.init(params, RANKS, alpha=5, variant=variant, key=key)
    jax.tree.map(np.testing.assert_array_equal, lora.merge(params, adapter), params)


def test_first_factors_are_drawn_as_by_peft(key):
    """Kaiming-uniform with slope sqrt(5): uniform within 1 / sqrt(in); other keys, other draws."""
    params = {"x": {"kernel": jnp.zeros((16, 300))}, "y": {"kernel": jnp.zeros((16, 300))}}
    leaves = lora.init(params, ["*"], rank=16, alpha=1, key=key).leaves
    a = np.asarray(leaves["x/kernel"]["a"])
    assert np.abs(a).max() <= 0.25 and np.abs(a).max() > 0.24
    np.testing.assert_allclose(a.std(), 0.25 / np.sqrt(3), rtol=0.1)
    assert not leaves["x/kernel"]["b"].any()
    assert (a != leaves["y/kernel"]["a"]).all()


def test_pissa_starts_with_the_leading_singular_directions(key):
    weight = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
    rule = {"rule": lambda path: Layout(layers=1)}
    adapter = lora.init({"w": weight}, ["w"], rank=2, alpha=6, variant="pissa", key=key, **rule)
    leaves = adapter.leaves["w"]
    rest = weight - 3.0 * np.matmul(leaves["a0"], leaves["b0"])
    values = np.linalg.svd(weight, compute_uv=False)
    np.testing.assert_allclose(
        np.linalg.svd(rest, compute_uv=False)[:, :2], values[:, 2:], atol=1e-5
    )
    # Both factors have the same share of the singular values.
    for side, axis in (("a", 1), ("b", 2)):
        np.testing.assert_allclose(
            np.square(leaves[side]).sum(axis=axis), values[:, :2] / 3, rtol=1e-4
        )


@pytest.mark.parametrize("variant", ["lora", "rslora", "pissa"])
def test_unmerge_undoes_merge(variant):
    params = families.model("llama").params
    adapter = examples.adapter(params, RANKS, variant=variant)
    back = lora.unmerge(lora.merge(params, adapter), adapter)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), back, params)


def test_dora_cannot_be_unmerged():
    params = families.model("llama").params
    adapter = examples.adapter(params, RANKS, variant="dora")
    with pytest.raises(ValueError, match="dora at .* keep the base"):
        lora.unmerge(params, adapter)


def test_half_precision_is_merged_in_float32():
    """A step far below the spacing of bfloat16 at 1 must not get lost before the sum."""
    params = {"kernel": jnp.ones((4, 4), jnp.bfloat16)}
    adapter = lora.init(params, ["kernel"], rank=4, alpha=4, key=jax.random.key(0))
    factors = {"a": 1.0039 * jnp.eye(4), "b": 1.0039 * jnp.eye(4)}
    adapter = lora.with_trained(adapter, {"kernel": factors})
    merged = lora.merge(params, adapter)["kernel"]
    assert merged.dtype == jnp.bfloat16
    expected = (1 + np.float32(1.0039) ** 2 * np.eye(4)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(merged, expected)


def test_gradient_of_dora_takes_the_norm_as_constant():
    """Section 4.3 of the paper: dV = m / |V| * dW', and dm = sum over inputs of dW' * V / |V|."""
    rng = np.random.default_rng(0)
    weight, outer = (rng.standard_normal((5, 4)).astype(np.float32) for _ in range(2))
    adapter = examples.adapter({"kernel": weight}, {"kernel": 2}, alpha=6.0, variant="dora")

    def loss(trained):
        merged = lora.merge({"kernel": weight}, lora.with_trained(adapter, trained))
        return (merged["kernel"] * outer).sum()

    got = jax.grad(loss)(lora.trainable(adapter))["kernel"]
    a, b, m = (np.asarray(adapter.leaves["kernel"][name]) for name in ("a", "b", "m"))
    moved = weight + 3.0 * a @ b
    length = np.linalg.norm(moved, axis=0)
    inner = outer * m / length
    np.testing.assert_allclose(got["m"], (outer * moved / length).sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(got["a"], 3.0 * inner @ b.T, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(got["b"], 3.0 * a.T @ inner, rtol=1e-3, atol=1e-5)


def test_dora_leaves_empty_outputs_empty():
    weight = jnp.array([[1.0, 0.0], [2.0, 0.0]])
    adapter = lora.init(
        {"kernel": weight}, ["kernel"], rank=1, alpha=1, variant="dora", key=jax.random.key(0)
    )
    np.testing.assert_array_equal(adapter.merged({"kernel": weight})["kernel"], weight)


def test_constants_of_pissa_have_no_gradient():
    weight = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    adapter = examples.adapter({"kernel": weight}, {"kernel": 2}, variant="pissa")
    grad = jax.grad(lambda one: lora.merge({"kernel": weight}, one)["kernel"].sum())(adapter)
    found = {name: bool(leaf.any()) for name, leaf in grad.leaves["kernel"].items()}
    assert found == {"a": True, "b": True, "a0": False, "b0": False}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_optimizer_holds_two_copies_of_the_adapter_and_none_of_the_base(variant):
    params = families.model("gpt2").params
    adapter = examples.adapter(params, RANKS, variant=variant)
    trained = lora.trainable(adapter)
    state = optax.adam(1e-3).init(trained)
    counter = 4
    assert tree.nbytes(state) == 2 * tree.nbytes(trained) + counter
    # a and b of three targets in three layers; m is one number for each output.
    sides = {"*/query": (8, 16, 2), "*/output": (16, 8, 3), "*/down": (6, 8, 1)}
    numbers = 3 * sum((i + o) * r + o * (variant == "dora") for i, o, r in sides.values())
    assert tree.nbytes(trained) == 4 * numbers
    assert tree.nbytes(trained) < tree.nbytes(params) / 2


def test_training_moves_the_adapter_alone():
    """A change of rank one is found by an adapter of rank one; the base is no argument at all."""
    rng = np.random.default_rng(0)
    base = {"kernel": rng.standard_normal((6, 5)).astype(np.float32)}
    change = rng.standard_normal((6, 1)) @ rng.standard_normal((1, 5))
    adapter = lora.init(base, ["kernel"], rank=1, alpha=1, key=jax.random.key(0))

    def loss(trained, wanted, key):
        merged = lora.with_trained(adapter, trained).merged(base)
        return jnp.square(merged["kernel"] - wanted).sum(), {}

    optimizer = lora_plus(optax.adam(0.02), ratio=2)
    step = train.make_step(loss, optimizer)
    state = train.create(lora.trainable(adapter), optimizer, jax.random.key(0))
    wanted = jnp.asarray(base["kernel"] + change, jnp.float32)
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, wanted), state, None, length=500))
    state, metrics = run(state)
    assert metrics["loss"][0] > 5 and metrics["loss"][-1] < 1e-4


@pytest.mark.parametrize("name", ["gpt2", "uneven"])
def test_apply_and_resume_take_an_adapter(name):
    model, tokens = families.model(name), families.tokens()
    adapter = examples.adapter(model.params, RANKS)
    assert isinstance(adapter, Adapter)
    merged = lora.merge(model.params, adapter)
    expected = model.apply(merged, tokens, taps=("resid",))
    got = model.apply(model.params, tokens, lora=adapter, taps=("resid",))
    np.testing.assert_allclose(got.logits, expected.logits, atol=1e-6)
    before = model.apply(model.params, tokens, taps=("resid",))
    assert np.abs(got.logits - before.logits).max() > 0.1
    late = model.resume(model.params, got.taps["resid"][1], 1, lora=adapter)
    np.testing.assert_allclose(late.logits, expected.logits, atol=1e-5)


def test_trees_of_other_libraries():
    """(out, in) as in PyTorch and Equinox, lists, a tied axis of heads; named by a rule."""
    rng = np.random.default_rng(0)
    params = {"layers": [{"weight": rng.standard_normal((4, 6)), "act": "relu"} for _ in range(2)]}
    rule = {"rule": lambda path: Layout(transposed=True) if path.endswith("weight") else None}
    key = jax.random.key(0)
    made = lora.init(params, ["*/1/*"], rank=2, alpha=4, variant="dora", key=key, **rule)
    made = examples.randomized(made)
    leaves = made.leaves["layers/1/weight"]
    assert (leaves["a"].shape, leaves["m"].shape) == ((6, 2), (4,))
    merged = made.merged(params)
    expected = by_hand(params["layers"][1]["weight"], leaves, made.specs[0])
    np.testing.assert_allclose(merged["layers"][1]["weight"], expected, atol=1e-6)
    assert merged["layers"][0] == params["layers"][0] and merged["layers"][1]["act"] == "relu"


def test_wrong_adapters(key):
    params = families.model("gpt2").params
    with pytest.raises(ValueError, match="variant: expected one of .* got 'lorra'"):
        lora.init(params, ["*"], rank=1, alpha=1, variant="lorra", key=key)
    with pytest.raises(ValueError, match="alpha: expected a number above 0"):
        lora.init(params, ["*"], rank=1, alpha=0, key=key)
    with pytest.raises(ValueError, match="key: expected a typed jax PRNG key, got uint32"):
        lora.init(params, ["*"], rank=1, alpha=1, key=jax.random.key_data(key))
    with pytest.raises(ValueError, match=r"targets: expected globs .* no parameter .* `rule`"):
        lora.init({"w": jnp.ones((2, 2))}, ["w"], rank=1, alpha=1, key=key)
    adapter = examples.adapter(params, RANKS)
    with pytest.raises(ValueError, match="adapter: expected paths of the parameters, got 'blocks/"):
        lora.merge({"kernel": jnp.ones(3)}, adapter)
    leaves = {path: {**own, "b": own["b"][:, :, :1]} for path, own in adapter.leaves.items()}
    narrow = dataclasses.replace(adapter, leaves=leaves)
    with pytest.raises(ValueError, match=r"\['b'\]: expected shape \(3, 3, 8\), got .*1\)"):
        lora.merge(params, narrow)
