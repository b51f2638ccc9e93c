"""Packed text: every token in its place, made once, found again by content, mapped not read."""

from __future__ import annotations

import importlib
import types

import numpy as np
import pytest

from jaxcompress import train
from jaxcompress.data.packed import packed
from jaxcompress.data.text import word_level

WORDS = [f"w{chr(97 + i)}" for i in range(12)]
END = 2  # the id of `word_level`'s boundary


@pytest.fixture(scope="module")
def tokenizer():
    return word_level([" ".join(WORDS)])


def ids(text):
    """What `word_level` gives: ids 3, 4, ... in the order of the alphabet."""
    return [3 + WORDS.index(word) for word in text.split()]


def write(folder, **texts):
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_documents_are_joined_and_cut(tmp_path, tokenizer):
    texts = {"b_txt": "wb wc", "a_txt": "wa wd we", "sub__c_md": "wf wg wh wi", "d_bin": "wl"}
    folder = write(tmp_path / "text", **texts)
    rows = packed(folder, tokenizer, 3, cache=tmp_path / "cache")
    documents = ["wa wd we", "wb wc", "wf wg wh wi"]
    expected = [token for text in documents for token in [*ids(text), END]]
    assert rows.dtype == np.int32 and isinstance(rows, np.memmap) and not rows.flags.writeable
    # 12 tokens are 4 rows; nothing is left over.
    np.testing.assert_array_equal(rows, np.reshape(expected, (4, 3)))
    # 5 does not divide 12: the last two go.
    five = packed(folder, tokenizer, 5, cache=tmp_path / "cache")
    np.testing.assert_array_equal(five, np.reshape(expected[:10], (2, 5)))


