"""The forward by edges: all on, all off, one by one, and its gradient at the mask."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.models import Edits, Gates
from jaxcompress.types import Senders
from tests import families, plain
from tests.families import BATCH, LENGTH

pytestmark = pytest.mark.slow

# Uneven layers, and each way of being unlike GPT-2.
FAMILIES = tuple(name for name in families.NAMES if name != "distilbert")  # bert with no types


@functools.cache
def setting(name):
    """A model, both runs, the padding, and what the corrupted run's senders write."""
    model = families.model(name)
    model = model.replace(params=jax.tree.map(jnp.asarray, model.params))
    options = {"attention_mask": families.mask("right")}
    clean, other = families.tokens(0), families.tokens(1)
    base, _ = jax.jit(functools.partial(model.edges.record, model.params, **options))(other)
    run = jax.jit(lambda mask, base: model.edges.run(model.params, clean, mask, base, **options))
    return model, clean, other, options, base, run


@pytest.mark.parametrize("name", FAMILIES)
def test_all_edges_on_is_the_clean_run_and_off_the_corrupted_one(name):
    model, clean, other, options, base, run = setting(name)
    for mask, tokens in ((jnp.ones, clean), (jnp.zeros, other)):
        expected = model.apply(model.params, tokens, **options).logits
        np.testing.assert_allclose(run(mask(model.edges.shape), base), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_sender_without_edges_is_a_patched_head_or_mlp(name):
    model, clean, _, options, base, run = setting(name)
    heads = model.config.heads
    head, mlp = 1 + (heads + 1) + 2, 1 + heads
    for column, gates in (
        (head, Gates.off(model.config, heads=[(1, 2)])),
        (mlp, Gates.off(model.config, mlps=[0])),
    ):
        fields = Edits(heads=base.heads) if gates.mlps is None else Edits(mlps=base.mlps)
        expected = model.apply(model.params, clean, gates=gates, edits=fields, **options).logits
        mask = jnp.ones(model.edges.shape).at[:, column].set(0)
        np.testing.assert_allclose(run(mask, base), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "each"), [("llama", False), ("bert", True), ("uneven", False), ("gpt_neox", False)]
)
def test_scores_are_the_gradient_at_the_mask(name, each):
    """d metric / d mask at ones is (this - other) times the gradient at the receiver."""
    model, clean, _, options, base, _ = setting(name)
    weights = jnp.asarray(np.random.default_rng(3).standard_normal((BATCH, LENGTH, 11)), "float32")

    def objective(logits):
        return (logits * weights * options["attention_mask"][..., None]).sum()

    @jax.jit
    def both(mask):
        now, _ = model.edges.record(model.params, clean, **options)
        delta = jax.tree.map(jnp.subtract, base, now)
        found = model.edges.scores(
            model.params, clean, delta, objective, per_position=each, block=4, **options
        )
        expected = jax.grad(
            lambda m: objective(model.edges.run(model.params, clean, m, base, **options))
        )(mask)
        return expected, found

    shape = model.edges.shape
    expected, found = both(jnp.ones((LENGTH, *shape) if each else shape))
    scale = float(jnp.abs(expected).max())
    assert scale > 0.1
    np.testing.assert_allclose(found, -expected, atol=2e-4 * scale)


def test_every_single_edge_of_a_model_written_again():
    """A GPT-2 in plain NumPy whose receivers sum their senders in a loop."""
    model, clean, _, options, base, run = setting("gpt2")
    weights = plain.from_model(model)
    rows, columns = model.edges.shape
    rng = np.random.default_rng(0)
    masks = [(rng.random((rows, columns)) < share).astype(np.float32) for share in (0.5, 0.9)]
    masks.append(np.ones((rows, columns), np.float32))
    masks[-1][rows - 2, 3] = 0
    corrupted = naive(weights, model.config, families.tokens(1), options, None, None)[1]
    for mask in masks:
        expected, _ = naive(weights, model.config, clean, options, mask, corrupted)
        np.testing.assert_allclose(run(jnp.asarray(mask), base), expected, atol=2e-5)


