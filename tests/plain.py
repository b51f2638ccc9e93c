"""GPT-2 written again from its definition: plain dicts, one einsum after the other, no Flax.

It takes the project's gates and edits by the formula in their documentation, so it is both the
reference for them and a model of somebody else that can be swept.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress.models import Edits, Gates, Model
from jaxcompress.types import Output


def from_model(model: Model) -> dict[str, Any]:
    """The parameters of a GPT-2 of ours in this file's layout."""
    blocks, layers = model.params["blocks"], []
    for i in range(model.config.layers):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        attn, mlp = block["attn"], block["mlp"]
        layers.append(
            {
                "ln_1": (block["attn_norm"]["scale"], block["attn_norm"]["bias"]),
                "ln_2": (block["mlp_norm"]["scale"], block["mlp_norm"]["bias"]),
                "q": (attn["query"]["kernel"], attn["query"]["bias"]),
                "k": (attn["key"]["kernel"], attn["key"]["bias"]),
                "v": (attn["value"]["kernel"], attn["value"]["bias"]),
                "o": (attn["output"]["kernel"], attn["output"]["bias"]),
                "up": (mlp["up"]["kernel"], mlp["up"]["bias"]),
                "down": (mlp["down"]["kernel"], mlp["down"]["bias"]),
            }
        )
    norm = model.params["head"]["final_norm"]
    return {
        "wte": model.params["embed"]["tokens"],
        "wpe": model.params["embed"]["positions"],
        "layers": layers,
        "ln_f": (norm["scale"], norm["bias"]),
    }


def layer_norm(x, scale_and_bias, eps=1e-5):
    scale, bias = scale_and_bias
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + eps)
    return x * scale[None, None] + bias[None, None]


def _mixed(out, field, layer, gates, edits, axes):
    """`gate * out + (1 - gate) * replacement`, in full."""
    gate = getattr(gates, field)
    if gate is None:
        return out
    own_axes = {"heads": 1, "neurons": 1, "attns": 0, "mlps": 0}[field]
    lead = gate.ndim - 1 - own_axes
    gate = jnp.take(gate, layer, axis=lead)
    gate = jnp.expand_dims(gate, tuple(range(lead, 2)))
    gate = gate.reshape(gate.shape + (1,) * (axes - gate.ndim))
    replacement = getattr(edits, field)
    replacement = 0.0 if replacement is None else replacement[layer]
    return gate * out + (1 - gate) * replacement


def forward(params, tokens, *, attention_mask=None, gates=None, edits=None, taps=()) -> Output:
    gates, edits = gates or Gates(), edits or Edits()
    length = tokens.shape[1]
    positions, visible = jnp.arange(length)[None], jnp.tril(jnp.ones((length, length), bool))[None]
    if attention_mask is not None:
        positions = jnp.maximum(jnp.cumsum(attention_mask, axis=1) - 1, 0)
        visible = visible & (attention_mask == 1)[:, None]
    x = jnp.take(params["wte"], tokens, axis=0) + jnp.take(params["wpe"], positions, axis=0)
    seen = {"heads": [], "attns": [], "mlps": [], "neurons": [], "pattern": [], "resid": [x]}
    for i, layer in enumerate(params["layers"]):
        h = layer_norm(x, layer["ln_1"])
        q, k, v = (
            jnp.einsum("btm,mhd->bthd", h, layer[n][0]) + layer[n][1][None, None] for n in "qkv"
        )
        scores = jnp.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
        pattern = jax.nn.softmax(jnp.where(visible[:, None], scores, -1e30), axis=-1)
        z = jnp.einsum("bhts,bshd->bthd", pattern, v)
        gated = _mixed(z, "heads", i, gates, edits, 4)
        attn = jnp.einsum("bthd,hdm->btm", gated, layer["o"][0]) + layer["o"][1][None, None]
        x = x + _mixed(attn, "attns", i, gates, edits, 3)
        h = layer_norm(x, layer["ln_2"])
        h = jnp.einsum("btm,mf->btf", h, layer["up"][0]) + layer["up"][1][None, None]
        neurons = jax.nn.gelu(h, approximate=True)
        gated = _mixed(neurons, "neurons", i, gates, edits, 3)
        mlp = jnp.einsum("btf,fm->btm", gated, layer["down"][0]) + layer["down"][1][None, None]
        x = x + _mixed(mlp, "mlps", i, gates, edits, 3)
        values = {"heads": z, "attns": attn, "mlps": mlp, "neurons": neurons, "pattern": pattern}
        for name, value in {**values, "resid": x}.items():
            seen[name].append(value)
    logits = jnp.einsum("btm,vm->btv", layer_norm(x, params["ln_f"]), params["wte"])
    return Output(logits, {name: jnp.stack(seen[name]) for name in taps})


@dataclasses.dataclass(frozen=True)
class PlainModel:
    """The least that a sweep asks for: sizes, parameters, and a function."""

    config: Any
    params: Any

    @property
    def apply(self):
        return forward
