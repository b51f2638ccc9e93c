"""Code and prose, two domains of text, split by file and without near-duplicates.

The default corpus is on every machine: the sources of Python's standard library are the code, and
what is written in them for people (docstrings, comments, the topics of `pydoc`) is the prose.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import io
import os
import sysconfig
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxcompress import check
from jaxcompress.data.packed import SUFFIXES

__all__ = ["SPLITS", "Corpus", "code_and_prose", "directories", "standard_library"]

SPLITS = ("train", "validation", "test")

# Tests differ from one installation to the next, and tables of characters are no text.
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings"}
_ALIKE = 0.5  # share of a document's lines that stand in one longer document
_SHORT = 12  # characters; shorter lines say nothing about where they come from


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents of several domains.

    Attributes:
      documents: texts by domain and split, such as `documents["code"]["train"]`.
      skipped: files that were left out, as they are not UTF-8, have null characters or, where
        Python is wanted, are none.
      duplicates: documents that were left out, as another one, as long or longer, says nearly the
        same.
    """

    documents: Mapping[str, Mapping[str, tuple[str, ...]]]
    skipped: int
    duplicates: int

    def report(self) -> str:
        """What is in it and what was left out, in a line.

        Example:
          >>> Corpus({"code": {"train": ("x = 1",), "test": ()}}, 2, 0).report()
          'code: 1 train, 0 test documents; left out: 2 undecodable files, 0 near-duplicates'
        """
        parts = [
            f"{domain}: " + ", ".join(f"{len(texts)} {split}" for split, texts in splits.items())
            for domain, splits in self.documents.items()
        ]
        left_out = f"{self.skipped} undecodable files, {self.duplicates} near-duplicates"
        return f"{'; '.join(parts)} documents; left out: {left_out}"


def standard_library(root: str | Path | None = None, *, only: Sequence[str] = ()) -> Corpus:
    """The standard library of the running Python: `code` against `prose`.

    A file's code and its prose are in the same split, and each topic of `pydoc` counts as a file.
    The same Python gives the same corpus. Tests and tables of characters are left out.

    Args:
      root: another folder of Python sources.
      only: modules and packages to take, such as `json`; none is all of them.

    Returns:
      Domains `code` and `prose`.

    Raises:
      ValueError: if there are no Python files.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "b.py").write_text("x = 1  # one")
      >>> found = standard_library(folder)
      >>> found.documents["code"]["train"], found.documents["prose"]["train"]
      (('x = 1',), ('one',))
    """
    folder = Path(sysconfig.get_paths()["stdlib"] if root is None else root)
    found: dict[str, dict[str, str]] = {"code": {}, "prose": {}}
    skipped = 0
    for name, text in _texts(folder, (".py",), only):
        if set(Path(name).parts) & _LEFT_OUT or name.startswith("pydoc_data"):
            continue
        try:
            code, prose = code_and_prose(text or "\0")
        except (SyntaxError, ValueError):  # of Python 2, cut off, or not UTF-8
            skipped += 1
            continue
        found["code"][name], found["prose"][name] = code, prose
    if not found["code"]:
        raise check.fail(str(folder), "a folder of Python files", "none")
    if root is None and not only:
        topics = importlib.import_module("pydoc_data.topics").topics
        found["prose"] |= {f"pydoc_data/{name}": topics[name] for name in sorted(topics)}
    return _corpus(found, skipped)


def directories(**domains: str | Path) -> Corpus:
    r"""Domains from folders of text files.

    Args:
      **domains: by name, a text file, or a folder of files with one of `packed.SUFFIXES`. A file
        that stands alone is cut at its empty lines into documents.

    Raises:
      ValueError: if there is no such folder, or nothing readable in it.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "a.txt").write_text("once"), (folder / "b.txt").write_bytes(b"\xff")
      >>> directories(prose=folder).report()
      'prose: 1 train, 0 validation, 0 test documents; left out: 1 undecodable files, 0 near-dup...
    """
    found, skipped = {}, 0
    for domain, path in domains.items():
        folder, texts = Path(path), {}
        if not folder.exists():
            raise check.fail(domain, "a text file or a folder of them", f"{folder}: not there")
        for name, text in _texts(folder, SUFFIXES):
            if text is None:
                skipped += 1
            elif folder.is_dir():
                texts[name] = text
            else:
                texts |= {f"{i}": part for i, part in enumerate(text.split("\n\n"))}
        if not texts:
            got = f"none in {folder}, {skipped} undecodable"
            raise check.fail(domain, f"text files ({', '.join(SUFFIXES)})", got)
        found[domain] = texts
    return _corpus(found, skipped)


