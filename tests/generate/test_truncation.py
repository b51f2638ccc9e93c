"""The same tokens stay as in stock `transformers`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from jaxcompress.generate import truncated


@pytest.mark.torch
@pytest.mark.parametrize("top_k", [None, 1, 5, 40, 100])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.9, 1.0])
def test_as_transformers(top_k, top_p):
    logits = 3 * np.random.default_rng(0).standard_normal((16, 50)).astype(np.float32)
    expected = torch.tensor(logits)
    for warper, value in ((TopKLogitsWarper, top_k), (TopPLogitsWarper, top_p)):
        if value is not None:
            expected = warper(value)(None, expected)
    got = truncated(jnp.asarray(logits), top_k=top_k, top_p=top_p)
    np.testing.assert_array_equal(got, expected.numpy())
