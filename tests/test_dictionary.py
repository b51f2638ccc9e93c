"""The sae command's function: files, numbers on held-out tokens, and a page that shows features."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import dictionary, examples, runs, sae, tree
from jaxcompress.dictionary import SaeConfig, learn
from jaxcompress.io import load_dictionary
from jaxcompress.models import ModelConfig, create, create_autoencoder
from jaxcompress.train import loop
from jaxcompress.train.dictionaries import Dictionary

SMALL = SaeConfig(
    layer=1,
    dictionary=Dictionary(features=16, k=3, steps=30, batch=32, rate=0.01),
    data=examples.Data(tasks=("months", "numerals"), count=8),
    shown=4,
    contexts=2,
)


def test_a_dictionary_in_a_folder(tmp_path):
    out = tmp_path / "sae"
    record = learn("builtin:student", out, SMALL)
    names = {path.name for path in out.iterdir()}
    assert {"dictionary", "learning.png", "result.json", "report.html", "run.json"} <= names
    assert json.loads((out / "result.json").read_text()) == record
    # What is said of it is what the file that was written does to prompts that were held out.
    one, model = load_dictionary(out / "dictionary"), jc.load("builtin:student")
    seen, loss = examples.batches(model, SMALL.data)
    held, _ = examples.batches(model, SMALL.data, held_out=True)
    x = sae.activations.stream(model, held, 1)
    assert sae.quality.quality(one, x).explained == pytest.approx(record["explained"], abs=1e-4)
    mean = sae.activations.stream(model, seen, 1).mean(axis=0)
    left = sae.recovery.recovered(model, one, 1, held, loss, mean=mean)
    assert left.share == pytest.approx(record["recovered"], abs=1e-3)
    page = (out / "report.html").read_text()
    # The strongest token of the feature that writes most is marked in the first passage.
    f = np.asarray(one.encode(x))
    first = f.sum(axis=0).argmax()
    assert page.count("<summary") >= 4 and f"Feature {first}: active at" in page
    tokens = np.concatenate([np.asarray(b.tokens)[np.asarray(b.attention_mask) > 0] for b in held])
    word = model.tokenizer.decode([int(tokens[f[:, first].argmax()])])
    assert (
        word.replace("<", "&lt;").replace(">", "&gt;")
        in page.split("<mark>")[1].split("</mark>")[0]
    )
    with pytest.raises(ValueError, match="overwrite"):
        learn("builtin:student", out, SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 3}, "layer: expected"),
        ({"shown": 0}, "shown: expected"),
        ({"contexts": 0}, "contexts: expected"),
        ({"data": examples.Data()}, "data: expected either tasks or text"),
    ],
)
def test_bad_settings_leave_nothing(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        learn("builtin:student", tmp_path / "bad", dataclasses.replace(SMALL, **changes))
    assert not (tmp_path / "bad").exists()


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """The same call again: from its checkpoint, with the metrics of the steps before it."""
    how = dataclasses.replace(SMALL.dictionary, steps=120)
    config = dataclasses.replace(SMALL, dictionary=how, checkpoints=str(tmp_path / "kept"))
    whole = learn(
        "builtin:student", tmp_path / "whole", dataclasses.replace(config, checkpoints=None)
    )
    log, seen = loop._log, []

    def stop(*row):
        log(*row)
        seen.append(row[1])
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_log", stop)
    with pytest.raises(KeyboardInterrupt):
        learn("builtin:student", tmp_path / "run", config)
    assert learn("builtin:student", tmp_path / "run", config) == whole
    assert seen == [50, 100, 100, 120]  # the second 50 steps again, not the first
    assert [row["step"] for row in runs.rows(tmp_path / "run")] == [50, 100, 120]
    with pytest.raises(ValueError, match="overwrite"):  # it has ended
        learn("builtin:student", tmp_path / "run", config)


def test_an_encoder_without_a_head_and_one_feature_that_is_always_active(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = {"tokens": rng.integers(0, 11, (40, 8)), "lengths": np.full(40, 8)}
    np.savez(tmp_path / "rows.npz", **rows)
    model = create(
        ModelConfig(
            family="bert", layers=2, heads=2, kv_heads=2, head_dim=4, width=8, neurons=16,
            vocab=11, context=8, head="none", causal=False,
        ),
        key=jax.random.key(0),
    )  # fmt: skip
    always = create_autoencoder(8, 1, jax.random.key(0))
    always = dataclasses.replace(always, encoder_bias=always.encoder_bias + 99)
    monkeypatch.setattr(dictionary, "fit_dictionaries", lambda *_, **__: tree.stack([always]))
    config = SaeConfig(
        data=examples.Data(text=str(tmp_path / "rows.npz"), context=8),
    )
    record = learn(model, tmp_path / "out", config)
    assert record["l0"] == 1 and np.isnan(record["recovered"])
    assert json.loads((tmp_path / "out" / "result.json").read_text())["recovered"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "loss recovered" in page and "for the loss" not in page
    assert "Feature 0: active at 100 % of the tokens" in page and "beside" not in page
