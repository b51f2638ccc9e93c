"""The three kinds of tokenizer every family is tested with."""

from __future__ import annotations

import jax
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import BertTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from jaxcompress import tasks


@pytest.fixture(scope="session")
def gpt2(shared_data):
    folder = shared_data / "tokenizers" / "gpt2"
    return GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))


@pytest.fixture(scope="session")
def bert(shared_data):
    return BertTokenizer(vocab=str(shared_data / "tokenizers" / "bert" / "vocab.txt"))


@pytest.fixture(scope="session")
def word_level():
    """Whole words, numbers in pairs of digits, a start token in front."""
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex(r"\d\d"), "isolated")]
    )
    found = {f"{year:02d}" for year in range(100)}
    for name in tasks.TEXTS:
        for pair in tasks.texts(name, 600, jax.random.key(99)):
            text = " ".join([pair.clean, pair.corrupted, *pair.correct, *pair.wrong])
            found.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    vocab = {piece: i for i, piece in enumerate(["<s>", "<unk>", *sorted(found)])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = splitter
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


@pytest.fixture(params=["gpt2", "bert", "word_level"])
def tokenizer(request):
    return request.getfixturevalue(request.param)
