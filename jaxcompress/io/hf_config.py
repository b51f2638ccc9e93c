"""`config.json` to `ModelConfig` and back; a key that is not understood is refused, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxcompress import check
from jaxcompress.io import hf_rope
from jaxcompress.models.config import ModelConfig

__all__ = ["from_hf", "to_hf"]

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_TO_HF_ACTIVATION = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}

# Keys that cannot change the logits of an inference forward: of training, of heads for other tasks,
# of generation, and what older versions wrote of themselves.
# fmt: off
_HARMLESS = {
    "_attn_implementation_autoset", "_name_or_path", "_num_labels", "architectures",
    "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "bos_token_id",
    "chunk_size_feed_forward", "classifier_dropout", "cls_token_id", "directionality", "dropout",
    "dtype", "embd_pdrop", "eos_token_id", "finetuning_task", "gradient_checkpointing",
    "hidden_dropout", "hidden_dropout_prob", "id2label", "initializer_range", "label2id",
    "model_type", "n_ctx", "n_special", "num_labels", "output_attentions", "output_hidden_states",
    "output_past", "pad_token_id", "pooler_fc_size", "pooler_num_attention_heads",
    "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "predict_special_tokens",
    "prefix", "problem_type", "qa_dropout", "resid_pdrop", "return_dict", "sep_token_id",
    "seq_classif_dropout", "sinusoidal_pos_embds", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "task_specific_params",
    "tie_weights_", "tokenizer_class", "torch_dtype", "torchscript", "transformers_version",
    "unk_token_id", "use_bfloat16", "use_cache", "xla_device",
    "bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values",
    "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature", "top_k",
    "top_p", "typical_p",
}
# fmt: on
# Keys that could, and the only values under which the forward here is the right one.
_FIXED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "position_embedding_type": ("absolute",),
    "pretraining_tp": (1,),
    "pruned_heads": ({}, None),
    "reorder_and_upcast_attn": (False,),  # only the order of a float16 product
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
    "tie_encoder_decoder": (False,),
}


class _Family(NamedTuple):
    keys: dict[str, str]  # ours -> Hugging Face's
    fixed: dict[str, Any]  # what the family never varies
    architecture: str


_FAMILIES: dict[str, _Family] = {
    "gpt2": _Family(
        {
            "layers": "n_layer",
            "heads": "n_head",
            "width": "n_embd",
            "neurons": "n_inner",
            "vocab": "vocab_size",
            "context": "n_positions",
            "activation": "activation_function",
            "norm_eps": "layer_norm_epsilon",
            "tied": "tie_word_embeddings",
        },
        {},
        "GPT2LMHeadModel",
    ),
    "llama": _Family(
        {
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "kv_heads": "num_key_value_heads",
            "head_dim": "head_dim",
            "width": "hidden_size",
            "neurons": "intermediate_size",
            "vocab": "vocab_size",
            "context": "max_position_embeddings",
            "activation": "hidden_act",
            "norm_eps": "rms_norm_eps",
            "tied": "tie_word_embeddings",
            "qkv_bias": "attention_bias",
            "mlp_bias": "mlp_bias",
        },
        {"norm": "rmsnorm", "gated_mlp": True, "positions": "rope"},
        "LlamaForCausalLM",
    ),
    "gpt_neox": _Family(
        {
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "width": "hidden_size",
            "neurons": "intermediate_size",
            "vocab": "vocab_size",
            "context": "max_position_embeddings",
            "activation": "hidden_act",
            "norm_eps": "layer_norm_eps",
            "tied": "tie_word_embeddings",
            "qkv_bias": "attention_bias",
            "parallel": "use_parallel_residual",
        },
        {"positions": "rope"},
        "GPTNeoXForCausalLM",
    ),
    "bert": _Family(
        {
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "width": "hidden_size",
            "neurons": "intermediate_size",
            "vocab": "vocab_size",
            "context": "max_position_embeddings",
            "activation": "hidden_act",
            "norm_eps": "layer_norm_eps",
            "tied": "tie_word_embeddings",
            "token_types": "type_vocab_size",
        },
        {"post_norm": True, "final_norm": False, "causal": False, "embed_norm": True},
        "BertForMaskedLM",
    ),
    "distilbert": _Family(
        {
            "layers": "n_layers",
            "heads": "n_heads",
            "width": "dim",
            "neurons": "hidden_dim",
            "vocab": "vocab_size",
            "context": "max_position_embeddings",
            "activation": "activation",
            "tied": "tie_word_embeddings",
        },
        {
            "post_norm": True,
            "final_norm": False,
            "causal": False,
            "embed_norm": True,
            "norm_eps": 1e-12,
        },
        "DistilBertForMaskedLM",
    ),
}
# What transformers assumes where config.json is silent.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    "llama": {
        "num_key_value_heads": None,
        "head_dim": None,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": 2048,
    },
    "gpt_neox": {
        "intermediate_size": 24576,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "use_parallel_residual": True,
        "max_position_embeddings": 2048,
    },
    "bert": {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "tie_word_embeddings": True,
        "type_vocab_size": 2,
        "max_position_embeddings": 512,
    },
    "distilbert": {
        "activation": "gelu",
        "tie_word_embeddings": True,
        "max_position_embeddings": 512,
    },
}


def from_hf(raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Reads the contents of a `config.json`.

    Args:
      raw: the parsed JSON.
      where: the file, for messages.

    Returns:
      The configuration, with the language-model head of its family.

    Raises:
      ValueError: for an architecture, a key or a value that is not implemented, naming it.

    Example:
      >>> raw = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16,
      ...        "vocab_size": 11}
      >>> from_hf(raw).neurons
      32
    """
    name = raw.get("model_type")
    if not isinstance(name, str) or name not in _FAMILIES:
        raise check.fail(f"{where}: model_type", f"one of {sorted(_FAMILIES)}", repr(name))
    family = _FAMILIES[name]
    _refuse_unknown(raw, name, where)
    values = _DEFAULTS[name] | {k: v for k, v in raw.items() if k in family.keys.values()}
    fields: dict[str, Any] = {"family": name, "kv_heads": None, "head_dim": None} | family.fixed
    for ours, theirs in family.keys.items():
        if theirs not in values:
            raise check.fail(f"{where}: {theirs}", "a value", "no such key")
        fields[ours] = values[theirs]
    _refuse_wrong_types(fields, family, where)
    activation = check.known(f"{where}: activation", fields["activation"], _ACTIVATIONS)
    fields["activation"] = _ACTIVATIONS[activation]
    fields["kv_heads"] = fields["kv_heads"] or fields["heads"]
    fields["neurons"] = fields["neurons"] or 4 * fields["width"]
    if fields["head_dim"] is None:
        if fields["width"] % fields["heads"]:
            got = f"{fields['width']} over {fields['heads']}"
            raise check.fail(f"{where}: width", "a multiple of the number of heads", got)
        fields["head_dim"] = fields["width"] // fields["heads"]
    if name in hf_rope.KEYS:
        fields["output_bias"] = fields["qkv_bias"]
        fields |= hf_rope.read(raw, fields["head_dim"], where)
    if name in ("bert", "distilbert"):
        fields |= {"head": "masked_lm", "unembed_bias": True}
    return ModelConfig(**fields)


