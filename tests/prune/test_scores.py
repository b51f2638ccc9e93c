"""Criteria against the definitions in the papers, written out example by example."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.ablate import sweep
from jaxcompress.models import Edits, Gates
from jaxcompress.prune import (
    CRITERIA,
    Text,
    answer,
    calibrate,
    embedding,
    from_sums,
    inputs,
    next_token,
    pad,
    scores,
    select,
)
from jaxcompress.prune.calibrate import WANTED
from jaxcompress.prune.size import existing
from tests import families

FIELDS = ("heads", "neurons", "attns", "mlps", "width")


def text(mask="right", rows=slice(None)):
    return Text(families.tokens()[rows], families.mask(mask)[rows])


@functools.cache
def collected(name, split=False):
    model = families.model(name)
    batches = [text(rows=slice(i, i + 1)) for i in range(3)] if split else [text()]
    everything = WANTED if name == "gpt2" else WANTED[:-1]
    return calibrate(model, batches, wanted=everything, progress=False)


@functools.cache
def gradients_of_examples(name):
    """d loss / d gate of each example by itself, with one gate for the whole example."""
    model = families.model(name)

    def loss(gates, row):
        out = model.apply(
            model.params, row.tokens[None], attention_mask=row.attention_mask[None], gates=gates
        )
        return next_token(out, jax.tree.map(lambda x: x[None], row)).sum()

    gradient = jax.jit(jax.grad(loss))
    rows = jax.tree.map(jnp.asarray, text())
    each = [
        gradient(Gates.ones(model.config), jax.tree.map(lambda x, i=i: x[i], rows))
        for i in range(3)
    ]
    return jax.tree.map(lambda *x: np.stack(x), *each)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_reductions_over_examples_and_batches(name):
    each, found = gradients_of_examples(name), collected(name)
    example, batch = scores.taylor(found, "example"), scores.taylor(found, "batch")
    fisher = scores.fisher(found)
    tokens = text().attention_mask.sum()
    for field in FIELDS:
        rows = getattr(each, field)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        close(getattr(example, field), np.abs(rows).mean(axis=0))
        close(getattr(batch, field), np.abs(rows.sum(axis=0)) / tokens)
        close(getattr(fisher, field), 0.5 * (rows**2).mean(axis=0))


def test_uneven_models_are_scored_as_filled_up_with_zeros():
    """The same logits, so the same scores of what is there; what is not there has none."""
    small, sizes = families.model("uneven"), {"heads": 4, "kv_heads": 2, "neurons": 6}
    config, params = pad(small.config, small.params, **sizes)
    even = small.replace(config=config, params=params)
    sums = [calibrate(one, [text()], progress=False) for one in (small, even)]
    slopes = families.randomized(small.config, seed=1)
    for found, slope in zip(sums, (slopes, pad(small.config, slopes, **sizes)[1]), strict=True):
        found["parameters"] = {"abs": slope}
    there, key = existing(small.config), jax.random.key(0)
    assert there.heads.sum() == 6 and there.neurons.sum() == 9
    for criterion in CRITERIA:
        got, expected = (
            from_sums(model, found, criterion, key=key)
            for model, found in zip((small, even), sums, strict=True)
        )
        for name in ("heads", "neurons"):
            if getattr(expected, name) is not None:
                real = getattr(there, name) > 0
                ours, theirs = np.asarray(getattr(got, name)), np.asarray(getattr(expected, name))
                np.testing.assert_allclose(ours[real], theirs[real], rtol=1e-4, err_msg=criterion)
                assert np.isposinf(ours[~real]).all()


def test_tokens_are_head_outputs_times_their_gradients():
    """sum_t |Att(t) . dL/dAtt(t)|: the authors' code, which takes the gradient at the output."""
    model = families.model("gpt2")
    clean = model.apply(
        model.params, text().tokens, attention_mask=text().attention_mask, taps=("heads",)
    )
    heads = clean.taps["heads"]

    def loss(replacement, closed):
        out = model.apply(
            model.params,
            text().tokens,
            attention_mask=text().attention_mask,
            gates=closed,
            edits=Edits(heads=replacement),
        )
        return next_token(out, text()).sum()

    gradient = jax.jit(jax.grad(loss))
    # One layer at a time is replaced by itself: the later ones must see what it writes.
    closed = [Gates(heads=1 - np.eye(3, dtype=np.float32)[:, [i] * 4]) for i in range(3)]
    slope = np.stack([gradient(heads, gates)[i] for i, gates in enumerate(closed)])
    tokens = text().attention_mask
    inner = np.abs((np.asarray(heads) * np.asarray(slope)).sum(-1)) * tokens[None, ..., None]
    expected = inner.sum(axis=(1, 2)) / tokens.sum()
    np.testing.assert_allclose(scores.taylor(collected("gpt2")).heads, expected, rtol=1e-4)
    layer = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(scores.michel(collected("gpt2")).heads, expected / layer, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_splitting_the_batch_changes_nothing(name):
    whole, split = collected(name), collected(name, split=True)
    for path in ("activations", "inputs", "moments", "influence", "angles"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4),
            whole[path],
            split[path],
        )
    for field in FIELDS:
        for reduction in ("token", "example", "square"):
            np.testing.assert_allclose(
                whole["gradients"][field][reduction],
                split["gradients"][field][reduction],
                rtol=1e-3,
                atol=1e-5,
            )
    # The copies of run_bertology take the size of a batch's sum: it depends on the batches.
    a, b = (found["gradients"]["heads"]["batch"] for found in (whole, split))
    assert np.abs(a - b).max() > 1e-3


