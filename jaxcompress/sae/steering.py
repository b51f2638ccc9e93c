"""Steering: a model runs on with features set to other values; what they cannot explain stays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxcompress import check
from jaxcompress.types import Output

__all__ = ["clamp", "steer"]


def clamp(dictionary: Any, x: Any, features: Any, values: Any) -> jax.Array:
    """The stream with some features set: x + sum_i (value_i - f_i) decoder_i.

    Everything else in x stays, its error under the dictionary too.

    Args:
      dictionary: with `encode` and `decoder`.
      x: (..., width).
      features: (n,) numbers of features, each once.
      values: (n,) what they are set to; 0 removes one. `Quality.strongest` divided by
        `dictionary.norms` is the largest that was seen.

    Returns:
      (..., width).

    Raises:
      ValueError: for features that there are not, the same one twice, or other numbers of values.

    Reference:
      Templeton et al. 2024, Scaling Monosemanticity, "Influence on behavior".

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0))
      >>> x = jnp.ones((3, 4))
      >>> f = dictionary.encode(x)[0, jnp.array([2])]
      >>> bool(jnp.allclose(clamp(dictionary, x, jnp.array([2]), f), x))
      True
    """
    features, values = jnp.asarray(features), jnp.asarray(values, jnp.float32)
    if features.ndim != 1 or features.shape != values.shape:
        got = f"{features.shape} and {values.shape}"
        raise check.fail("features", "numbers (n,), and as many values", got)
    if not isinstance(features, Tracer):
        count, known = len(dictionary.decoder), sorted(set(features.tolist()))
        if len(known) < len(features) or known[:1] < [0] or known[-1:] > [count - 1]:
            expected = f"different features in [0, {count - 1}]"
            raise check.fail("features", expected, features.tolist())
    now = jnp.take(dictionary.encode(x), features, axis=-1)
    change = values.reshape((1,) * (now.ndim - 1) + (-1,)) - now
    return x + change @ jnp.take(dictionary.decoder, features, axis=0)


def steer(
    model: Any,
    dictionary: Any,
    layer: int,
    tokens: Any,
    features: Any,
    values: Any,
    *,
    attention_mask: Any = None,
    **options: Any,
) -> Output:
    """The forward with features of one layer's residual stream set at all tokens.

    Safe under `vmap` over `values` or `features`: a sweep over strengths is one program.

    Args:
      model: with `params`, `config`, `apply` and `resume`.
      dictionary: of the stream that enters `layer`.
      layer: in [0, layers].
      tokens: (batch, position).
      features: as in `clamp`.
      values: as in `clamp`.
      attention_mask: (batch, position).
      **options: of `resume`, such as `answer_position`.

    Raises:
      ValueError: for a layer that the model has not, and as `clamp`.

    Example:
      >>> import jaxcompress as jc
      >>> model = jc.load("builtin:student")
      >>> dictionary = jc.models.create_autoencoder(model.config.width, 8, jax.random.key(0))
      >>> tokens = jnp.ones((1, 4), int)
      >>> steer(model, dictionary, 1, tokens, jnp.array([3]), jnp.array([5.0])).logits.shape[:2]
      (1, 4)
    """
    check.integer("layer", layer, 0, model.config.layers)
    width = (model.config.width,)
    check.shape("dictionary.decoder_bias", dictionary.decoder_bias, [width], "(width,)")
    clean = model.apply(model.params, tokens, attention_mask=attention_mask, taps=("resid",))
    x = clamp(dictionary, clean.taps["resid"][layer], features, values)
    return model.resume(model.params, x, layer, attention_mask=attention_mask, **options)