def _refuse_unknown(raw: Mapping[str, Any], name: str, where: str) -> None:
    known = _HARMLESS | set(_FIXED) | set(_FAMILIES[name].keys.values())
    known |= hf_rope.KEYS.get(name, set())
    unknown = sorted(set(raw) - known)
    if unknown:
        raise check.fail(where, f"keys that are implemented for {name}", ", ".join(unknown))
    causal = _FAMILIES[name].fixed.get("causal", True)
    for key, allowed in _FIXED.items():
        if causal and key == "is_decoder":  # as they all are, whatever is written there
            continue
        if key in raw and raw[key] not in allowed:
            raise check.fail(f"{where}: {key}", repr(allowed[0]), repr(raw[key]))


def _refuse_wrong_types(fields: Mapping[str, Any], family: _Family, where: str) -> None:
    kinds = {"int": int, "bool": bool, "float": (int, float), "Activation": str}
    optional = ("kv_heads", "head_dim", "neurons")
    for field in dataclasses.fields(ModelConfig):
        if field.name not in family.keys or field.type not in kinds:
            continue
        value = fields[field.name]
        if value is None and field.name in optional:
            continue
        wrong_bool = isinstance(value, bool) != (field.type == "bool")
        if wrong_bool or not isinstance(value, kinds[field.type]):
            expected = f"a value of type {'str' if field.type == 'Activation' else field.type}"
            raise check.fail(f"{where}: {family.keys[field.name]}", expected, repr(value))
        least = 0 if field.name == "token_types" else 1
        if field.type == "int" and isinstance(value, int) and value < least:
            raise check.fail(f"{where}: {family.keys[field.name]}", "a positive number", value)