def test_embeddings_do_not_depend_on_the_batch_or_on_padding():
    """Nor does a row of padding, which is no example, make a gradient that is no number."""
    model = families.model("bert", head="none")
    tokens = np.array([[1, 5, 2, 7, 0, 0], [3, 3, 9, 4, 8, 2], [4, 2, 0, 0, 0, 0]])
    real = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
    rows = Text(tokens, real)
    one = jax.tree.map(lambda x: x[2:, :2], rows)
    empty = Text(np.zeros((1, 6), int), np.zeros((1, 6), int))
    whole, apart, more = (
        scores.fisher(calibrate(model, batches, embedding, progress=False)).heads
        for batches in (
            [rows],
            [jax.tree.map(lambda x: x[:2], rows), one],
            [rows, empty],
        )
    )
    np.testing.assert_allclose(apart, whole, rtol=1e-4)
    np.testing.assert_allclose(more, whole, rtol=1e-4)
    assert np.ptp(whole) > 0


def test_prompts_of_padding_are_no_examples():
    model, prompts = families.model("gpt2"), families.prompts("right")
    empty = jax.tree.map(lambda x: np.zeros_like(x[:1]), prompts)
    found = [
        calibrate(model, batches, answer, wanted=("parameters",), progress=False)["parameters"]
        for batches in ([prompts], [prompts, empty])
    ]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_padding_changes_nothing():
    """Neither positions of it nor whole rows."""
    model = families.model("gpt2")
    tokens = families.tokens()
    more = ((0, 1), (0, 2))
    longer = Text(np.pad(tokens, more), np.pad(np.ones_like(tokens), more))
    run = functools.partial(calibrate, model, progress=False)
    wanted = WANTED[:-1]
    short = run([Text(tokens, np.ones_like(tokens))], wanted=wanted)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4),
        short,
        run([longer], wanted=wanted),
    )


