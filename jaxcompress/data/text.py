"""Tokenizers in Hugging Face format: whole words for the synthetic language, else byte pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from jaxcompress import check, files

__all__ = ["BOUNDARY", "END", "PAD", "UNKNOWN", "byte_pairs", "word_level"]

PAD = "<pad>"
UNKNOWN = "<unk>"
BOUNDARY = "<s>"
"""Starts every text. It ends one too, as GPT-2's `<|endoftext|>` does: the next one starts."""
END = "<|endoftext|>"
"""Follows every document where tokens are byte pairs."""


def word_level(texts: Iterable[str], *, context: int | None = None) -> PreTrainedTokenizerFast:
    r"""A tokenizer whose vocabulary is every word of some texts.

    Text is split at white space and around punctuation, then numbers into pairs of digits from the
    left: "1732" is "17" and "32", so that a century can be followed by a year, and "10" is one
    token. Every text gets `BOUNDARY` in front. Saved by `save_pretrained`, it is read by the
    `AutoTokenizer` of stock `transformers`.

    Args:
      texts: where the words come from; ids are alphabetical, after the special tokens.
      context: longest input of the model, in tokens, which `transformers` warns about.

    Returns:
      The tokenizer; `PAD`, `UNKNOWN` and `BOUNDARY` (as bos and eos) have ids 0, 1 and 2.

    Raises:
      ValueError: if there are no words.

    Example:
      >>> tokenizer = word_level(["It lasted from 1732.", "Hat done in 5."])
      >>> tokenizer.convert_ids_to_tokens(tokenizer("It lasted from 1732.")["input_ids"])
      ['<s>', 'It', 'lasted', 'from', '17', '32', '.']
    """
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex(r"\d\d"), "isolated")]
    )
    words = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    if not words:
        raise check.fail("texts", "at least one word", "none")
    special = (PAD, UNKNOWN, BOUNDARY)
    vocab = {word: i for i, word in enumerate([*special, *sorted(words - set(special))])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    backend.pre_tokenizer = splitter
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOUNDARY} $A", special_tokens=[(BOUNDARY, vocab[BOUNDARY])]
    )
    limit = {} if context is None else {"model_max_length": context}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BOUNDARY,
        eos_token=BOUNDARY,
        # With it `transformers` would put "1 ." and "1." down as the same text when decoding.
        clean_up_tokenization_spaces=False,
        **limit,
    )


def byte_pairs(
    texts: Sequence[str], vocab: int, *, cache: str | Path | None = None
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on some texts, as GPT-2's was.

    Args:
      texts: what the merges are learned from.
      vocab: tokens in all: `END`, the 256 bytes, and one for every merge.
      cache: folder in which the tokenizer is kept, found again by the texts and `vocab`.

    Returns:
      The tokenizer; `END` is its end-of-text and padding token and has id 0.

    Raises:
      ValueError: for a vocabulary smaller than 257, or texts that have fewer merges in them.

    Example:
      >>> tokenizer = byte_pairs(["def f(): return 1", "def g(): return 2"], 260)
      >>> tokenizer.decode(tokenizer("def h(): return 3")["input_ids"])
      'def h(): return 3'

    Reference: Radford et al. 2019 (GPT-2), section 2.2.
    """
    check.integer("vocab", vocab, 257)
    content = hashlib.sha256(f"{vocab}".encode())
    for text in texts:
        content.update(hashlib.sha256(text.encode()).digest())
    path = None if cache is None else Path(cache) / f"bpe-{content.hexdigest()[:32]}.json"
    if path is not None and path.exists():
        backend = Tokenizer.from_file(str(path))
    else:
        backend = _learned(texts, vocab)
        if path is not None:
            files.write_text(path, backend.to_str())
    if backend.get_vocab_size() != vocab:
        got = f"{backend.get_vocab_size()} tokens in {len(texts)} texts"
        raise check.fail("vocab", "no more than the texts have merges for", got)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=END,
        eos_token=END,
        bos_token=END,
        clean_up_tokenization_spaces=False,
    )


def _learned(texts: Sequence[str], vocab: int) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend
