"""What is asked of a tokenizer: a Hugging Face one, or anything that can be called like it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxcompress import check

__all__ = [
    "Reader",
    "Tokenizer",
    "all_ids",
    "ordinary_ids",
    "prompt_ids",
    "reader",
    "show",
    "vocabulary",
]


@runtime_checkable
class Tokenizer(Protocol):
    """`tokenizer(text)["input_ids"]` is a list of ids, special tokens included.

    Read if present: `mask_token` and `mask_token_id` (a masked language model), `bos_token_id`,
    `cls_token_id`, `eos_token_id`, `pad_token_id`, `unk_token_id`, `all_special_ids`,
    `convert_ids_to_tokens`, and `len(tokenizer)` or `vocab_size`.
    """

    def __call__(self, text: str) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Reader:
    """A tokenizer and what is asked of it again and again (in `transformers` each asking is slow).

    Attributes:
      tokenizer: the tokenizer.
      mask: its mask token, `None` for a causal model.
      mask_id: the id of that.
      unknown: the id of words it does not know, `None` if it has none for just that.
      padding: the id to fill up with: padding, else end of text, else 0; it is masked anyway.
      trailing: special ids that are taken off the end of a causal prompt.
    """

    tokenizer: Tokenizer
    mask: str | None
    mask_id: int | None
    unknown: int | None
    padding: int
    trailing: frozenset[int]


def reader(tokenizer: Tokenizer) -> Reader:
    """Asks a tokenizer what `Reader` keeps.

    Example:
      >>> reader(lambda text: {"input_ids": [ord(letter) for letter in text]}).padding
      0
    """
    names = ("bos", "eos", "pad", "cls", "sep", "mask", "unk")
    ids = {name: getattr(tokenizer, f"{name}_token_id", None) for name in names}
    unknown = ids.pop("unk")
    # GPT-2 calls its end-of-text token the unknown one too; byte-level text never gives that.
    unknown = None if unknown in ids.values() else unknown
    mask = getattr(tokenizer, "mask_token", None)
    special = frozenset(getattr(tokenizer, "all_special_ids", ())) - {unknown}
    return Reader(
        tokenizer=tokenizer,
        mask=mask,
        mask_id=ids["mask"],
        unknown=unknown,
        padding=next(i for i in (ids["pad"], ids["eos"], 0) if i is not None),
        trailing=special if mask is None else frozenset(),
    )


def prompt_ids(reader: Reader, text: str) -> list[int]:
    """The ids of a text that a model is to continue, or to fill in at its mask.

    A causal prompt loses the special tokens some tokenizers put after it: a model that has seen the
    end of the text has nothing left to predict.

    Example:
      >>> prompt_ids(reader(lambda text: {"input_ids": [ord(letter) for letter in text]}), "ab")
      [97, 98]
    """
    return _trimmed(reader, reader.tokenizer(text)["input_ids"])


def all_ids(reader: Reader, texts: Sequence[str]) -> list[list[int]]:
    """`prompt_ids` of several texts; in one call, five times as fast, where the tokenizer has it.

    Example:
      >>> all_ids(reader(lambda text: {"input_ids": [ord(x) for x in text]}), ["ab", "c"])
      [[97, 98], [99]]
    """
    known: Any = reader.tokenizer
    if texts and getattr(known, "is_fast", False):
        only = {"return_attention_mask": False, "return_token_type_ids": False}
        return [_trimmed(reader, ids) for ids in known(list(texts), **only)["input_ids"]]
    return [prompt_ids(reader, text) for text in texts]


def _trimmed(reader: Reader, ids: Sequence[int]) -> list[int]:
    ids = [int(token) for token in ids]
    while len(ids) > 1 and ids[-1] in reader.trailing:
        ids.pop()
    return ids


def ordinary_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids of the vocabulary that stand for text: not special, not reserved ("[unused7]").

    Example:
      >>> class Bits:
      ...     vocab_size, all_special_ids = 3, [0]
      ...     def __call__(self, text): return {"input_ids": [1 + int(bit) for bit in text]}
      >>> ordinary_ids(Bits())
      [1, 2]
    """
    known: Any = tokenizer  # what is there is asked for by name
    size = len(known) if hasattr(known, "__len__") else known.vocab_size
    special = set(getattr(tokenizer, "all_special_ids", ()))
    ids = [token for token in range(size) if token not in special]
    if not hasattr(known, "convert_ids_to_tokens"):
        return ids
    texts = known.convert_ids_to_tokens(ids)
    # A hole in the vocabulary has no text at all.
    return [i for i, t in zip(ids, texts, strict=True) if t and not t.startswith("[unused")]


def vocabulary(
    tokenizer: Tokenizer, given: Sequence[int] | None, name: str, number: int
) -> np.ndarray:
    """The ids to draw from: those given, or all ordinary ones.

    Args:
      tokenizer: asked for its ordinary ids.
      given: ids, or `None`.
      name: of the option that says how many tokens a prompt takes.
      number: its value; a prompt takes twice as many different tokens.

    Raises:
      ValueError: for a vocabulary with fewer.

    Example:
      >>> vocabulary(lambda text: {}, [5, 3, 5], "pairs", 1).tolist()
      [3, 5]
    """
    ids = np.unique(ordinary_ids(tokenizer) if given is None else list(given))
    if ids.size < 2 * number:
        hint = f"A prompt takes twice as many different tokens; ask for a smaller {name}"
        got = f"{number} with {ids.size} ordinary tokens"
        raise check.fail(name, f"at most {ids.size // 2}", got, hint)
    return ids


def show(tokenizer: Tokenizer, ids: list[int]) -> str:
    """How ids read in an error message: their pieces, or the numbers.

    Example:
      >>> show(lambda text: {"input_ids": []}, [1, 2])
      '1 2'
    """
    pieces: Any = getattr(tokenizer, "convert_ids_to_tokens", None)
    if pieces is not None:
        return " ".join(repr(piece) for piece in pieces(ids))
    return " ".join(str(token) for token in ids)