def test_many_documents_cross_batches(tmp_path, tokenizer):
    """More documents than are tokenised at a time, so that tokens wait for the next batch."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(600)]
    folder = write(tmp_path / "text", **{f"{i:03d}_txt": text for i, text in enumerate(texts)})
    rows = packed(folder, tokenizer, 7, cache=tmp_path)
    expected = np.array([token for text in texts for token in [*ids(text), END]])
    assert len(rows) == len(expected) // 7
    np.testing.assert_array_equal(rows.ravel(), expected[: rows.size])


def test_one_file_of_any_suffix(tmp_path, tokenizer):
    folder = write(tmp_path, **{"story_log": "wa wb wc"})
    assert packed(str(folder / "story.log"), tokenizer, 4, cache=tmp_path).tolist() == [
        [3, 4, 5, END]
    ]


def test_the_second_call_opens_a_file(tmp_path, tokenizer, monkeypatch):
    folder = write(tmp_path / "text", a_txt="wa wb wc wd")
    first = packed(folder, tokenizer, 2, cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    before = path.stat().st_mtime_ns
    monkeypatch.setattr("jaxcompress.data.packed._rows", None)
    again = packed(folder, tokenizer, 2, cache=tmp_path / "cache")
    np.testing.assert_array_equal(first, again)
    assert path.stat().st_mtime_ns == before
    moved = folder.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(packed(moved, tokenizer, 2, cache=tmp_path / "cache"), first)


def test_what_changes_the_rows_changes_the_file(tmp_path, tokenizer):
    folder, cache = write(tmp_path / "text", a_txt="wa wb wc wd"), tmp_path / "cache"
    packed(folder, tokenizer, 2, cache=cache)
    packed(folder, tokenizer, 3, cache=cache)
    other = word_level([" ".join(reversed(WORDS)), "extra"])
    packed(folder, other, 2, cache=cache)
    write(folder, a_txt="wa wb wc wl")
    changed = packed(folder, tokenizer, 2, cache=cache)
    assert changed[1].tolist() == [5, 14]
    write(folder, b_txt="")
    assert packed(folder, tokenizer, 2, cache=cache).ravel().tolist() == [3, 4, 5, 14, END, END]
    assert len(list(cache.iterdir())) == 5


def test_how_the_tokenizer_was_called_does_not_matter(tmp_path):
    tokenizer = word_level([" ".join(WORDS)])
    folder = write(tmp_path / "text", a_txt="wa wb wc wd")
    packed(folder, tokenizer, 2, cache=tmp_path / "cache")
    tokenizer(["wa", "wb wc"], padding=True, truncation=True, max_length=2)
    assert packed(folder, tokenizer, 2, cache=tmp_path / "cache").shape == (2, 2)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_it_can_be_trained_on(tmp_path, tokenizer, key):
    """Mapped rows give the numbers that rows in memory give."""
    import jax.numpy as jnp
    import optax

    folder = write(tmp_path / "text", a_txt=" ".join(WORDS * 3))
    rows = packed(folder, tokenizer, 4, cache=tmp_path)

    def loss(params, batch, key):
        return ((params[batch["tokens"]] - 1) ** 2).mean(), {}

    optimizer = optax.sgd(0.5)
    step, start = train.make_step(loss, optimizer), train.create(jnp.zeros(16), optimizer, key)
    mapped, held = (
        train.fit(start, step, {"tokens": data}, 4, batch=2, chunk=2, progress=False)
        for data in (rows, np.array(rows))
    )
    assert float(mapped.params.max()) > 0
    np.testing.assert_array_equal(mapped.params, held.params)


def stub(monkeypatch, **attributes):
    """`import datasets` finds an object with these attributes, or nothing."""
    real = importlib.import_module

    def find(name, *rest):
        if name != "datasets":
            return real(name, *rest)
        if not attributes:
            raise ModuleNotFoundError(name)
        return types.SimpleNamespace(**attributes)

    monkeypatch.setattr(importlib, "import_module", find)


class Dataset(list):
    column_names = ("id", "text")
    _fingerprint = "a1b2"


def test_data_sets_are_read_by_column(tmp_path, tokenizer, monkeypatch):
    rows = Dataset([{"id": 1, "text": "wa wb"}, {"id": 2, "text": "wc"}])
    asked = []
    stub(monkeypatch, load_dataset=lambda name, split: asked.append((name, split)) or rows)
    found = packed("some/corpus", tokenizer, 5, cache=tmp_path, split="validation")
    assert found.tolist() == [[3, 4, END, 5, END]]
    assert asked == [("some/corpus", "validation")]
    with pytest.raises(ValueError, match="column: expected one of .*did you mean 'text'"):
        packed("some/corpus", tokenizer, 5, cache=tmp_path, column="texts")


def test_data_sets_that_cannot_be_had(tmp_path, tokenizer, monkeypatch):
    def load(name, split):
        raise FileNotFoundError(f"Couldn't reach {name}\nand much more")

    stub(monkeypatch, load_dataset=load)
    with pytest.raises(ValueError, match="got 'some/corpus': Couldn't reach some/corpus$"):
        packed("some/corpus", tokenizer, 5, cache=tmp_path)
    stub(monkeypatch)
    with pytest.raises(ValueError, match="no package datasets.*pip install 'jaxcompress.datasets"):
        packed("some/corpus", tokenizer, 5, cache=tmp_path)
    for path in ("./corpus.txt", "/no/such", tmp_path / "corpus", "corpus.txt", "my/notes.md"):
        with pytest.raises(ValueError, match="source: expected a text file.*which is not there"):
            packed(path, tokenizer, 5, cache=tmp_path)


def test_what_is_no_text(tmp_path, tokenizer):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"empty: expected text files \(.txt, .*got none"):
        packed(empty, tokenizer, 2, cache=tmp_path)
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.txt: expected UTF-8 text, got .* at byte 3"):
        packed(tmp_path / "latin.txt", tokenizer, 2, cache=tmp_path / "cache")
    write(tmp_path, short_txt="wa wb")
    with pytest.raises(ValueError, match="source: expected at least 4 tokens, a row, got fewer in"):
        packed(tmp_path / "short.txt", tokenizer, 4, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_tokenizers_without_an_end(tmp_path):
    write(tmp_path, a_txt="wa wb")
    tokenizer = types.SimpleNamespace(eos_token_id=None)
    with pytest.raises(ValueError, match="tokenizer: expected one with an end-of-text or sep"):
        packed(tmp_path, tokenizer, 2, cache=tmp_path)


def test_caches_that_fail(tmp_path, tokenizer):
    folder = write(tmp_path / "text", a_txt="wa wb wc wd")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="file/cache: expected a folder to write to"):
        packed(folder, tokenizer, 2, cache=file / "cache")
    packed(folder, tokenizer, 2, cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="expected a file of packed rows.*Delete the file"):
        packed(folder, tokenizer, 2, cache=tmp_path / "cache")
