"""Globs and ranks."""

from __future__ import annotations

import pytest

from jaxcompress import tree
from jaxcompress.lora import targets
from jaxcompress.matrices import layout_of
from tests import families


def test_globs_choose_matrices_only():
    params = families.model("llama").params
    found = targets.select(params, ["*/attn/*", "head/*"], 2, layout_of)
    parts = ("key", "output", "query", "value")
    assert list(found) == [*(f"blocks/attn/{part}/kernel" for part in parts), "head/kernel"]
    assert set(found.values()) == {2}


def test_later_globs_count():
    params = families.model("gpt2").params
    ranks = {"*/mlp/*": 4, "*/down/*": 1}
    found = targets.select(params, ranks, None, layout_of)
    assert found == {"blocks/mlp/down/kernel": 1, "blocks/mlp/up/kernel": 4}


def test_one_glob_is_not_its_letters():
    params = families.model("gpt2").params
    assert list(targets.select(params, "*/up/*", 2, layout_of)) == ["blocks/mlp/up/kernel"]


def test_layers_without_heads_have_no_matrix():
    params = families.model("uneven").params
    found = targets.select(params, ["*/query/*"], 2, layout_of)
    assert list(found) == ["blocks/0/attn/query/kernel", "blocks/1/attn/query/kernel"]


@pytest.mark.parametrize(
    ("wanted", "rank", "message"),
    [
        (["*/querry/kernel"], 2, "targets: expected globs that match a matrix, got '\\*/querry"),
        (["blocks/mlp/upp/kernel"], 2, "did you mean 'blocks/mlp/up/kernel'"),
        (["*/norm/scale"], 2, "targets: "),
        ([], 2, "targets: expected at least one glob"),
        (["*/up/*"], None, "rank: expected a whole number >= 1, got None"),
        (["*/up/*"], 0, "rank: "),
        (["*/up/*"], 7, r"rank of blocks/mlp/up/kernel: expected a whole number in \[1, 6\]"),
        ({"*/up/*": 2}, 2, "rank: expected None, as every target has one"),
    ],
)
def test_wrong_targets(wanted, rank, message):
    with pytest.raises(ValueError, match=message):
        targets.select(families.model("gpt2").params, wanted, rank, layout_of)


def test_paths_are_those_of_the_tree():
    params = families.model("gpt2").params
    every = targets.select(params, ["*"], 1, layout_of)
    assert set(every) == {path for path in tree.paths(params) if path.endswith("kernel")}
