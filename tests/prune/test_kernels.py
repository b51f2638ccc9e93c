"""Single weights of real models: what criteria of weights get from one pass over data."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcompress import io, tree
from jaxcompress.examples import Data, batches
from jaxcompress.gated import mean_loss
from jaxcompress.prune import Text, calibrate
from jaxcompress.prune.kernels import WEIGHT_CRITERIA, prune_weights, weight_scores
from tests import families

WANTED = ("inputs", "moments", "parameters")


@pytest.mark.slow
def test_on_a_trained_model():
    """Every criterion keeps its share of zeros; those that look at inputs keep what it can do."""
    model, data = io.load("builtin:student"), Data(tasks=("months",), count=32, batch=32)
    found, loss = batches(model, data)
    sums = calibrate(model, found, loss, wanted=WANTED[:2], progress=False)
    held, _ = batches(model, data, held_out=True)
    nats = {}
    for criterion in ("random", "magnitude", "wanda", "sparsegpt"):
        pruned, masks = prune_weights(model, sums, criterion, sparsity=0.6, key=jax.random.key(0))
        for path, mask in masks.items():
            assert not np.asarray(tree.paths(pruned.params)[path])[~np.asarray(mask)].any()
            np.testing.assert_allclose(mask.mean(), 0.4, atol=0.01)
        nats[criterion] = mean_loss(pruned, held, loss)
    assert max(nats["wanda"], nats["sparsegpt"]) < nats["magnitude"] < nats["random"]


@pytest.fixture(scope="module")
def uneven():
    model, text = families.model("uneven"), Text(families.tokens(), families.mask("right"))
    return model, calibrate(model, [text], wanted=WANTED, progress=False)


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_uneven_layers_have_their_own_inputs(uneven, criterion):
    model, sums = uneven
    pruned, masks = prune_weights(model, sums, criterion, sparsity=0.5, key=jax.random.key(0))
    flat = tree.paths(pruned.params)
    for path, mask in masks.items():
        assert 0.3 < mask.mean() < 0.7  # of three inputs one stays, or two
        np.testing.assert_array_equal(np.asarray(flat[path]) != 0, mask)
    assert len(masks) == 12  # the last layer is empty


def test_wanda_by_hand(uneven):
    model, sums = uneven
    found = weight_scores(model.params, sums, "wanda")["blocks/1/attn/output/kernel"]
    kernel = np.asarray(model.params["blocks"]["1"]["attn"]["output"]["kernel"]).reshape(8, 8)
    out = model.apply(model.params, families.tokens(), attention_mask=families.mask("right"),
                      taps=("heads",))  # fmt: skip
    heads = np.asarray(out.taps["heads"])[1, :, :, :2].reshape(*families.tokens().shape, 8)
    norms = np.sqrt((heads**2 * families.mask("right")[..., None]).sum(axis=(0, 1)))
    np.testing.assert_allclose(found, np.abs(kernel) * norms[:, None], rtol=1e-4)


def test_bad_arguments(uneven):
    model, sums = uneven
    for options, message in (
        ({"sparsity": 0.5, "keep": 1, "of": 2}, "pattern: expected either a sparsity, or keep"),
        ({"keep": 1}, "pattern: expected either"),
        ({"sparsity": 0.5, "keep": 1}, "pattern: expected either"),
        ({"sparsity": 1.0}, "sparsity"),
    ):
        with pytest.raises(ValueError, match=message):
            prune_weights(model, sums, "magnitude", **options)
    with pytest.raises(ValueError, match="sums: expected statistics with 'inputs'"):
        prune_weights(model, {}, "wanda", sparsity=0.5)