def naive(weights, config, tokens, options, mask, other):
    """Logits and what every sender wrote; without a mask, a plain run."""
    attention_mask = np.asarray(options["attention_mask"])
    length, each = tokens.shape[1], config.heads + 2 * config.kv_heads + 1
    positions = np.maximum(np.cumsum(attention_mask, 1) - 1, 0)
    visible = np.tril(np.ones((length, length), bool))[None] & (attention_mask == 1)[:, None]
    wte, wpe = np.asarray(weights["wte"]), np.asarray(weights["wpe"])
    written, constant = [wte[tokens * attention_mask] + wpe[positions]], 0.0

    def read(row):
        total = np.zeros_like(written[0]) + constant
        for s, value in enumerate(written):
            m = 1.0 if mask is None else mask[row, s]
            total = total + m * value + (0 if mask is None else (1 - m) * other[s])
        return total

    def norm(x, pair):
        return np.asarray(plain.layer_norm(jnp.asarray(x), pair))

    for i, layer in enumerate(weights["layers"]):
        heads = []
        for h in range(config.heads):
            q, k, v = (
                norm(read(i * each + part * config.heads + h), layer["ln_1"])
                @ np.asarray(layer[name][0])[:, h]
                + np.asarray(layer[name][1])[h]
                for part, name in enumerate("qkv")
            )
            scores = q @ k.swapaxes(1, 2) / np.sqrt(config.head_dim)
            scores = np.where(visible, scores, -1e30)
            pattern = np.exp(scores - scores.max(-1, keepdims=True))
            pattern /= pattern.sum(-1, keepdims=True)
            heads.append(pattern @ v @ np.asarray(layer["o"][0])[h])
        written += heads
        constant = constant + np.asarray(layer["o"][1])
        x = norm(read(i * each + each - 1), layer["ln_2"])
        h = x @ np.asarray(layer["up"][0]) + np.asarray(layer["up"][1])
        h = np.asarray(jax.nn.gelu(jnp.asarray(h), approximate=True))
        written.append(h @ np.asarray(layer["down"][0]) + np.asarray(layer["down"][1]))
    last = norm(read(config.layers * each), weights["ln_f"])
    return last @ wte.T, written


@pytest.mark.parametrize("name", ["distilbert"])
def test_masks_per_position_under_vmap_and_means(name):
    model, clean, _, options, base, run = setting(name)
    rng = np.random.default_rng(2)
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=-leaf.ndim + 1, keepdims=True), base)
    mean = Senders(base.embed.mean(0, keepdims=True), *(x.mean(1, keepdims=True) for x in base[1:]))
    masks = jnp.asarray(rng.random((2, *model.edges.shape)), jnp.float32)
    spread = jnp.broadcast_to(masks[:, None], (2, LENGTH, *model.edges.shape))
    once = jax.jit(jax.vmap(
        lambda m: model.edges.run(model.params, clean, m, mean, **options)
    ))  # fmt: skip
    found = once(spread)
    full = jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), mean, base)
    for mask, logits in zip(masks, found, strict=True):
        np.testing.assert_allclose(logits, run(mask, full), atol=1e-5)


def test_answers_only_and_a_shifted_point():
    model, clean, other, options, base, _ = setting("gpt2")
    where, which = np.array([5, 2, 4]), np.array([[1, 2], [3, 4], [0, 10]])
    only = {"answer_position": where, "answer_tokens": which}
    mask = jnp.ones(model.edges.shape)
    logits = model.edges.run(model.params, clean, mask, base, **only, **options)
    expected = model.apply(model.params, clean, **only, **options).logits
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    # Shifted all the way at the embedding, the clean run is the corrupted one.
    now, _ = model.edges.record(model.params, clean, **options)
    move = base.embed - now.embed
    seen = []

    def objective(logits):
        seen.append(logits)
        return logits.sum()

    shift = Senders(move, None, None)
    with jax.disable_jit(False):
        model.edges.scores(model.params, clean, now, lambda x: objective(x), shift=shift, **options)
    expected = model.apply(model.params, other, **options).logits
    value = seen[-1]
    value = getattr(value, "primal", value)
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_a_mask_of_another_shape():
    model, clean, _, _, base, _ = setting("gpt2")
    with pytest.raises(ValueError, match="mask: expected shape"):
        model.edges.run(model.params, clean, jnp.ones((3, 3)), base)