def to_hf(config: ModelConfig, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The `config.json` with which stock transformers loads the same model.

    Args:
      config: of the model.
      extra: keys to add, such as token ids.

    Raises:
      ValueError: if no stock configuration describes the model, naming the constraint, and for
        further keys that would change it or that `from_hf` refuses.

    Example:
      >>> raw = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16,
      ...        "vocab_size": 11}
      >>> to_hf(from_hf(raw))["architectures"]
      ['GPT2LMHeadModel']
    """
    if config.family not in _FAMILIES:
        raise check.fail("config.family", f"one of {sorted(_FAMILIES)}", repr(config.family))
    if config.sizes is not None:
        hint = "form='padded' fills them up with zeros, form='native' keeps them"
        raise check.fail("config.sizes", "layers of one size", "layers that differ", hint)
    if config.family == "llama" and config.width % config.heads:
        expected = f"a divisor of the width ({config.width}), as stock Llama demands"
        raise check.fail("config.heads", expected, config.heads)
    if config.family == "gpt_neox" and config.head_dim * config.heads != config.width:
        expected = f"width / heads ({config.width} / {config.heads}), as stock GPT-NeoX demands"
        raise check.fail("config.head_dim", expected, config.head_dim)
    family = _FAMILIES[config.family]
    raw: dict[str, Any] = {"model_type": config.family, "architectures": [family.architecture]}
    for ours, theirs in family.keys.items():
        raw[theirs] = getattr(config, ours)
    activation = family.keys["activation"]
    raw[activation] = _TO_HF_ACTIVATION[config.activation]
    if config.family in hf_rope.KEYS:
        raw |= hf_rope.write(config)
    if config.family == "bert" and config.head == "none":
        raw["architectures"] = ["BertModel"]
    if config.family == "distilbert" and config.head == "none":
        raw["architectures"] = ["DistilBertModel"]
    extra = dict(extra or {})
    changed = [key for key, value in extra.items() if raw.get(key, value) != value]
    if changed:
        raise check.fail("extra", "keys beside those that say what the model is", changed)
    raw |= extra
    head = {} if config.head != "none" else {"head": "none", "unembed_bias": False}
    how = {name: getattr(config, name) for name in ("dtype", "scan", "remat", "pooler")}
    # Reading back must give the same model: whatever the keys cannot say is a constraint violated.
    back = dataclasses.replace(from_hf(raw), **how, **head)
    differ = [
        f"{f.name}={getattr(config, f.name)!r} (it can only be {getattr(back, f.name)!r})"
        for f in dataclasses.fields(config)
        if getattr(config, f.name) != getattr(back, f.name)
    ]
    if differ:
        expected = f"what stock transformers can express for {config.family}"
        raise check.fail("config", expected, "; ".join(differ))
    return raw
