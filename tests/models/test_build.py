"""The model object: parameters that fit, functions that are shared."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tree, types
from jaxcompress.models import create, shapes
from tests import families


def changed(params, path, leaf):
    """A copy of the tree with one leaf replaced, or removed if `None`."""
    head, _, rest = path.partition("/")
    inner = changed(params.get(head, {}), rest, leaf) if rest else leaf
    out = {**params, head: inner}
    if inner is None:
        del out[head]
    return out


def test_parameters_that_do_not_fit_are_named():
    model = families.model("gpt2")
    params = model.params
    with pytest.raises(ValueError, match="either params or key"):
        create(model.config)
    with pytest.raises(ValueError, match="either params or key"):
        create(model.config, params, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"missing: \['blocks/attn/query/bias'\]"):
        create(model.config, changed(params, "blocks/attn/query/bias", None))
    with pytest.raises(ValueError, match=r"left over: \['head/kernel'\]"):
        create(model.config, changed(params, "head/kernel", jnp.ones((8, 11))))
    with pytest.raises(
        ValueError, match=r"params/embed/tokens: expected shape \(11, 8\), got shape \(12, 8\)"
    ):
        create(model.config, changed(params, "embed/tokens", jnp.ones((12, 8))))
    with pytest.raises(ValueError, match="missing"):
        create(families.config("uneven"), params)


@pytest.mark.parametrize("name", families.NAMES)
def test_shapes_without_arrays(name):
    like = tree.paths(shapes(families.config(name)))
    real = tree.paths(families.model(name).params)
    assert {k: v.shape for k, v in like.items()} == {k: v.shape for k, v in real.items()}


def test_keys_decide_the_parameters():
    config = families.config("llama")
    one, same, other = (create(config, key=jax.random.key(i)).params for i in (0, 0, 1))
    kernels = [p["blocks"]["attn"]["query"]["kernel"] for p in (one, same, other)]
    assert (kernels[0] == kernels[1]).all() and (kernels[0] != kernels[2]).all()
    assert (kernels[0][0] != kernels[0][1]).all()  # layers differ


def test_equal_configurations_share_compiled_functions():
    one, two = create(families.config("gpt2"), key=jax.random.key(0)), families.model("gpt2")
    assert one.apply is two.apply and one.resume is two.resume
    other = two.replace(config=dataclasses.replace(two.config, dtype="bfloat16"))
    assert other.apply is not two.apply


def test_models_keep_the_protocol():
    model = families.model("gpt2")
    assert isinstance(model, types.Model) and isinstance(model, types.Resumable)
    assert model.replace(name="x").name == "x" and model.name == ""


def test_an_existing_jit_traces_a_model_once():
    model, traces = families.model("gpt2"), []

    @jax.jit
    def forward(params, tokens):
        traces.append(1)
        return model.apply(params, tokens).logits

    for seed in range(3):
        forward(families.randomized(model.config, seed), families.tokens(seed))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": [[0, 11]]}, r"tokens: expected integers in \[0, 11\), got 0 to 11"),
        ({"tokens": [[-1, 2]]}, r"tokens: expected integers in \[0, 11\), got -1 to 2"),
        ({"attention_mask": [[2, 1]]}, r"attention_mask: expected 1 on tokens and 0 on padding"),
        ({"attention_mask": [[0.0, -1e9]]}, "attention_mask: expected 1 on tokens and 0 on paddi"),
        ({"answer_position": [2]}, r"answer_position: expected integers in \[0, 2\), got 2 to 2"),
        ({"answer_tokens": [[11]]}, r"answer_tokens: expected integers in \[0, 11\), got 11 to 11"),
    ],
)
def test_indices_out_of_range(changes, message):
    model = families.model("gpt2")
    options = {"tokens": [[1, 2]], "attention_mask": [[1, 1]], "answer_position": [1], **changes}
    options = {name: np.array(value) for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        model.apply(model.params, **options)


def test_a_lone_tap_is_no_list():
    model = families.model("gpt2")
    with pytest.raises(ValueError, match="taps: expected a list of names, got 'resid'"):
        model.apply(model.params, families.tokens(), taps="resid")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_what_is_under_the_mask_need_not_be_a_token(name):
    """Padding by a token that was added to the tokenizer and not to the model."""
    model, mask = families.model(name), np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    inside = np.array([[0, 0, 4, 5, 6], [7, 8, 9, 0, 0]])
    outside = np.where(mask, inside, [[11], [-100]])
    found = (model.apply(model.params, x, attention_mask=mask).logits for x in (inside, outside))
    a, b = (np.asarray(logits)[mask == 1] for logits in found)
    np.testing.assert_array_equal(a, b)

    @jax.jit
    def traced(mask):  # and tokens that are not
        return model.apply(model.params, outside, attention_mask=mask).logits

    np.testing.assert_allclose(np.asarray(traced(mask))[mask == 1], a, atol=1e-6)
    with pytest.raises(ValueError, match=r"tokens: expected integers \(batch, position\)"):
        model.apply(model.params, 3)
