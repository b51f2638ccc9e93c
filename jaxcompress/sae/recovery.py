"""How good a dictionary is for its model: what is lost when the reconstruction is read instead."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["Recovery", "recovered"]


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
        """Of what the stream does for the loss, the share that the dictionary keeps; may be < 0.

        NaN where the stream does nothing for it.
        """
        does = self.removed - self.clean
        return (self.removed - self.spliced) / does if does else math.nan


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
