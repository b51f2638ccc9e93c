"""The taps of attention and of the head: each follows from the others, in every family."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.matrices import readout
from tests import families
from tests.families import BATCH, LENGTH

ATTENTION = ("heads", "keys", "pattern", "queries", "scores", "values")


def taps(model, names, **options):
    return model.apply(model.params, families.tokens(), taps=names, **options)


@pytest.mark.parametrize("name", families.NAMES)
def test_attention_follows_from_queries_keys_and_values(name):
    model, config = families.model(name), families.config(name)
    mask = families.mask("left")
    seen = taps(model, ATTENTION, attention_mask=mask).taps
    # No layer of another size: there the number of heads for each key head is another one.
    layers = range(config.layers if config.stacked else 1)
    groups = config.heads // config.kv_heads
    for layer in layers:
        q, k, v = (np.asarray(seen[tap][layer]) for tap in ("queries", "keys", "values"))
        k, v = (np.repeat(x, groups, axis=2) for x in (k, v))
        scores = np.einsum("bthd,bshd->bhts", q, k) / math.sqrt(config.head_dim)
        visible = np.broadcast_to(mask[:, None, None] > 0, scores.shape)
        if config.causal:
            visible = visible & np.tril(np.ones((LENGTH, LENGTH), bool))
        found = np.asarray(seen["scores"][layer])
        np.testing.assert_allclose(found[visible], scores[visible], atol=1e-5)
        assert (found[~visible] == -1e30).all()
        pattern = np.asarray(seen["pattern"][layer])
        if config.attention_coefficient == 1.0:
            np.testing.assert_allclose(jax.nn.softmax(found, axis=-1), pattern, atol=1e-6)
        mixed = np.einsum("bhts,bshd->bthd", pattern, v)
        np.testing.assert_allclose(mixed, seen["heads"][layer], atol=1e-5)


def test_uneven_layers_are_filled_up_with_zeros():
    seen = taps(families.model("uneven"), ATTENTION).taps
    assert seen["queries"].shape == (3, BATCH, LENGTH, 4, 4)
    assert seen["keys"].shape == seen["values"].shape == (3, BATCH, LENGTH, 2, 4)
    assert seen["scores"].shape == seen["pattern"].shape
    assert (seen["keys"][1, :, :, 1:] == 0).all() and (seen["keys"][1, :, :, 0] != 0).any()


@pytest.mark.parametrize("name", families.NAMES)
def test_logits_follow_from_what_the_unembedding_reads(name):
    model, config = families.model(name), families.config(name)
    out = taps(model, ("final",))
    logits = out.taps["final"] @ readout(model.params, tied=config.tied)
    if config.unembed_bias:
        logits = logits + model.params["head"]["bias"].reshape(1, 1, -1)
    np.testing.assert_allclose(out.logits, logits, atol=1e-5)
    where = np.array([3, 0, 5])
    one = taps(model, ("final",), answer_position=where)
    expected = out.taps["final"][np.arange(BATCH), where][:, None]
    np.testing.assert_allclose(one.taps["final"], expected, atol=1e-5)


def test_one_query_after_a_prefix_has_all_keys():
    model = families.model("gpt2")
    whole = taps(model, ("resid", *ATTENTION)).taps
    before, last = np.split(np.asarray(whole["resid"]), [LENGTH - 1], axis=2)
    late = model.resume(model.params, last[0], 0, prefix=before, taps=ATTENTION).taps
    for name, axis in (("queries", 2), ("scores", 3), ("pattern", 3)):
        end = jnp.take(whole[name], jnp.array([LENGTH - 1]), axis=axis)
        np.testing.assert_allclose(late[name], end, atol=1e-5, err_msg=name)
    for name in ("keys", "values"):
        np.testing.assert_allclose(late[name], whole[name], atol=1e-5, err_msg=name)


def test_an_encoder_without_a_head_has_nothing_to_read():
    model = families.model("bert", head="none", unembed_bias=False)
    with pytest.raises(ValueError, match="taps: expected no 'final' of a model without a head"):
        taps(model, ("final",))
