"""What features say: the tokens at which they are most active, and those that they promote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["promoted", "strongest", "written"]


def written(dictionary: Any, x: Any, *, batch: int = 4096) -> np.ndarray:
    """(feature,) how much each feature writes over all tokens, the sum of f_i |decoder_i|.

    Args:
      dictionary: with `encode` and `norms`.
      x: (token, width).
      batch: tokens whose features exist at once.

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> written(create_autoencoder(4, 8, jax.random.key(0)), jnp.ones((3, 4))).shape
      (8,)
    """
    starts = range(0, len(x), check.integer("batch", batch, 1))
    return np.sum([_written(dictionary, jnp.asarray(x[i : i + batch])) for i in starts], axis=0)


@jax.jit
def _written(dictionary: Any, x: jax.Array) -> jax.Array:
    return (dictionary.encode(x) * dictionary.norms[None]).sum(axis=0)


def strongest(
    dictionary: Any, x: Any, features: Sequence[int], count: int, *, batch: int = 4096
) -> np.ndarray:
    """The tokens at which features are most active.

    Args:
      dictionary: with `encode`.
      x: (token, width).
      features: (n,) numbers.
      count: tokens of each.
      batch: tokens whose features exist at once.

    Returns:
      (n, count) numbers of tokens, the strongest first and, of equals, the first; -1 where a
      feature is active at fewer.

    Raises:
      ValueError: for a feature that there is not, or a count below 1.

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0))
      >>> strongest(dictionary, dictionary.decoder, [5, 2], 1).tolist()
      [[5], [2]]
    """
    check.integer("count", count, 1)
    for feature in features:
        check.integer("features", feature, 0, len(dictionary.decoder) - 1)
    chosen = np.asarray(features, np.int32)
    starts = range(0, len(x), check.integer("batch", batch, 1))
    parts = [_active(dictionary, jnp.asarray(x[i : i + batch]), chosen) for i in starts]
    f = np.concatenate([np.asarray(part) for part in parts]).T
    order = np.argsort(-f, axis=1, kind="stable")[:, :count]
    order = np.where(np.take_along_axis(f, order, axis=1) > 0, order, -1)
    return np.pad(order, ((0, 0), (0, count - order.shape[1])), constant_values=-1)


@jax.jit
def _active(dictionary: Any, x: jax.Array, features: jax.Array) -> jax.Array:
    return jnp.take(dictionary.encode(x), features, axis=1)


def promoted(model: Any, dictionary: Any, features: Sequence[int], count: int) -> np.ndarray:
    """The tokens that the head makes of features' directions by themselves.

    The direction goes through the last norm and the unembedding; what these say of nothing (their
    biases) is taken off. A feature may act on later layers in other ways.

    Args:
      model: with `params`, `config`, `resume` and a language-model head.
      dictionary: with a `decoder`.
      features: (n,) numbers.
      count: tokens of each.

    Returns:
      (n, count) tokens, the most promoted first.

    Raises:
      ValueError: for a model without a head, or features that there are not.

    Reference:
      nostalgebraist 2020, logit lens.

    Example:
      >>> import jaxcompress as jc
      >>> model = jc.load("builtin:student")
      >>> dictionary = jc.models.create_autoencoder(model.config.width, 8, jax.random.key(0))
      >>> promoted(model, dictionary, [3], 5).shape
      (1, 5)
    """
    if model.config.head == "none":
        raise check.fail("model", "one with a language-model head", "none")
    for feature in features:
        check.integer("features", feature, 0, len(dictionary.decoder) - 1)
    check.integer("count", count, 1, model.config.vocab)
    rows = jnp.asarray(dictionary.decoder)[np.asarray(features, np.int32)][:, None]
    both = (model.resume(model.params, x, model.config.layers) for x in (rows, 0 * rows))
    one, nothing = (np.asarray(out.logits[:, 0]) for out in both)
    return np.argsort(nothing - one, axis=-1, kind="stable")[:, :count]
