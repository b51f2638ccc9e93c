"""Quanta discovery with gradients: tokens that are predicted by the same part of the network.

If predicting two tokens uses the same piece of knowledge, improving one prediction moves the same
parameters as improving the other. So tokens are clustered by the angle between the gradients of
their losses.

Reference: Michaud et al. 2023 (arXiv 2303.13506), section 5, and their code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import Array, Float, Int

from jaxcompress import check, tree

__all__ = ["cosines", "gradients", "token_losses"]

LEFT_OUT = ("embed", "head", "norm")
"""Parameters whose path has one of these in it are no part of a gradient."""

Apply = Callable[..., Any]


def token_losses(
    apply: Apply, params: Any, tokens: Int[Any, "row position"], *, chunk: int = 32
) -> Float[np.ndarray, "row position"]:
    """Loss of every token given those before it, in nats; infinite for the first of a row.

    Args:
      apply: `apply(params, tokens) -> Output`, see `types.Model`.
      params: of the model.
      tokens: rows of text; padding at the end changes nothing before it in a causal model.
      chunk: rows at once.

    Example:
      >>> class Output:
      ...     def __init__(self, tokens):
      ...         self.logits = jnp.zeros((*tokens.shape, 4))
      >>> losses = token_losses(lambda params, tokens: Output(tokens), {}, np.array([[1, 2, 3]]))
      >>> losses.round().tolist()
      [[inf, 1.0, 1.0]]
    """
    tokens = np.asarray(tokens)
    found = np.full(tokens.shape, np.inf, np.float32)
    for start in range(0, len(tokens), check.integer("chunk", chunk, 1)):
        rows = tokens[start : start + chunk]
        found[start : start + chunk, 1:] = _losses(apply, params, jnp.asarray(rows))
    return found


def gradients(
    apply: Apply,
    params: Any,
    tokens: Int[Any, "token position"],
    places: Int[Any, "token"],
) -> Float[Array, "token parameter"]:
    """Gradient of the loss of one token in each row, flat and of norm 1.

    Args:
      apply: `apply(params, tokens) -> Output`.
      params: nested dict; embeddings, the head and norms (`LEFT_OUT`) are held constant.
      tokens: one row of text for each token; a row may come several times.
      places: where the token stands in its row, from 1.

    Returns:
      Rows of norm 1; of a token whose gradient vanishes, of zeros.

    Example:
      >>> class Output:
      ...     def __init__(self, logits):
      ...         self.logits = logits
      >>> apply = lambda params, tokens: Output(params["w"][tokens])
      >>> tokens = jnp.array([[0, 1, 2], [1, 0, 2]])
      >>> found = gradients(apply, {"w": jnp.eye(3)}, tokens, jnp.array([1, 2]))
      >>> found.shape, bool(jnp.allclose(jnp.linalg.norm(found, axis=1), 1))
      ((2, 9), True)
    """
    leaves = tree.paths(params)
    free = {k: v for k, v in leaves.items() if not any(part in k for part in LEFT_OUT)}
    if not free:
        raise check.fail("params", f"arrays whose path has none of {LEFT_OUT}", sorted(leaves))

    def loss(free: Any, row: Array, place: Array) -> Array:
        return _losses(apply, tree.nest(leaves | free), row[None])[0, place - 1]

    slopes = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(free, tokens, places)
    flat = jnp.concatenate([leaf.reshape(len(tokens), -1) for leaf in slopes.values()], axis=1)
    norms = jnp.linalg.norm(flat, axis=1, keepdims=True)
    return flat / jnp.where(norms > 0, norms, 1.0)


def cosines(
    apply: Apply,
    params: Any,
    tokens: Int[Any, "token position"],
    places: Int[Any, "token"],
    *,
    block: int = 32,
    memory: int = 2 * 1024**3,
    progress: bool = True,
) -> Float[np.ndarray, "token token"]:
    """Cosines between the gradients of all pairs of tokens, block by block.

    Gradients of the first blocks are held as far as the memory goes and the others made again for
    each block that meets them, so that any number of tokens fits.

    Args:
      apply: as in `gradients`.
      params: likewise.
      tokens: likewise.
      places: likewise.
      block: tokens whose gradients are made at once.
      memory: bytes for gradients that are held.
      progress: whether to show a progress bar.

    Returns:
      float32, symmetric, ones on the diagonal.

    Raises:
      ValueError: for places outside their rows.

    Example:
      >>> class Output:
      ...     def __init__(self, logits):
      ...         self.logits = logits
      >>> apply = lambda params, tokens: Output(params["w"][tokens])
      >>> tokens, params = np.array([[0, 1], [0, 1], [1, 0]]), {"w": jnp.eye(3)}
      >>> cosines(apply, params, tokens, np.array([1, 1, 1]), progress=False).round(3).tolist()
      [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    tokens, places = np.asarray(tokens), np.asarray(places)
    check.shape("places", places, [(len(tokens),)], "(token,)")
    if len(places) and not (places.min() >= 1 and places.max() < tokens.shape[1]):
        got = f"from {places.min()} to {places.max()}"
        raise check.fail("places", f"in [1, {tokens.shape[1] - 1}]", got)
    parts = [slice(i, i + block) for i in range(0, len(tokens), check.integer("block", block, 1))]
    found = np.ones((len(tokens), len(tokens)), np.float32)
    held: dict[int, Array] = {}
    total = len(parts) * (len(parts) + 1) // 2
    with tqdm.tqdm(total=total, desc="cosines", disable=not progress) as bar:
        for i, rows in enumerate(parts):
            mine = _unit(apply, params, tokens[rows], places[rows])
            if (len(held) + 1) * mine.nbytes <= memory:
                held[i] = mine
            for j, columns in enumerate(parts[: i + 1]):
                if j == i:
                    other = mine
                elif j in held:
                    other = held[j]
                else:
                    other = _unit(apply, params, tokens[columns], places[columns])
                product = np.asarray(_product(mine, other))
                found[rows, columns], found[columns, rows] = product, product.T
                bar.update()
    np.fill_diagonal(found, 1.0)
    return found


@functools.partial(jax.jit, static_argnums=0)
def _losses(apply: Apply, params: Any, tokens: Array) -> Float[Array, "row later"]:
    logits = jax.nn.log_softmax(apply(params, tokens).logits[:, :-1])
    return -jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]


_unit = jax.jit(gradients, static_argnums=0)
_product = jax.jit(lambda a, b: a @ b.T)
