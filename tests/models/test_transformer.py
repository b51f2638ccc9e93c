"""The forward: padding, batch size, taps, answers, the cost of nothing, and its errors."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.models import Gates, init
from jaxcompress.models.transformer import apply
from tests import families, plain
from tests.families import BATCH, LENGTH


def logits(model, tokens, **options):
    return model.apply(model.params, tokens, **options).logits


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_padding_and_batch_size_change_nothing(name):
    model = families.model(name)
    tokens = families.tokens()
    alone = np.concatenate([logits(model, tokens[b : b + 1]) for b in range(BATCH)])
    np.testing.assert_allclose(logits(model, tokens), alone, atol=1e-5)
    pad, filling = np.ones((BATCH, 2), int), np.random.default_rng(9).integers(0, 11, (BATCH, 2))
    ones = np.ones_like(tokens)
    right = logits(model, np.hstack([tokens, filling]), attention_mask=np.hstack([ones, 0 * pad]))
    left = logits(model, np.hstack([filling, tokens]), attention_mask=np.hstack([0 * pad, ones]))
    np.testing.assert_allclose(right[:, :LENGTH], alone, atol=1e-5)
    np.testing.assert_allclose(left[:, 2:], alone, atol=1e-5)


def test_taps_mean_what_they_say():
    model = families.model("gpt2")
    names = ("attns", "heads", "mlps", "neurons", "pattern", "resid")
    mask = families.mask("left")
    out = model.apply(model.params, families.tokens(), attention_mask=mask, taps=names)
    theirs = plain.forward(
        plain.from_model(model),
        jnp.asarray(families.tokens()),
        attention_mask=jnp.asarray(mask),
        taps=names,
    )
    expected = {
        "attns": (3, BATCH, LENGTH, 8),
        "heads": (3, BATCH, LENGTH, 4, 4),
        "mlps": (3, BATCH, LENGTH, 8),
        "neurons": (3, BATCH, LENGTH, 6),
        "pattern": (3, BATCH, 4, LENGTH, LENGTH),
        "resid": (4, BATCH, LENGTH, 8),
    }
    assert {name: tap.shape for name, tap in out.taps.items()} == expected
    for name in names:
        axis = 3 if name == "pattern" else 2
        real = np.moveaxis(np.asarray(out.taps[name]), axis, 2)[:, mask == 1]
        same = np.moveaxis(np.asarray(theirs.taps[name]), axis, 2)[:, mask == 1]
        np.testing.assert_allclose(real, same, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_outputs_follow_from_taps(name):
    model, config = families.model(name), families.config(name)
    taps = model.apply(
        model.params, families.tokens(), taps=("attns", "heads", "mlps", "neurons", "pattern",
                                               "resid")
    ).taps  # fmt: skip
    attn, mlp = model.params["blocks"]["attn"], model.params["blocks"]["mlp"]
    kernel = attn["output"]["kernel"]
    written = jnp.einsum("lbthd,lhdm->lbtm", taps["heads"], kernel)
    down = jnp.einsum("lbtf,lfm->lbtm", taps["neurons"], mlp["down"]["kernel"])
    if config.output_bias:
        written = written + attn["output"]["bias"][:, None, None]
        down = down + mlp["down"]["bias"][:, None, None]
    np.testing.assert_allclose(taps["attns"], written, atol=1e-5)
    np.testing.assert_allclose(taps["mlps"], down, atol=1e-5)
    np.testing.assert_allclose(taps["pattern"].sum(-1), 1.0, atol=1e-6)
    if config.causal:
        assert (np.triu(np.asarray(taps["pattern"]), 1) == 0).all()
    if not config.post_norm:
        stream = taps["resid"][:1] + jnp.cumsum(taps["attns"] + taps["mlps"], axis=0)
        np.testing.assert_allclose(taps["resid"][1:], stream, atol=1e-5)


def test_taps_of_uneven_layers_are_padded_with_zeros():
    model = families.model("uneven")
    names = ("heads", "neurons", "pattern", "resid")
    taps = model.apply(model.params, families.tokens(), taps=names).taps
    assert taps["heads"].shape == (3, BATCH, LENGTH, 4, 4)
    assert (taps["heads"][1, :, :, 2:] == 0).all() and (taps["heads"][2] == 0).all()
    assert (taps["neurons"][1, ..., 3:] == 0).all() and (taps["neurons"][0] != 0).any()
    # The last layer has no heads and no neurons left: it writes its two biases and nothing else.
    blocks = model.params["blocks"]["2"]
    bias = blocks["attn"]["output"]["bias"] + blocks["mlp"]["down"]["bias"]
    wrote = taps["resid"][3] - taps["resid"][2]
    np.testing.assert_allclose(wrote, jnp.broadcast_to(bias, wrote.shape), atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_answers_are_slices_of_the_logits(name):
    model, mask = families.model(name), families.mask("right")
    where, rows = np.array([LENGTH - 1, 2, 0]), np.arange(BATCH)
    wanted = np.array([[1, 10], [0, 0], [4, 2]])
    rng = np.random.default_rng(3)
    place = rng.uniform(0, 1, (BATCH, LENGTH, 3, 4)).astype(np.float32)
    options = {"attention_mask": mask, "gates": Gates(heads=place)}
    whole = logits(model, families.tokens(), **options)
    at = logits(model, families.tokens(), answer_position=where, **options)
    np.testing.assert_allclose(at, whole[rows, where], atol=1e-5)
    few = model.apply(
        model.params, families.tokens(), answer_position=where, answer_tokens=wanted,
        taps=("mlps",), **options,
    )  # fmt: skip
    np.testing.assert_allclose(few.logits, whole[rows[:, None], where[:, None], wanted], atol=1e-5)
    assert few.taps["mlps"].shape == (3, BATCH, LENGTH, 8)
    some = logits(model, families.tokens(), answer_tokens=wanted, **options)
    expected = jnp.take_along_axis(whole, jnp.asarray(wanted)[:, None], axis=2)
    np.testing.assert_allclose(some, expected, atol=1e-5)


def _flops(function, *args) -> float:
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def test_gates_cost_nothing_when_absent():
    """As many FLOPs as a GPT-2 that was written without gates."""
    model = families.model("gpt2", scan=False)
    tokens = jnp.asarray(families.tokens())
    plain_params = plain.from_model(model)
    ours = _flops(lambda p, t: apply(model.config, p, t).logits, model.params, tokens)
    theirs = _flops(lambda p, t: plain.forward(p, t).logits, plain_params, tokens)
    assert ours == theirs
    gated = _flops(
        lambda p, t, g: apply(model.config, p, t, gates=g).logits,
        model.params, tokens, Gates.ones(model.config),
    )  # fmt: skip
    assert gated > ours


def test_the_compiled_program_does_not_grow_with_depth():
    def size(layers):
        config = families.config("gpt2", layers=layers)
        params = jax.eval_shape(lambda key: init(config, key), jax.random.key(0))
        lowered = jax.jit(lambda p, t: apply(config, p, t).logits).lower(params, families.tokens())
        return len(lowered.as_text().splitlines())

    assert size(3) == size(12)


def test_works_under_grad_and_vmap_of_parameters():
    model = families.model("gpt2")
    tokens = families.tokens()
    gradient = jax.grad(lambda p: model.apply(p, tokens).logits.sum())(model.params)
    assert jax.tree.structure(gradient) == jax.tree.structure(model.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), model.params)
    both = jax.vmap(lambda p: model.apply(p, tokens).logits)(twice)
    np.testing.assert_allclose(both[0], logits(model, tokens), atol=1e-5)


def test_an_encoder_without_a_head_has_no_logits():
    config = families.config("bert", head="none", unembed_bias=False)
    params = init(config, jax.random.key(0))
    assert "head" not in params
    out = apply(config, params, families.tokens(), taps=("resid",))
    assert out.logits is None and out.taps["resid"].shape == (4, BATCH, LENGTH, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": np.zeros((2, 10), int)}, "tokens: expected at most 9 positions, got 10"),
        ({"tokens": np.zeros(4, int)}, r"tokens: expected integers \(batch, position\)"),
        ({"tokens": np.zeros((2, 4))}, "tokens: expected integers"),
        ({"attention_mask": np.ones((3, 5), int)}, "attention_mask: expected shape"),
        ({"attention_mask": np.ones((1, 6), int)}, "attention_mask: expected shape"),
        ({"taps": ("resids",)}, "taps: expected one of .* did you mean 'resid'"),
    ],
)
def test_errors_at_the_door(changes, message):
    model = families.model("gpt2")
    options = {"tokens": families.tokens(), **changes}
    with pytest.raises(ValueError, match=message):
        apply(model.config, model.params, **options)


def test_bfloat16_streams_and_float32_logits():
    model = families.model("gpt2")
    half = model.replace(config=dataclasses.replace(model.config, dtype="bfloat16"))
    out = half.apply(half.params, families.tokens(), taps=("resid", "pattern"))
    assert out.taps["resid"].dtype == jnp.bfloat16 and out.logits.dtype == jnp.float32
    assert out.taps["pattern"].dtype == jnp.float32


def test_bfloat16_scores_and_logits_are_not_rounded():
    """In steps of bfloat16 two logits near 8 differ by a sixteenth or not at all."""
    model = families.model("gpt2")
    half = model.replace(config=dataclasses.replace(model.config, dtype="bfloat16"))
    tokens = families.tokens()
    taps = half.apply(half.params, tokens, taps=("queries", "keys", "scores", "final")).taps
    q, k, final = (np.asarray(taps[name], np.float64) for name in ("queries", "keys", "final"))
    table = np.asarray(half.params["embed"]["tokens"].astype(jnp.bfloat16), np.float64)
    expected = np.einsum("lbthd,lbshd->lbhts", q, k) * model.config.head_dim**-0.5
    seen = np.tril(np.ones(expected.shape[-2:], bool))
    np.testing.assert_allclose(taps["scores"][..., seen], expected[..., seen], atol=1e-6)
    logits = half.apply(half.params, tokens).logits
    np.testing.assert_allclose(logits, final @ table.T, atol=1e-5)
    some = {"answer_position": np.full(BATCH, 2), "answer_tokens": tokens[:, :2]}
    one = half.apply(half.params, tokens, taps=("final",), **some)
    rows = np.asarray(one.taps["final"], np.float64).reshape(BATCH, 1, -1)
    np.testing.assert_allclose(one.logits, (rows * table[tokens[:, :2]]).sum(-1), atol=1e-5)


def test_the_backward_pass_of_a_bfloat16_model_multiplies_in_bfloat16():
    model = families.model("gpt2", dtype="bfloat16")
    tokens = families.tokens()

    def loss(params):
        return jax.nn.log_softmax(model.apply(params, tokens).logits)[..., 0].mean()

    def products(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                yield tuple(str(var.aval.dtype) for var in eqn.invars)
            for inner in jax.tree.leaves(tuple(eqn.params.values())):
                inner = getattr(inner, "jaxpr", inner)
                yield from products(inner) if hasattr(inner, "eqns") else ()

    found = list(products(jax.make_jaxpr(jax.grad(loss))(model.params).jaxpr))
    assert len(found) > 20 and set(found) == {("bfloat16", "bfloat16")}
