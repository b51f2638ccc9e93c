"""How far networks are that learn modular addition: progress measures over time.

Reference: Nanda et al. 2023 (arXiv 2301.05217), section 5, and their code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcompress import tree
from jaxcompress.narrow import fourier, waves
from jaxcompress.narrow.entropy import accuracy, cross_entropy, mean_over
from jaxcompress.narrow.reading import KEY_SHARE

__all__ = ["MEASURES", "measures", "spectra", "trajectory"]

MEASURES = (
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "restricted_loss",
    "excluded_loss",
    "embedding_gini",
    "neuron_gini",
    "square_weights",
)
"""Progress measures that are one number for each snapshot."""


def measures(
    logits: Float[Any, "pair vocab"], answers: Any, chosen: Any, keys: Any
) -> dict[str, Float[Array, ""]]:
    """Losses and accuracies on the pairs trained on and on the others, and the progress measures.

    Args:
      logits: of all pairs at the last position.
      answers: (pair,) see `data.modular.table`.
      chosen: (pair,) bool, the pairs that are trained on.
      keys: (frequency,) 1 for key frequencies, see `fourier`.

    Returns:
      `train_loss`, `test_loss`, `train_accuracy`, `test_accuracy`; `restricted_loss`, on all pairs;
      `excluded_loss`, without all key frequencies, on the pairs trained on. Nats.

    Example:
      >>> s = (jnp.arange(25) // 5 + jnp.arange(25) % 5) % 5
      >>> chosen, keys = jnp.arange(25) < 10, jnp.array([0.0, 1.0])
      >>> found = measures(9.0 * jax.nn.one_hot(s, 5), s, chosen, keys)
      >>> float(found["test_accuracy"]), bool(found["excluded_loss"] > found["train_loss"])
      (1.0, True)
    """
    p = round(len(answers) ** 0.5)
    losses, right = cross_entropy(logits, answers), accuracy(logits, answers)
    narrow = cross_entropy(fourier.restricted(logits, p, keys), answers)
    rest = cross_entropy(fourier.excluded(logits, p, keys), answers)
    return {
        "train_loss": mean_over(losses, chosen),
        "test_loss": mean_over(losses, ~chosen),
        "train_accuracy": mean_over(right, chosen),
        "test_accuracy": mean_over(right, ~chosen),
        "restricted_loss": narrow.mean(),
        "excluded_loss": mean_over(rest, chosen),
    }


def spectra(params: Any, p: int) -> dict[str, Float[Array, "..."]]:
    """What the weights alone say: Fourier norms of both ends, their Gini, the sum of squares.

    Args:
      params: of a network with one layer, with untied embeddings.
      p: modulus.

    Returns:
      `embedding_norms` and `neuron_norms` (frequency,), of W_E and of W_L (neurons to logits), the
      Gini coefficients `embedding_gini` and `neuron_gini`, and `square_weights`.

    Example:
      >>> params = {"embed": {"tokens": jnp.ones((6, 2))}, "head": {"kernel": jnp.ones((2, 6))},
      ...           "blocks": {"mlp": {"down": {"kernel": jnp.ones((1, 3, 2))}}}}
      >>> float(spectra(params, 5)["square_weights"])
      30.0
    """
    down = params["blocks"]["mlp"]["down"]["kernel"][0]
    ends = {
        "embedding": params["embed"]["tokens"][:p],
        "neuron": (down @ params["head"]["kernel"]).T[:p],
    }
    norms = {name: waves.frequency_norms(matrix) for name, matrix in ends.items()}
    squares = jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)]))
    return {
        **{f"{name}_norms": norm for name, norm in norms.items()},
        **{f"{name}_gini": waves.gini(norm) for name, norm in norms.items()},
        "square_weights": squares,
    }


def trajectory(
    apply: Callable[..., Any],
    params: Any,
    table: Any,
    chosen: Any,
    keys: Any = None,
    *,
    together: int = 4,
) -> dict[str, Array]:
    """All progress measures of a whole run, or of several, in one program.

    Args:
      apply: `apply(params, tokens) -> Output`, see `types.Model`.
      params: snapshots, every leaf with a leading time axis.
      table: `data.modular.Table`.
      chosen: (pair,) bool, the pairs trained on.
      keys: (frequency,) 1 for key frequencies; `None` for those of the last snapshot.
      together: snapshots in one vmap; groups of so many run one after the other.

    Returns:
      With a leading time axis what `measures` and `spectra` return; `shares` (frequency,) of
      `fourier.sum_shares`; `coefficients` (frequency,) of cos(w (x + y - z)); `excluded_each`
      (frequency,), the loss on the training pairs without one frequency.

    Example:
      >>> class Output:
      ...     def __init__(self, logits):
      ...         self.logits = logits[:, None]
      >>> from jaxcompress.data.modular import split, table
      >>> sums = table(5)
      >>> params = {"embed": {"tokens": jnp.ones((2, 6, 2))},
      ...           "head": {"kernel": jnp.ones((2, 2, 6))},
      ...           "blocks": {"mlp": {"down": {"kernel": jnp.ones((2, 1, 3, 2))}}}}
      >>> apply = lambda params, tokens: Output(jax.nn.one_hot(sums.answers, 6))
      >>> trajectory(apply, params, sums, split(5, 0.5, 0))["restricted_loss"].shape
      (2,)
    """
    return _trajectory(apply, params, table, jnp.asarray(chosen), keys, together)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _trajectory(apply: Any, params: Any, table: Any, chosen: Any, keys: Any, together: int) -> Any:
    p = round(len(table.answers) ** 0.5)

    def logits(params: Any) -> Array:
        return apply(params, table.tokens).logits[:, -1]

    if keys is None:
        last = fourier.sum_shares(logits(tree.index(params, -1)), p)
        keys = (last > KEY_SHARE).astype(jnp.float32)

    def snapshot(params: Any) -> dict[str, Array]:
        found = logits(params)

        def without(frequency: Array) -> Array:
            rest = fourier.excluded(found, p, frequency)
            return mean_over(cross_entropy(rest, table.answers), chosen)

        return {
            **measures(found, table.answers, chosen, keys),
            **spectra(params, p),
            "shares": fourier.sum_shares(found, p),
            "coefficients": fourier.cosine_coefficients(found, p),
            "excluded_each": jax.lax.map(without, jnp.eye(len(keys))),
        }

    found = jax.lax.map(snapshot, params, batch_size=together)
    return found | {"keys": keys}
