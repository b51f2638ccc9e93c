"""One skill of a classifier in a smaller network, by any method, as members of one population.

Networks of all sizes are one network with gates. The numbers of a member, in its `hyper`: `seed`
(which images, and whose answers), `gates` (layer, neuron), `alpha` (share of the teacher in the
loss), `beta` (weight of the penalty) and `neurons` (in use at which the penalty ends). Members that
differ in method, size, learning rate and seed then train side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcompress import check
from jaxcompress.models.gates import Gates

__all__ = ["evaluation", "objective", "per_layer", "samples"]

Apply = Callable[..., Any]


def per_layer(scores: Float[Array, "layer neuron"], count: int) -> Float[Array, "layer neuron"]:
    """Gates that keep `count` neurons of each layer, those of the highest scores.

    Args:
      scores: more is better; of equals the earlier one stays.
      count: at least 1, at most the neurons of a layer.

    Example:
      >>> per_layer(jnp.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]]), 2).tolist()
      [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    """
    check.integer("count", count, 1, scores.shape[-1])
    rank = jnp.argsort(jnp.argsort(-scores, axis=-1, stable=True), axis=-1, stable=True)
    return (rank < count).astype(jnp.float32)


def objective(
    apply: Apply,
    images: Float[Array, "seed image pixel"],
    labels: Any,
    answers: Float[Array, "seed image class"],
    *,
    batch: int,
    temperature: float = 20.0,
    penalty: Callable[[Any], Any] | None = None,
    alive: Callable[[Any], Any] | None = None,
) -> Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]]:
    """The loss of a member on images drawn at random: (1 - alpha) CE + alpha T^2 KL + beta R.

    R ends for good with the first step at which no more than `neurons` are in use.

    Args:
      apply: forward of the network, `apply(params, x, gates=...)`.
      images: of all seeds.
      labels: (seed, image) integers.
      answers: logits of each seed's teacher.
      batch: images of a step.
      temperature: T.
      penalty: R, of the parameters.
      alive: (layer, neuron) booleans, of the parameters: the neurons that the penalty has left.

    Returns:
      A function of parameters, key and `hyper`, for `train.population`.

    Example:
      >>> from jaxcompress.types import Output
      >>> def apply(params, x, gates=None):
      ...     return Output(x @ params, {})
      >>> loss = objective(apply, jnp.ones((1, 4, 2)), jnp.zeros((1, 4), int), jnp.zeros((1, 4, 2)),
      ...                  batch=2)
      >>> hyper = {"seed": 0, "gates": None, "alpha": 0.0, "beta": 0.0, "neurons": 0}
      >>> round(float(loss(jnp.zeros((2, 2)), jax.random.key(0), hyper)[0]), 4)
      0.6931

    Reference: Michaud et al. 2025 (arXiv 2505.15811), section 4 and the code of "narrow"; Hinton et
    al. 2015 (arXiv 1503.02531), section 2.
    """

    def loss(params: Any, key: Any, hyper: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        rows = jax.random.randint(key, (batch,), 0, images.shape[1])
        seed = hyper["seed"]
        logits = apply(params, images[seed, rows], gates=Gates(neurons=hyper["gates"])).logits
        said = jax.nn.log_softmax(logits)
        right = -jnp.take_along_axis(said, labels[seed, rows][:, None], axis=1).mean()
        soft = jax.nn.log_softmax(answers[seed, rows] / temperature)
        apart = soft - jax.nn.log_softmax(logits / temperature)
        kl = temperature**2 * (jnp.exp(soft) * apart).sum(axis=-1).mean()
        total = (1 - hyper["alpha"]) * right + hyper["alpha"] * kl
        if penalty is not None and alive is not None:
            over = jax.lax.stop_gradient(alive(params)).sum() > hyper["neurons"]
            total = total + jnp.where(over, hyper["beta"], 0.0) * penalty(params)
        return total, {}

    return loss


def evaluation(
    apply: Apply,
    parts: Mapping[str, tuple[Any, Any]],
    *,
    alive: Callable[[Any], Any] | None = None,
) -> Callable[[Any, Any, Any], dict[str, Any]]:
    """Accuracies of a member on each part of the images, and its hidden neurons in use.

    Args:
      apply: as in `objective`.
      parts: by name images (seed, image, pixel) and labels (seed, image).
      alive: as in `objective`.

    Returns:
      A function of parameters, key and `hyper`, for `train.population`.

    Example:
      >>> from jaxcompress.types import Output
      >>> def apply(params, x, gates=None):
      ...     return Output(x @ params, {})
      >>> measure = evaluation(apply, {"test": (jnp.eye(2)[None], jnp.array([[0, 1]]))})
      >>> found = measure(jnp.eye(2), None, {"seed": 0, "gates": jnp.ones((1, 3))})
      >>> float(found["test"]), float(found["in_use"])
      (1.0, 3.0)
    """

    def measure(params: Any, key: Any, hyper: Mapping[str, Any]) -> dict[str, Any]:
        del key
        gates, found = hyper["gates"], {}
        for name, (images, labels) in parts.items():
            seed = hyper["seed"]
            logits = apply(params, images[seed], gates=Gates(neurons=gates)).logits
            found[name] = (logits.argmax(axis=-1) == labels[seed]).mean()
        left = gates if alive is None else gates * alive(params)
        return found | {"in_use": left.sum()}

    return measure


def samples(
    steps: Any, accuracy: Any, *, batch: int, target: float, ready: Any = None
) -> np.ndarray:
    """(member,) images seen until the accuracy is first at least `target`; infinite if never.

    Args:
      steps: (time,) updates until each measurement.
      accuracy: (time, member).
      batch: images of an update.
      target: in [0, 1].
      ready: (time, member) whether a measurement counts, such as when few enough neurons are in
        use; all by default.

    Example:
      >>> samples([10, 20], [[0.5, 0.5], [0.9, 0.6]], batch=16, target=0.8).tolist()
      [320.0, inf]
    """
    reached = np.asarray(accuracy) >= target
    reached = reached if ready is None else reached & np.asarray(ready)
    first = np.asarray(steps, float)[reached.argmax(axis=0)] * batch
    return np.where(reached.any(axis=0), first, np.inf)