@pytest.mark.parametrize("name", families.NAMES)
def test_what_goes_into_the_matrices(name):
    """The inputs worked out from the taps give the taps behind them again."""
    model = families.model(name)
    out = model.apply(model.params, families.tokens(), taps=("pattern", *inputs.TAPS))
    found = inputs.entering(model.config, model.params, out.taps)
    blocks = model.params["blocks"]
    act = {"gelu": lambda x: jax.nn.gelu(x, approximate=False), "silu": jax.nn.silu}
    act |= {"gelu_tanh": jax.nn.gelu, "relu": jax.nn.relu}
    for i, size in enumerate(model.config.layer_sizes):
        layer = (
            jax.tree.map(lambda x, i=i: x[i], blocks) if model.config.stacked else blocks[str(i)]
        )
        attn, mlp = layer["attn"], layer["mlp"]
        value = np.einsum("bsm,mhd->bshd", found["attn"][i], attn["value"]["kernel"])
        value = value + attn["value"].get("bias", np.zeros(value.shape[2:]))[None, None]
        value = np.repeat(value, size.heads // max(size.kv_heads, 1), axis=2)
        mixed = np.einsum("bhts,bshd->bthd", out.taps["pattern"][i][:, : size.heads], value)
        heads = out.taps["heads"][i][:, :, : size.heads]
        np.testing.assert_allclose(mixed, heads, atol=1e-4)
        up, gate = (
            np.einsum("btm,mf->btf", found["mlp"][i], mlp[part]["kernel"])
            + mlp[part].get("bias", np.zeros(size.neurons))[None, None]
            if part in mlp
            else None
            for part in ("up", "gate")
        )
        f = act[model.config.activation]
        hidden = f(up) if gate is None else f(gate) * up
        neurons = out.taps["neurons"][i][:, :, : size.neurons]
        np.testing.assert_allclose(hidden, neurons, atol=1e-4)


def test_activation_influence_and_angles():
    model = families.model("gpt2")
    mask = text().attention_mask
    out = model.apply(model.params, text().tokens, attention_mask=mask, taps=inputs.TAPS)
    taps = {k: np.asarray(v, np.float64) for k, v in out.taps.items()}
    found = collected("gpt2")
    length = mask.sum(axis=1)
    heads = np.linalg.norm(taps["heads"], axis=-1) * mask[None, :, :, None]
    mean = heads.sum(axis=2) / length[None, :, None]
    got = scores.activation(found)
    np.testing.assert_allclose(got.heads, np.sqrt((mean**2).sum(axis=1)), rtol=1e-4)
    neurons = np.abs(taps["neurons"]) * mask[None, :, :, None]
    mean = neurons.sum(axis=2) / length[None, :, None]
    np.testing.assert_allclose(got.neurons, np.sqrt((mean**2).sum(axis=1)), rtol=1e-4)
    unit = taps["resid"] / np.linalg.norm(taps["resid"], axis=-1, keepdims=True)
    cosine = (unit[:-1] * unit[1:]).sum(-1)
    influence = [1 - cosine[i][mask > 0].mean() for i in range(3)]
    np.testing.assert_allclose(scores.block_influence(found).attns, influence, rtol=1e-3, atol=1e-5)
    last = np.stack([unit[:, b, length[b] - 1] for b in range(3)], axis=1)
    expected = np.arccos((last[0] * last[2]).sum(-1)).mean() / np.pi
    np.testing.assert_allclose(scores.angular_distance(found, 2)[0], expected, rtol=1e-3)
    with pytest.raises(ValueError, match="layers: expected a whole number in"):
        scores.angular_distance(found, 4)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_lowest_layers_are_the_best_run(count):
    angles = np.random.default_rng(count).random((7, 7))
    sums = {"activations": {}, "angles": angles, "counts": {"examples": 1.0}}
    best = int(np.argmin(scores.angular_distance(sums, count)))
    found = scores.layer_runs(sums, count)
    gates = select(found, count / 6)
    assert np.flatnonzero(gates.attns == 0).tolist() == list(range(best, best + count))
    assert (gates.attns == gates.mlps).all()


def test_parameter_attribution_signed_is_the_first_order_effect():
    """Scaling all weights of a neuron by 1 - e changes the loss by -e times the signed score."""
    model, found = families.model("gpt2"), collected("gpt2")
    got = scores.parameter_attribution(model.config, model.params, found, signed=True).neurons
    mlp = model.params["blocks"]["mlp"]

    def loss(scale):
        scaled = {
            "up": {
                "kernel": mlp["up"]["kernel"] * scale[:, None],
                "bias": mlp["up"]["bias"] * scale,
            },
            "down": {
                "kernel": mlp["down"]["kernel"] * scale[..., None],
                "bias": mlp["down"]["bias"],
            },
        }
        params = {**model.params, "blocks": {**model.params["blocks"], "mlp": scaled}}
        out = model.apply(params, text().tokens, attention_mask=text().attention_mask)
        return next_token(out, text()).sum()

    slope = jax.jit(jax.grad(loss))(jnp.ones((3, 6)))
    np.testing.assert_allclose(got, np.abs(slope) / 3, rtol=1e-3, atol=1e-6)
    unsigned = scores.parameter_attribution(model.config, model.params, found).neurons
    assert np.abs(unsigned - got).max() > 1e-3


def test_squares_of_parameter_gradients_are_per_example():
    model, found = families.model("gpt2"), collected("gpt2")["parameters"]

    def loss(params, row):
        out = model.apply(params, row.tokens, attention_mask=row.attention_mask)
        return next_token(out, row).sum()

    gradient = jax.jit(jax.grad(loss))
    each = [
        gradient(model.params, jax.tree.map(jnp.asarray, text(rows=slice(i, i + 1))))
        for i in range(3)
    ]
    for leaf in ("sum", "square"):
        power = 1 if leaf == "sum" else 2
        expected = jax.tree.map(lambda *x, power=power: sum(g**power for g in x), *each)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            found[leaf],
            expected,
        )


