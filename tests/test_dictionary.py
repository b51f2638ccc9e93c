"""The sae command's function: files, numbers on held-out tokens, and a page that shows features."""

import dataclasses
import json

import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import examples, sae
from jaxcompress.dictionary import SaeConfig, learn
from jaxcompress.io import load_dictionary
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
