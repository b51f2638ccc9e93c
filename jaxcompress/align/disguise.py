"""The same network in other clothes: what any score of mechanisms must not see."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.tasks.pairs import generator

__all__ = ["disguise"]

Dressed = TypeVar("Dressed")
"""A model: `config`, `params` and `replace(config=..., params=...)`."""


def disguise(model: Dressed, key: Any) -> Dressed:
    """Permutes heads and neurons, turns the heads' inner bases and the residual basis.

    The function is the same, and so is everything that its components do. The scales of the norms
    are folded into the weights behind them. A LayerNorm subtracts the mean, so the rotation of the
    residual stream then leaves the direction of all ones where it is.

    Args:
      model: a stack of even layers with the norms before the blocks, as many key/value heads as
        query heads, no rotary positions and a plain linear head.
      key: a typed PRNG key.

    Returns:
      The disguised model; its head is no longer tied to the embedding.

    Raises:
      ValueError: for another model.

    Example:
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> other = disguise(model, jax.random.key(1))
      >>> tokens = jnp.arange(5)[None]
      >>> a, b = (m.apply(m.params, tokens).logits for m in (model, other))
      >>> bool(jnp.allclose(a, b, atol=1e-5))
      True
    """
    config: Any = model.config  # pyright: ignore[reportAttributeAccessIssue]
    params: Any = model.params  # pyright: ignore[reportAttributeAccessIssue]
    plain = (
        config.stacked, not config.post_norm, config.kv_heads == config.heads,
        config.positions != "rope", config.head == "linear", not config.gated_mlp,
        not config.embed_norm, not config.token_types,
    )  # fmt: skip
    if not all(plain):
        raise check.fail("model", "even pre-norm layers, no rotary positions, no shared heads",
                         config.family)  # fmt: skip
    rng = generator(key)
    params = jax.tree.map(np.asarray, params)
    turn = _rotation(rng, config.width, config.norm == "layernorm")
    embed = {name: table @ turn for name, table in params["embed"].items()}
    kernel = params["head"].get("kernel", params["embed"]["tokens"].T)
    head = {name: leaf for name, leaf in params["head"].items() if name == "bias"}
    if config.final_norm and config.norm != "none":
        kernel, shift, norm = _folded(params["head"]["final_norm"], kernel)
        head = {"final_norm": norm, "bias": head.get("bias", 0.0) + shift}
    head["kernel"] = turn.T @ kernel
    layers = [
        _layer(config, jax.tree.map(lambda x, i=i: x[i], params["blocks"]), turn, rng)
        for i in range(config.layers)
    ]
    blocks = jax.tree.map(lambda *parts: np.stack(parts), *layers)
    changes = {"tied": False, "unembed_bias": "bias" in head, "qkv_bias": True, "mlp_bias": True}
    config = dataclasses.replace(config, **changes)
    params = {"embed": embed, "blocks": blocks, "head": head}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return model.replace(config=config, params=params)  # pyright: ignore[reportAttributeAccessIssue]


def _layer(config: Any, block: Any, turn: Any, rng: np.random.Generator) -> dict[str, Any]:
    heads, neurons = rng.permutation(config.heads), rng.permutation(config.neurons)
    attn, mlp, norms, parts = block["attn"], block["mlp"], {}, {}
    bases = {
        name: np.stack([_rotation(rng, config.head_dim) for _ in range(config.heads)])
        for name in ("query", "value")
    }
    bases["key"] = bases["query"]  # scores are inner products of the two
    for name, basis in bases.items():
        kernel, shift, norms["attn_norm"] = _folded(block.get("attn_norm"), attn[name]["kernel"])
        kernel = np.einsum("mn,mhd,hde->nhe", turn, kernel, basis)
        bias = np.einsum("hd,hde->he", shift + attn[name].get("bias", 0.0), basis)
        parts[name] = {"kernel": kernel[:, heads], "bias": bias[heads]}
    out = np.einsum("hed,hdm,mn->hen", _turned(bases["value"]), attn["output"]["kernel"], turn)
    parts["output"] = _written(attn["output"], out[heads], turn)
    kernel, shift, norms["mlp_norm"] = _folded(block.get("mlp_norm"), mlp["up"]["kernel"])
    up = {"kernel": (turn.T @ kernel)[:, neurons]}
    up["bias"] = (shift + mlp["up"].get("bias", 0.0))[neurons]
    down = _written(mlp["down"], (mlp["down"]["kernel"] @ turn)[neurons], turn)
    # Biases are stored for all projections of the MLP or for none.
    down.setdefault("bias", np.zeros(config.width))
    found = {name: norm for name, norm in norms.items() if norm}
    return found | {"attn": parts, "mlp": {"up": up, "down": down}}


def _turned(basis: np.ndarray) -> np.ndarray:
    """(head, new, old): the inverse of each head's basis, which is its transpose."""
    return basis.swapaxes(1, 2)


def _written(old: Any, kernel: np.ndarray, turn: np.ndarray) -> dict[str, np.ndarray]:
    return {"kernel": kernel} | ({"bias": old["bias"] @ turn} if "bias" in old else {})


def _folded(norm: Any, kernel: np.ndarray) -> tuple[np.ndarray, Any, dict[str, np.ndarray]]:
    """The kernel behind a norm without its scale, what its bias adds, and the plain norm."""
    if not norm:
        return kernel, np.zeros(kernel.shape[1:]), {}
    scaled = np.einsum("m,m...->m...", norm["scale"], kernel)
    plain = {"scale": np.ones_like(norm["scale"])}
    if "bias" not in norm:
        return scaled, np.zeros(kernel.shape[1:]), plain
    shift = np.einsum("m,m...->...", norm["bias"], kernel)
    return scaled, shift, plain | {"bias": np.zeros_like(norm["bias"])}


def _rotation(rng: np.random.Generator, size: int, keep_ones: bool = False) -> np.ndarray:
    """A random orthogonal matrix; one that leaves the vector of ones alone, if asked."""
    if not keep_ones:
        return np.linalg.qr(rng.normal(size=(size, size)))[0]
    # Any orthogonal basis whose first vector is that of ones; turn only the others.
    start = np.eye(size)
    start[:, 0] = 1.0
    basis, inner = np.linalg.qr(start)[0], np.eye(size)
    inner[1:, 1:] = _rotation(rng, size - 1)
    return basis @ inner @ basis.T
