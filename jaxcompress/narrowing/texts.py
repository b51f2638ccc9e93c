"""The texts of narrowing as rows of tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxcompress import check
from jaxcompress.data import corpora
from jaxcompress.data.packed import packed_texts
from jaxcompress.data.text import byte_pairs
from jaxcompress.io.huggingface import load
from jaxcompress.narrowing.settings import Narrowing, Rows, Texts

__all__ = ["read"]


def read(config: Narrowing) -> Texts:
    """Texts of both domains as rows of tokens; the tokenizer is the teacher's, or byte pairs.

    Raises:
      ValueError: for folders without readable text, and less text than one row.

    Example:
      >>> read(Narrowing(prose="no-such-folder"))
      Traceback (most recent call last):
      ...
      ValueError: prose: expected a text file or a folder of them, got no-such-folder: not there
    """
    given = {"code": config.code, "prose": config.prose}
    named = {domain: path for domain, path in given.items() if path is not None}
    found = [corpora.directories(**named)] if named else []
    if len(named) < len(given):
        found.append(corpora.standard_library(only=config.only))
    documents = {
        domain: next(one.documents[domain] for one in found if domain in one.documents)
        for domain in given
    }
    cache = Path(config.work) / "corpus"
    if config.teacher is None:
        texts = [text for splits in documents.values() for text in splits["train"]]
        tokenizer = byte_pairs(texts, config.vocab, cache=cache)
    else:
        tokenizer = load(config.teacher).tokenizer
        if tokenizer is None:
            raise check.fail("teacher", "a model with a tokenizer", "none in its directory")
    rows: Rows = {domain: {} for domain in documents}
    for domain, splits in documents.items():
        for split, texts in splits.items():
            if not texts:
                hint = "Splits are by file: more files fill them all"
                raise check.fail(f"{domain}, {split}", f"{config.context} tokens", "no text", hint)
            found_rows = packed_texts(texts, tokenizer, config.context, cache=cache)
            rows[domain][split] = np.asarray(found_rows)
    return Texts(rows, tokenizer, " | ".join(one.report() for one in found))