def test_magnitude_is_the_norm_of_what_shrinking_takes():
    from jaxcompress import tree
    from jaxcompress.prune import shrink

    for name in ("gpt2", "llama", "bert"):
        model = families.model(name)
        got = scores.magnitude(model.config, model.params)

        def squares(params):
            return sum((np.asarray(x, np.float64) ** 2).sum() for x in tree.paths(params).values())

        whole = squares(model.params)
        small = shrink(model, Gates.off(model.config, neurons=[(1, 2)]))
        np.testing.assert_allclose(got.neurons[1, 2] ** 2, whole - squares(small.params), rtol=1e-5)
        small = shrink(model, Gates.off(model.config, width=[3]))
        np.testing.assert_allclose(got.width[3] ** 2, whole - squares(small.params), rtol=1e-5)
        if name == "llama":
            continue  # The keys and values stay for the other head of the group.
        small = shrink(model, Gates.off(model.config, heads=[(2, 1)]))
        np.testing.assert_allclose(got.heads[2, 1] ** 2, whole - squares(small.params), rtol=1e-5)


def test_ablation_is_the_sweep():
    model = families.model("gpt2")
    effects = sweep(model, families.prompts(), "heads", replacement="zero", progress=False)
    found = scores.ablation("heads", effects.per_example)
    np.testing.assert_allclose(found.heads, -np.asarray(effects.mean), rtol=1e-4, atol=1e-6)


def test_answers_are_what_is_lost_on_prompts():
    model, prompts = families.model("gpt2"), families.prompts("right")
    out = model.apply(model.params, prompts.tokens, attention_mask=prompts.attention_mask)
    logits = np.asarray(out.logits, np.float64)[np.arange(3), prompts.answer_position]
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    expected = -np.log(p[np.arange(3), prompts.correct[:, 0]])
    np.testing.assert_allclose(answer(out, prompts), expected, rtol=1e-4)


def test_bfloat16_models_are_summed_in_float32():
    model = families.model("gpt2")
    half = model.replace(
        config=dataclasses.replace(model.config, dtype="bfloat16"),
        params=jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), model.params),
    )
    sums = calibrate(half, [text()], wanted=("activations", "inputs"), progress=False)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(sums)} == {"float32"}
    whole = scores.activation(collected("gpt2")).neurons
    np.testing.assert_allclose(scores.activation(sums).neurons, whole, rtol=0.1, atol=0.05)


def test_random_is_a_control(key):
    config = families.config("gpt2")
    a, b = scores.random(config, key), scores.random(config, key)
    np.testing.assert_array_equal(a.heads, b.heads)
    assert np.unique(a.heads).size == 12


def test_bad_calls():
    model = families.model("gpt2")
    with pytest.raises(ValueError, match="batches: expected at least one"):
        calibrate(model, [], progress=False)
    with pytest.raises(ValueError, match="wanted: expected one of"):
        calibrate(model, [text()], wanted=("grads",), progress=False)
    with pytest.raises(ValueError, match="sums: expected statistics with 'gradients'"):
        scores.taylor({"counts": {}})
    encoder = families.model("bert", head="none", tied=True, unembed_bias=False)
    with pytest.raises(ValueError, match="loss: expected one that needs no logits"):
        calibrate(encoder, [text()], progress=False)
