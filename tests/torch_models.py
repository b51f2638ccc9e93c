"""Random tiny models of stock `transformers`, the reference of the parity and file tests."""

from __future__ import annotations

import functools

import numpy as np
import torch
import transformers
from transformers.utils import logging

from tests.families import LENGTH, VOCAB

logging.disable_progress_bar()
torch.set_num_threads(1)

_ROPE = {
    "rope_theta": 500.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_ENDS = {"bos_token_id": 0, "eos_token_id": 0}


def _gpt2(**changes):
    sizes = {"n_layer": 3, "n_embd": 8, "n_head": 2, "vocab_size": VOCAB, "n_positions": 9}
    config = transformers.GPT2Config(**sizes, **_ENDS, **changes)
    return transformers.GPT2LMHeadModel(config)


def _llama(kv_heads, **changes):
    config = transformers.LlamaConfig(
        num_hidden_layers=3,
        hidden_size=24,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=10,
        intermediate_size=12,
        vocab_size=VOCAB,
        max_position_embeddings=16,
        **_ENDS,
        **changes,
    )
    return transformers.LlamaForCausalLM(config)


def _gpt_neox(**changes):
    config = transformers.GPTNeoXConfig(
        num_hidden_layers=3,
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=20,
        vocab_size=VOCAB,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=0,
        **changes,
    )
    return transformers.GPTNeoXForCausalLM(config)


def _bert(**changes):
    sizes = {"num_hidden_layers": 3, "hidden_size": 8, "num_attention_heads": 2}
    config = transformers.BertConfig(
        **sizes, intermediate_size=12, vocab_size=VOCAB, max_position_embeddings=9, **changes
    )
    return transformers.BertForMaskedLM(config)


def _distilbert():
    sizes = {"n_layers": 3, "dim": 8, "n_heads": 2, "hidden_dim": 12, "vocab_size": VOCAB}
    config = transformers.DistilBertConfig(**sizes, max_position_embeddings=9)
    return transformers.DistilBertForMaskedLM(config)


_MAKE = {
    "gpt2": _gpt2,
    "gpt2-untied-relu": lambda: _gpt2(
        tie_word_embeddings=False, activation_function="relu", n_inner=12
    ),
    "llama-mha": lambda: _llama(4),
    "llama-gqa-biased": lambda: _llama(
        2, attention_bias=True, mlp_bias=True, rope_parameters=_ROPE
    ),
    "llama-mqa-tied": lambda: _llama(1, tie_word_embeddings=True, rope_parameters=_ROPE),
    "gpt-neox": _gpt_neox,
    "gpt-neox-serial": lambda: _gpt_neox(
        use_parallel_residual=False,
        attention_bias=False,
        rope_parameters={**_ROPE, "partial_rotary_factor": 0.5},
    ),
    "bert": _bert,
    "bert-untied": lambda: _bert(tie_word_embeddings=False),
    "distilbert": _distilbert,
}
CASES = tuple(_MAKE)


@functools.cache
def torch_model(name: str):
    """The model, every parameter drawn anew so that biases and norms matter."""
    torch.manual_seed(0)
    model = _MAKE[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def logits(model, tokens, mask=None) -> np.ndarray:
    """Positions count the real tokens, as ours do; DistilBERT cannot be told and counts all."""
    seen = np.ones((len(tokens), LENGTH), int) if mask is None else mask
    options = {"attention_mask": torch.tensor(seen)}
    if model.config.model_type != "distilbert":
        options["position_ids"] = torch.tensor(np.maximum(seen.cumsum(1) - 1, 0))
    with torch.no_grad():
        return model(torch.tensor(np.asarray(tokens)), **options).logits.numpy()