def code_and_prose(source: str) -> tuple[str, str]:
    r"""Python source without docstrings and comments, and what stood in them.

    Args:
      source: of a module. A body that is only a docstring becomes `pass`.

    Raises:
      SyntaxError: if it is not Python.
      ValueError: for null characters.

    Example:
      >>> code_and_prose('def f():\n    "Adds."\n    return 1  # one\n')
      ('def f():\n    return 1', 'Adds.\n\none')
    """
    # Lines as `ast` and `tokenize` count them: a form feed, for one, ends none.
    source = io.StringIO(source, newline=None).read()
    lines = io.StringIO(source).readlines()
    prose: list[tuple[int, str]] = []
    cuts: list[tuple[int, int, int, int, str]] = []
    for node in ast.walk(ast.parse(source)):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        if text is None or not isinstance(node, kinds):
            continue
        first = node.body[0]
        # Columns of `ast` count bytes.
        start = len(lines[first.lineno - 1].encode()[: first.col_offset].decode())
        last = first.end_lineno or first.lineno
        end = len(lines[last - 1].encode()[: first.end_col_offset].decode())
        alone = len(node.body) == 1 and not isinstance(node, ast.Module)
        cuts.append((first.lineno, start, last, end, "pass" if alone else ""))
        prose.append((first.lineno, text))
    previous = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            (row, start), (_, end) = token.start, token.end
            cuts.append((row, start, row, end, ""))
            text = token.string.lstrip("#!").strip()
            if row == previous + 1 and prose:  # a comment of several lines
                prose[-1] = (prose[-1][0], f"{prose[-1][1]}\n{text}")
            else:
                prose.append((row, text))
            previous = row
    for row, start, last, end, instead in sorted(cuts, reverse=True):
        before, after = lines[row - 1][:start], lines[last - 1][end:]
        lines[row - 1 : last] = [before + instead + after, *[""] * (last - row)]
    kept = (line.rstrip() for line in "".join(lines).split("\n"))
    written = (text.strip() for _, text in sorted(prose))
    return "\n".join(line for line in kept if line), "\n\n".join(text for text in written if text)


def _texts(
    folder: Path, suffixes: tuple[str, ...], only: Sequence[str] = ()
) -> Iterator[tuple[str, str | None]]:
    """Names and texts in the order of the names, `None` for what is not UTF-8, or has a null."""
    starts = [folder / name for module in only for name in (module, f"{module}.py")] or [folder]
    for path in sorted({path for start in starts for path in _files(start)}):
        if path == folder or path.suffix.lower() in suffixes:
            try:
                text = path.read_text(encoding="utf-8-sig")
                text = None if "\0" in text else text
            except (UnicodeDecodeError, OSError):
                text = None
            yield path.relative_to(folder).as_posix(), text


def _files(start: Path) -> Iterator[Path]:
    """All files below, but for the folders that are left out anyway."""
    if start.is_file():
        yield start
    for folder, below, names in os.walk(start):
        below[:] = [name for name in below if name not in _LEFT_OUT]
        yield from (Path(folder) / name for name in names)


def _corpus(found: Mapping[str, Mapping[str, str]], skipped: int) -> Corpus:
    documents, duplicates = {}, 0
    for domain, texts in found.items():
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        kept = _distinct(texts)
        duplicates += len(texts) - len(kept)
        for name in kept:
            if texts[name].strip():
                splits[_split(name)].append(texts[name])
        documents[domain] = {split: tuple(texts) for split, texts in splits.items()}
    return Corpus(documents, skipped, duplicates)


def _split(name: str) -> str:
    """By a hash of the file's name: a tenth each for validation and test."""
    number = hashlib.sha256(name.encode()).digest()[0] % 10
    return {0: "validation", 1: "test"}.get(number, "train")


def _distinct(texts: Mapping[str, str]) -> list[str]:
    """Names of the texts of which no longer one has half the lines; of equal ones the first."""
    lines = {
        name: {_line(line) for line in text.splitlines()} - {0} for name, text in texts.items()
    }
    where: dict[int, list[int]] = {}  # hashes of lines: the documents that they stand in
    kept, seen = set[str](), set[str]()
    # Longest first, so that it is the shorter one whose share counts, wherever it comes.
    for number, name in enumerate(sorted(texts, key=lambda name: -len(lines[name]))):
        whole = " ".join(texts[name].split())
        shared: dict[int, int] = {}
        for line in lines[name]:
            for place in where.get(line, ()):
                shared[place] = shared.get(place, 0) + 1
        alike = lines[name] and max(shared.values(), default=0) >= _ALIKE * len(lines[name])
        if alike or (whole in seen and whole):
            continue
        for line in lines[name]:
            where.setdefault(line, []).append(number)
        seen.add(whole)
        kept.add(name)
    return [name for name in texts if name in kept]


def _line(line: str) -> int:
    line = " ".join(line.split())
    return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest()) * (
        len(line) >= _SHORT
    )
