"""How good a dictionary is: error, sparsity, dead features, and what the model loses with it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["Quality", "Recovery", "quality", "recovered"]


@dataclasses.dataclass(frozen=True)
class Quality:
    """Of a dictionary on activations it was not trained on.

    Attributes:
      explained: share of the variance that is explained, 1 - sum |x - x^|^2 / sum |x - mean|^2.
      l0: active features of a token, mean.
      density: (feature,) share of the tokens at which each is active.
      strongest: (feature,) the largest f_i |decoder_i| seen.
      tokens: how many were looked at.
    """

    explained: float
    l0: float
    density: np.ndarray
    strongest: np.ndarray
    tokens: int

    @property
    def dead(self) -> float:
        """Share of the features that were never active."""
        return float((self.density == 0).mean())


def quality(dictionary: Any, x: Any, *, batch: int = 4096) -> Quality:
    """Measures a dictionary on activations, some tokens at a time.

    Args:
      dictionary: a `models.Autoencoder`, one.
      x: (token, width).
      batch: tokens whose features exist at once.

    Raises:
      ValueError: for another width, fewer than 2 tokens, or activations that are all the same.

    Example:
      >>> from jaxcompress.models import create_autoencoder
      >>> dictionary = create_autoencoder(4, 8, jax.random.key(0))
      >>> x = jax.random.normal(jax.random.key(1), (32, 4))
      >>> quality(dictionary, x).density.shape
      (8,)
    """
    x = np.asarray(x)
    width = dictionary.decoder_bias.shape[-1]
    if x.ndim != 2 or x.shape[1] != width or len(x) < 2:
        raise check.fail("x", f"at least 2 tokens (token, {width})", x.shape)
    check.integer("batch", batch, 1)
    spread = float(((x - x.mean(axis=0, keepdims=True, dtype=np.float64)) ** 2).sum())
    if not spread > 0:
        raise check.fail("x", "finite activations that differ", f"a variance of {spread}")
    error, active, strongest = 0.0, 0.0, -np.inf
    for start in range(0, len(x), batch):
        part = _measured(dictionary, jnp.asarray(x[start : start + batch]))
        error += float(part[0])
        active = active + np.asarray(part[1], np.float64)
        strongest = np.maximum(strongest, np.asarray(part[2]))
    density = np.asarray(active) / len(x)
    explained = 1 - error / spread
    return Quality(explained, float(density.sum()), density, np.asarray(strongest), len(x))


@jax.jit
def _measured(dictionary: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    f = dictionary.encode(x)
    error = ((x - dictionary.decode(f)) ** 2).sum()
    return error, (f > 0).sum(axis=0), (f * dictionary.norms[None]).max(axis=0)


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Losses of a model, in nats, summed over a row of a batch, mean over rows.

    Attributes:
      clean: as it is.
      spliced: with a layer's stream replaced by its reconstruction.
      removed: with the stream replaced by one vector, the same everywhere.
    """

    clean: float
    spliced: float
    removed: float

    @property
    def share(self) -> float:
        """Of what the stream does for the loss, the share that the dictionary keeps; may be < 0."""
        return (self.removed - self.spliced) / (self.removed - self.clean)


def recovered(
    model: Any, dictionary: Any, layer: int, batches: Iterable[Any], loss: Any, *, mean: Any = None
) -> Recovery:
    """What a model loses when it reads a reconstruction of its residual stream.

    Args:
      model: with `params`, `config`, `apply` and `resume`.
      dictionary: of the stream that enters `layer`.
      layer: in [0, layers]; at `layers` the stream that the head reads.
      batches: with `tokens` and `attention_mask`.
      loss: `loss(output, batch)`, numbers of every token or row, 0 where nothing is asked, such as
        `prune.answer` and `prune.next_token`.
      mean: (width,) what the stream is removed to; by default 0.

    Raises:
      ValueError: for a layer or a width that the model has not, or no batches.

    Example:
      >>> import jaxcompress as jc
      >>> model = jc.load("builtin:student")
      >>> months = jc.tasks.get("months", model.tokenizer, 4, jax.random.key(0))
      >>> nothing = jc.models.create_autoencoder(model.config.width, 8, jax.random.key(0))
      >>> nothing = dataclasses.replace(nothing, encoder_bias=-jnp.full(8, 1e9))
      >>> round(recovered(model, nothing, 1, [months], jc.prune.answer).share, 6)
      0.0
    """
    check.integer("layer", layer, 0, model.config.layers)
    width = (model.config.width,)
    check.shape("dictionary.decoder_bias", dictionary.decoder_bias, [width], "(width,)")
    mean = jnp.zeros(width) if mean is None else jnp.asarray(mean, jnp.float32)
    check.shape("mean", mean, [width], "(width,)")
    sums, count = np.zeros(3), 0
    for batch in batches:
        batch = jax.tree.map(jnp.asarray, batch)
        static = (model.apply, model.resume, loss, layer)
        sums += np.asarray(_losses(*static, model.params, dictionary, mean, batch))
        count += len(batch.tokens)
    if not count:
        raise check.fail("batches", "at least one", "none")
    return Recovery(*(sums / count).tolist())


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _losses(apply, resume, loss, layer, params, dictionary, mean, batch):
    """(3,) sums of the losses of a batch."""
    mask = batch.attention_mask
    x = apply(params, batch.tokens, attention_mask=mask, taps=("resid",)).taps["resid"][layer]
    removed = jnp.broadcast_to(mean[None, None], x.shape)
    streams = (x, dictionary.decode(dictionary.encode(x)), removed)
    ran = (resume(params, stream, layer, attention_mask=mask) for stream in streams)
    return jnp.stack([loss(out, batch).sum() for out in ran])
