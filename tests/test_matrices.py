"""Which axes of a parameter are inputs: in our models, and in the trees of other libraries."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tree
from jaxcompress.io import hf_names
from jaxcompress.matrices import Layout, layout_of, matrices, restored
from tests import families


def draw(seed, *shape):
    return jnp.array(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_the_rule_for_inputs_is_that_of_the_files():
    for name in ("gpt2", "llama", "bert", "distilbert"):
        config = families.config(name, pooler=name == "bert", tied=False)
        found = {path: s for s in hf_names.slots(config) for path in s.paths}
        for path, slot in found.items():
            layout = layout_of(path)
            assert (layout is not None) == path.endswith("/kernel"), path
            if layout is not None:
                assert (layout.layers, layout.inputs) == (int(slot.layered), slot.inputs), path


def test_layers_held_apart_are_not_stacked():
    assert layout_of("blocks/12/attn/output/kernel") == Layout(0, 2)
    assert layout_of("blocks/attn/query/kernel") == Layout(1, 1)
    assert layout_of("head/kernel") == Layout(0, 1)
    assert layout_of("kernel") == Layout(0, 1)
    assert layout_of("embed/tokens") is None


@pytest.mark.parametrize("layout", [Layout(1, 2), Layout(1, 1, True), Layout(0, 3), Layout(2, 1)])
def test_matrices_and_back(layout):
    leaf = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    matrix = matrices(leaf, layout)
    assert matrix.ndim == layout.layers + 2
    np.testing.assert_array_equal(restored(matrix, leaf, layout), leaf)


def test_transposed_matrices_are_those_of_torch():
    weight = np.arange(6.0).reshape(2, 3)  # (out, in)
    np.testing.assert_array_equal(matrices(weight, Layout(transposed=True)), weight.T)


@pytest.mark.parametrize("name", families.NAMES)
def test_every_kernel_has_a_layout(name):
    """(inputs, outputs) of every kernel of every family, layers in front where they are stacked."""
    params = families.randomized(families.config(name))
    found = {
        path: matrices(leaf, layout_of(path)).shape
        for path, leaf in tree.paths(params).items()
        if path.endswith("/kernel")
    }
    assert found
    width = families.config(name).width
    for path, shape in found.items():
        stacked = path.startswith("blocks/") and name != "uneven"
        assert len(shape) == (3 if stacked else 2)
        assert shape[-1 if "/output/" in path or "/down/" in path else -2] == width


def test_the_matrix_is_the_map_of_the_forward():
    """x @ matrix is the einsum of the model, for kernels with two output and two input axes."""
    kernels = {"attn/query": draw(0, 3, 8, 4, 2), "attn/output": draw(1, 3, 4, 2, 8)}
    wide, heads = draw(2, 5, 8), draw(3, 5, 4, 2)
    query, output = (
        matrices(kernel, layout_of(f"blocks/{name}/kernel")) for name, kernel in kernels.items()
    )
    expected = np.einsum("bm,lmhd->lbhd", wide, kernels["attn/query"]).reshape(3, 5, 8)
    np.testing.assert_allclose(wide @ query, expected, rtol=1e-4, atol=1e-5)
    expected = np.einsum("bhd,lhdm->lbm", heads, kernels["attn/output"])
    np.testing.assert_allclose(heads.reshape(5, 8) @ output, expected, rtol=1e-4, atol=1e-5)
    assert (output.reshape(3, 4, 2, 8) == kernels["attn/output"]).all()


def test_layouts_of_other_models_are_given_by_hand():
    assert matrices(np.zeros((3, 3, 5, 7)), Layout(0, 3)).shape == (45, 7)
    assert layout_of("encoder/dense/kernel") == Layout(0, 1)


def test_a_matrix_has_outputs():
    with pytest.raises(ValueError, match="leaf: expected more than 2 axes"):
        matrices(np.zeros((3, 4)), Layout(1, 1))
