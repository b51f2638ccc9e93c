"""Code and prose apart, split by file, near-duplicates and undecodable files counted."""

from __future__ import annotations

import ast
import io
import sysconfig
import tokenize
from pathlib import Path

import pytest

from jaxcompress.data import corpora
from jaxcompress.data.corpora import code_and_prose, directories, standard_library
from jaxcompress.data.packed import packed_texts
from jaxcompress.data.text import END, byte_pairs
from jaxcompress.narrowing import Narrowing, read

SOURCE = '''"""Adds."""
import os  # the system


class Adder:
    """One number
    and another."""

    # It is said
    # on two lines.
    def add(self, x):
        """Döc."""  # behind a docstring
        return f"{x} # no comment" + "also # none"

    async def nothing(self):
        "Only this."
'''


def test_code_without_prose():
    code, prose = code_and_prose(SOURCE)
    assert code.splitlines() == [
        "import os",
        "class Adder:",
        "    def add(self, x):",
        '        return f"{x} # no comment" + "also # none"',
        "    async def nothing(self):",
        "        pass",
    ]
    texts = ["Adds.", "the system", "One number\nand another.", "It is said\non two lines."]
    assert prose == "\n\n".join([*texts, "Döc.", "behind a docstring", "Only this."])


def test_lines_are_those_that_python_counts():
    """Form feeds and Unicode's separators end no line of Python, carriage returns do."""
    source = 'a = "\u2028\x85"\n\x0c\ndef f():\r\n    "Adds."\r\n    return 1  # one\n'
    assert code_and_prose(source) == ('a = "\u2028\x85"\ndef f():\n    return 1', "Adds.\n\none")


def bare(source):
    """The tree of a module without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return ast.dump(tree)


def test_the_code_still_means_the_same():
    """Every module of two packages parses to the same tree but for docstrings."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for name in ("json", "html") for path in (root / name).glob("*.py")]
    assert len(paths) > 5
    for path in paths:
        source = path.read_text(encoding="utf-8")
        code, _ = code_and_prose(source)
        assert ast.dump(ast.parse(code)) == bare(source)
        comments = [
            token.string
            for token in tokenize.generate_tokens(io.StringIO(code).readline)
            if token.type == tokenize.COMMENT
        ]
        assert comments == []
    assert standard_library(only=("json", "html")).skipped == 0


def test_splits_are_by_file_and_the_same_again(tmp_path):
    for i in range(60):
        (tmp_path / f"m{i}.py").write_text(f"value_{i} = {i}\n# the number that is called {i}")
    first, second = standard_library(tmp_path), standard_library(tmp_path)
    assert first == second
    code, prose = first.documents["code"], first.documents["prose"]
    for split in corpora.SPLITS:
        numbers = [text.split()[-1] for text in code[split]]
        assert len(numbers) >= 2
        assert numbers == [text.split()[-1] for text in prose[split]]
    assert sum(map(len, code.values())) == 60


def test_what_is_left_out_is_counted(tmp_path):
    lines = [f"the line that has the number {i}" for i in range(10)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "b.txt").write_text(
        "\n".join([*lines[:5], *(f"other words, {i}" for i in range(5))])
    )
    (tmp_path / "c.txt").write_text(
        "\n".join([*lines[:4], *(f"own words again, {i}" for i in range(6))])
    )
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe broken")
    found = directories(prose=tmp_path)
    assert (found.duplicates, found.skipped) == (1, 1)
    assert sum(map(len, found.documents["prose"].values())) == 2
    assert "1 undecodable files, 1 near-duplicates" in found.report()
    (tmp_path / "old.py").write_text("print 1")
    (tmp_path / "new.py").write_text("print(1)")
    assert standard_library(tmp_path).skipped == 1


def test_short_lines_and_containment(tmp_path):
    """Twice the same, in lines too short to count; one inside a longer one that comes later."""
    lines = [f"the line that has the number {i}" for i in range(40)]
    texts = {
        "a": "one\ntwo", "b": "one\n\ntwo ", "c": "\n".join(lines[:6]), "d": "\n".join(lines),
        "e": "three\nfour",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "f.txt").write_bytes(b"\0" * 9)
    found = directories(prose=tmp_path)
    kept = sorted(text for texts in found.documents["prose"].values() for text in texts)
    assert kept == sorted([texts["a"], texts["d"], texts["e"]])
    assert (found.duplicates, found.skipped) == (2, 1)


def test_real_texts(shared_data, tmp_path):
    """A file that stands alone is cut into documents, all splits are filled, tokens come back."""
    (tmp_path / "code").mkdir()
    for name in ("json", "html", "email", "logging"):
        for path in (Path(sysconfig.get_paths()["stdlib"]) / name).glob("*.py"):
            (tmp_path / "code" / f"{name}_{path.name}").write_text(path.read_text("utf-8"))
    config = Narrowing(
        code=str(tmp_path / "code"), prose=str(shared_data / "text" / "tinystories_val.txt"),
        vocab=400, context=32, work=str(tmp_path / "work"),
    )  # fmt: skip
    found = read(config)
    assert "prose:" in found.report and "0 undecodable" in found.report
    for domain in ("code", "prose"):
        assert all(len(found.rows[domain][split]) for split in corpora.SPLITS)
    text = found.tokenizer.decode(found.rows["prose"]["train"][:50].reshape(-1))
    assert "Once upon a time" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: directories(prose=folder / "none"), "prose: .* not there"),
        (lambda folder: directories(prose=folder), "prose: expected text files .* 1 undecodable"),
        (lambda folder: standard_library(folder), "a folder of Python files"),
        (lambda folder: byte_pairs(["ab ab"], 256), "vocab"),
        (lambda folder: byte_pairs(["ab ab"], 999), "merges"),
        (
            lambda folder: packed_texts(["ab"], byte_pairs(["ab"], 257), 64, cache=folder / "c"),
            "source: expected at least 64 tokens, a row",
        ),
    ],
)
def test_bad_input(tmp_path, make, message):
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=message):
        make(tmp_path)


def test_byte_pairs_keep_every_text(tmp_path):
    texts = ["def f(x):\n    return x", "naïve ☃ text", "def g(x):\n\treturn f(x)"]
    tokenizer = byte_pairs(texts, 265, cache=tmp_path)
    assert tokenizer.eos_token == END and tokenizer.eos_token_id == 0
    for text in [*texts, "日本語 \x00"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    before = list(tmp_path.iterdir())
    again = byte_pairs(texts, 265, cache=tmp_path)
    assert list(tmp_path.iterdir()) == before
    assert again.get_vocab() == tokenizer.get_vocab()


def test_rows_from_memory_end_their_documents(tmp_path):
    texts = ["ab ab ab", "ba ba"]
    tokenizer = byte_pairs(texts, 257)
    rows = packed_texts(texts, tokenizer, 3, cache=tmp_path)
    ids = [i for text in texts for i in [*tokenizer(text)["input_ids"], 0]]
    assert rows.reshape(-1).tolist() == ids[: len(ids) // 3 * 3]
