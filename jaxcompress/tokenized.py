"""Whether what two models say can be compared."""

from __future__ import annotations

from jaxcompress import check
from jaxcompress.models import Model

__all__ = ["refuse_other_tokenizer"]

# Tokenizers of one vocabulary may still lower letters, split, or add tokens in ways of their own.
_PROBE = "When Aaron and Mary went to the store, 1 2 3 four in January  1999."


def refuse_other_tokenizer(teacher: Model, student: Model) -> None:
    """Raises `ValueError` unless two models read text as the same tokens and answer in the same.

    Args:
      teacher: with or without a tokenizer; tokenizers are compared where both have one.
      student: likewise.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> refuse_other_tokenizer(load("builtin:teacher"), load("builtin:student"))
    """
    both = f"{teacher.name or 'teacher'} and {student.name or 'student'}"
    if teacher.tokenizer is not None and student.tokenizer is not None:
        ours, theirs = teacher.tokenizer.get_vocab(), student.tokenizer.get_vocab()
        if ours != theirs:
            example = min(set(ours.items()) ^ set(theirs.items()))
            got = f"{len(ours)} and {len(theirs)} tokens, differing for example at {example[0]!r}"
            raise check.fail(both, "one tokenizer for both", got)
        ids = [list(model.tokenizer(_PROBE)["input_ids"]) for model in (teacher, student)]
        if ids[0] != ids[1]:
            got = f"{_PROBE!r} as {ids[0][:8]}... and {ids[1][:8]}..."
            raise check.fail(both, "one tokenizer for both", got)
    if teacher.config.vocab != student.config.vocab:
        got = f"{teacher.config.vocab} and {student.config.vocab} embeddings"
        raise check.fail(both, "one vocabulary for both", got)
