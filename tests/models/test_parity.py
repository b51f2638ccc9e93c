"""Logits equal those of stock `transformers` for random tiny models of every family.

With -rP pytest prints by how much they differ.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import io
from tests import families
from tests.torch_models import CASES, logits, torch_model

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    theirs = torch_model(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return request.param, theirs, io.load(folder)


@pytest.mark.parametrize("padding", ["none", "right", "left"])
def test_logits(pair, padding):
    name, theirs, ours = pair
    if name == "distilbert" and padding == "left":
        pytest.skip("DistilBERT in transformers takes no position_ids: its left padding shifts")
    tokens, mask = families.tokens(), families.mask(padding)
    got = np.asarray(ours.apply(ours.params, tokens, attention_mask=mask).logits)
    real = np.ones(tokens.shape, bool) if mask is None else mask == 1
    expected = logits(theirs, tokens, mask)
    assert expected.std() > 0.3  # otherwise the tolerance says nothing
    print(f"{name}, padding {padding}: logits differ by {np.abs(got - expected)[real].max():.1e}")
    np.testing.assert_allclose(got[real], expected[real], atol=5e-5)


def test_unrolled_and_uneven_paths_equal_the_scan(pair):
    name, _, ours = pair
    if name in ("gpt2-untied-relu", "llama-mha", "bert-untied", "distilbert"):
        pytest.skip("the same path as its sibling: one compilation less")
    tokens, mask = families.tokens(), families.mask("left")
    scanned = ours.apply(ours.params, tokens, attention_mask=mask).logits
    unrolled = ours.replace(config=dataclasses.replace(ours.config, scan=False))
    for other in (unrolled, families.unstacked(ours)):
        got = other.apply(other.params, tokens, attention_mask=mask).logits
        np.testing.assert_allclose(got, scanned, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa-biased", "bert"])
def test_bfloat16_is_close(name, tmp_path):
    torch_model(name).save_pretrained(tmp_path)
    model = io.load(tmp_path, dtype="bfloat16")
    assert model.params["blocks"]["mlp"]["up"]["kernel"].dtype == jnp.bfloat16
    got = model.apply(model.params, families.tokens()).logits
    assert got.dtype == jnp.float32
    expected = logits(torch_model(name), families.tokens())
    error = np.abs(got - expected)
    assert error.max() > 0 and error.mean() < 0.03 * expected.std()
