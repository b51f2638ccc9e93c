"""A word-level tokenizer in Hugging Face format: whole words, and numbers in pairs of digits."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxcompress import check

__all__ = ["BOUNDARY", "PAD", "UNKNOWN", "word_level"]

PAD = "<pad>"
UNKNOWN = "<unk>"
BOUNDARY = "<s>"
"""Starts every text. It ends one too, as GPT-2's `<|endoftext|>` does: the next one starts."""


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
