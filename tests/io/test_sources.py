"""Where a model can come from: a directory, the cache of the hub, or nowhere: a clear error."""

from __future__ import annotations

import shutil
import time

import huggingface_hub
import pytest

from jaxcompress import io
from jaxcompress.io.huggingface import resolve
from tests import families


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty hub cache and no network, as `HF_HUB_OFFLINE=1` and `HF_HUB_CACHE` would have it."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.mark.parametrize("name", ["org/nothing", "nothing-of-this-name", "org/nothing@v2"])
def test_an_id_that_is_not_cached(offline, name):
    start = time.perf_counter()
    with pytest.raises(
        ValueError, match=rf"source: expected a directory, a cached or reachable .*{name}"
    ):
        io.load(name)
    assert time.perf_counter() - start < 10


def test_the_cache_is_honoured(offline, tmp_path):
    model = families.model("llama")
    io.save(model, tmp_path / "model")
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = offline / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(tmp_path / "model", repository / "snapshots" / commit)
    back = io.load("org/tiny")
    assert back.config == model.config and back.name == "org/tiny"
    assert resolve(f"hf://org/tiny@{commit}") == repository / "snapshots" / commit


@pytest.mark.parametrize(
    "source", ["a/b/c", "", "no such folder", "../gone", "org/x;rm", "http://x"]
)
def test_sources_that_cannot_be(source):
    with pytest.raises(ValueError, match="source: expected a directory, a Hugging Face id or bui"):
        io.load(source)


def test_a_builtin_that_is_not_there():
    with pytest.raises(ValueError, match="source: expected a built-in model, got 'teachr'"):
        io.load("builtin:teachr")
    with pytest.raises(ValueError, match="expected a built-in model, got '../models'"):
        io.load("builtin:../models")


def test_an_empty_directory(tmp_path):
    with pytest.raises(ValueError, match="config.json: expected a model's configuration"):
        io.load(tmp_path)
