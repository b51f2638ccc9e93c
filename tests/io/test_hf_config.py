"""The `config.json` of models that people load, as the hub has them, is understood."""

from __future__ import annotations

import dataclasses
import json

import pytest
import transformers

from jaxcompress.io.hf_config import from_hf, to_hf
from tests import families

GPT2 = """{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
 "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
 "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024,
 "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1,
 "summary_activation": null, "summary_first_dropout": 0.1, "summary_proj_to_labels": true,
 "summary_type": "cls_index", "summary_use_proj": true,
 "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
 "vocab_size": 50257}"""
GPT2_MEDIUM = """{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
 "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
 "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024,
 "n_embd": 1024, "n_head": 16, "n_layer": 24, "n_positions": 1024, "n_special": 0,
 "predict_special_tokens": true, "resid_pdrop": 0.1, "summary_activation": null,
 "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
 "summary_use_proj": true,
 "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
 "vocab_size": 50257}"""
DISTILGPT2 = """{"_num_labels": 1, "activation_function": "gelu_new",
 "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
 "embd_pdrop": 0.1, "eos_token_id": 50256, "id2label": {"0": "LABEL_0"},
 "initializer_range": 0.02, "label2id": {"LABEL_0": 0}, "layer_norm_epsilon": 1e-05,
 "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 6,
 "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
 "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
 "summary_use_proj": true,
 "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
 "vocab_size": 50257}"""
BERT = """{"architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1,
 "gradient_checkpointing": false, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
 "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
 "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
 "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
 "position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0",
 "type_vocab_size": 2, "use_cache": true, "vocab_size": 30522}"""
DISTILBERT = """{"activation": "gelu", "architectures": ["DistilBertForMaskedLM"],
 "attention_dropout": 0.1, "dim": 768, "dropout": 0.1, "hidden_dim": 3072,
 "initializer_range": 0.02, "max_position_embeddings": 512, "model_type": "distilbert",
 "n_heads": 12, "n_layers": 6, "pad_token_id": 0, "qa_dropout": 0.1,
 "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": false, "tie_weights_": true,
 "transformers_version": "4.10.0.dev0", "vocab_size": 30522}"""
LLAMA_2 = """{"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
 "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
 "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
 "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
 "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
 "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.31.0.dev0",
 "use_cache": true, "vocab_size": 32000}"""
LLAMA_3 = """{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
 "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
 "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
 "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
 "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
 "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
 "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"},
 "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
 "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256}"""
PYTHIA = """{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0,
 "hidden_act": "gelu", "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048,
 "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox",
 "num_attention_heads": 8, "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25,
 "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.24.0",
 "use_cache": true, "use_parallel_residual": true, "vocab_size": 50304}"""
MINITRON = """{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
 "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 128,
 "hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02,
 "intermediate_size": 9216, "max_position_embeddings": 131072, "mlp_bias": false,
 "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
 "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
 "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"},
 "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
 "transformers_version": "4.43.3", "use_cache": true, "vocab_size": 128256}"""


@pytest.mark.parametrize(
    ("text", "layers", "heads", "kv_heads", "head_dim", "neurons", "tied"),
    [
        pytest.param(GPT2, 12, 12, 12, 64, 3072, True, id="gpt2"),
        pytest.param(GPT2_MEDIUM, 24, 16, 16, 64, 4096, True, id="gpt2-medium"),
        pytest.param(DISTILGPT2, 6, 12, 12, 64, 3072, True, id="distilgpt2"),
        pytest.param(BERT, 12, 12, 12, 64, 3072, True, id="bert-base-uncased"),
        pytest.param(DISTILBERT, 6, 12, 12, 64, 3072, True, id="distilbert-base-uncased"),
        pytest.param(PYTHIA, 6, 8, 8, 64, 2048, False, id="pythia-70m"),
        pytest.param(LLAMA_2, 32, 32, 32, 128, 11008, False, id="llama-2-7b"),
        pytest.param(LLAMA_3, 16, 32, 8, 64, 8192, True, id="llama-3.2-1b"),
        pytest.param(MINITRON, 32, 32, 8, 128, 9216, False, id="llama-3.1-minitron-4b-width"),
    ],
)
def test_configurations_of_the_hub(text, layers, heads, kv_heads, head_dim, neurons, tied):
    config = from_hf(json.loads(text))
    assert (config.layers, config.heads, config.kv_heads) == (layers, heads, kv_heads)
    assert (config.head_dim, config.neurons, config.tied) == (head_dim, neurons, tied)


def test_pythia_turns_a_quarter_of_each_head_and_is_parallel():
    config = from_hf(json.loads(PYTHIA))
    assert (config.rotary_dim, config.rope_theta, config.parallel) == (16, 10000.0, True)
    assert config.qkv_bias and config.output_bias and config.activation == "gelu"
    assert from_hf({**json.loads(PYTHIA), "hidden_act": "gelu_fast"}).activation == "gelu_tanh"


@pytest.mark.parametrize(
    "spelling",
    [
        {"rotary_pct": 0.5, "rotary_emb_base": 500},
        {"partial_rotary_factor": 0.5, "rope_theta": 500.0, "rotary_pct": 0.5},
        {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 500.0}},
    ],
)
def test_spellings_of_partly_rotary_heads(spelling):
    plain = {k: v for k, v in json.loads(PYTHIA).items() if not k.startswith("rotary")}
    config = from_hf({**plain, **spelling})
    assert (config.rotary_dim, config.rope_theta) == (32, 500.0)


@pytest.mark.torch
def test_of_two_rotary_spellings_the_one_counts_that_counts_in_transformers():
    parameters = {"rope_type": "default", "rope_theta": 7.0}
    both = {**json.loads(LLAMA_3), "rope_parameters": parameters}
    theirs, config = transformers.LlamaConfig.from_dict(both).rope_parameters, from_hf(both)
    assert theirs["factor"] == config.rope_scaling.factor == 32.0
    assert theirs["rope_theta"] == config.rope_theta == 500000.0
    with pytest.raises(ValueError, match="rope_type: expected 'default' or 'llama3', got 'linear'"):
        from_hf({**both, "rope_scaling": {"rope_type": "linear", "factor": 4.0}})


def test_how_it_is_computed_is_not_what_it_is():
    """A model that saves memory by computing activations twice is written as any other."""
    config = families.config("llama")
    assert to_hf(dataclasses.replace(config, remat=True)) == to_hf(config)


@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(100, 58), (44, 30), (98, 2), (80, 20)])
def test_shares_of_a_head_survive_being_written(head_dim, rotary_dim):
    size = {"heads": 2, "head_dim": head_dim, "width": 2 * head_dim, "rotary_dim": rotary_dim}
    config = families.config("gpt_neox", kv_heads=2, **size)
    raw = to_hf(config)
    assert from_hf(raw) == config
    assert int(head_dim * raw["rotary_pct"]) == rotary_dim  # as transformers 4 has it
