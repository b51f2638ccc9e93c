"""Which neurons a skill is made of, and how much skills share them.

Neurons are scored by what their gate does to the loss on one skill. Scores turn into nested gates,
all numbers of neurons at once, so that one vmapped program finds the fewest that still do the job.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcompress import check

__all__ = [
    "ablation",
    "attribution",
    "fewest",
    "group_norms",
    "kernels",
    "lasso",
    "nested",
    "overlap",
    "overlap_by_chance",
]

Loss = Callable[[Float[Array, "layer neuron"]], Any]
"""Of gates: the loss on one skill, on one fixed batch."""


def attribution(loss: Loss, gates: Float[Array, "layer neuron"]) -> Float[Array, "layer neuron"]:
    """First-order estimate of what shutting each gate does to the loss: |gate * d loss / d gate|.

    Args:
      loss: of the gates.
      gates: where to start from, mostly ones.

    Returns:
      Scores in the unit of the loss; 0 for gates that are shut already.

    Example:
      >>> attribution(lambda gates: (gates * jnp.array([[1.0, -2.0]])).sum(), jnp.ones((1, 2)))
      Array([[1., 2.]], dtype=float32)

    Reference: Molchanov et al. 2019 (arXiv 1906.10771), at a gate.
    """
    return jnp.abs(gates * jax.grad(loss)(gates))


def ablation(
    loss: Loss, gates: Float[Array, "layer neuron"], *, together: int = 64
) -> Float[Array, "layer neuron"]:
    """What shutting each gate by itself really does to the loss: |L without it - L|.

    Args:
      loss: of the gates.
      gates: where to start from, mostly ones.
      together: gates in one vmap; groups of so many run one after the other.

    Returns:
      Scores in the unit of the loss.

    Example:
      >>> ablation(lambda gates: jnp.square(gates.sum()), jnp.ones((1, 2)))
      Array([[3., 3.]], dtype=float32)

    Reference: Michaud et al. 2025 (arXiv 2505.15811), section 3, and the code of "narrow".
    """
    whole = loss(gates)

    def without(place: Any) -> Any:
        return loss(gates.reshape(-1).at[place].set(0.0).reshape(gates.shape))

    found = jax.lax.map(without, jnp.arange(gates.size), batch_size=min(together, gates.size))
    return jnp.abs(found - whole).reshape(gates.shape)


def group_norms(params: Any) -> Float[Array, "layer neuron"]:
    """Norm of all weights of each hidden neuron of a ReLU network: in, bias and out.

    Weights between two hidden layers are in two groups. The sum of the norms is the group lasso
    penalty of sparse-parity networks: it drives whole neurons to zero. The gradient at a group of
    zeros is 0.

    Args:
      params: `{"first", "hidden", "last"}`, each with a kernel (in, out) and a bias, `hidden`
        stacked over layers.

    Returns:
      One norm for every hidden neuron.

    Example:
      >>> params = {"first": {"kernel": jnp.array([[2.0, 0.0]]), "bias": jnp.zeros(2)},
      ...           "hidden": {"kernel": jnp.ones((0, 2, 2)), "bias": jnp.ones((0, 2))},
      ...           "last": {"kernel": jnp.array([[1.0, 2.0], [0.0, 3.0]]), "bias": jnp.ones(2)}}
      >>> group_norms(params).tolist()
      [[3.0, 3.0]]

    Reference: Michaud et al. 2025 (arXiv 2505.15811), section 3; the code of "narrow".
    """
    hidden = params["hidden"]["kernel"]
    into = [jnp.square(params["first"]["kernel"]).sum(axis=0), *jnp.square(hidden).sum(axis=1)]
    out = [*jnp.square(hidden).sum(axis=2), jnp.square(params["last"]["kernel"]).sum(axis=1)]
    bias = [params["first"]["bias"], *params["hidden"]["bias"]]
    squares = jnp.stack(into) + jnp.stack(out) + jnp.square(jnp.stack(bias))
    above = squares > 0
    return jnp.where(above, jnp.sqrt(jnp.where(above, squares, 1.0)), 0.0)


def kernels(params: Any, member: int | None = None) -> list[Any]:
    """The weights (in, out) of a ReLU network, one layer after the other.

    Args:
      params: `{"first", "hidden", "last"}`, `hidden` stacked over layers.
      member: of parameters with a leading member axis, the one that is meant.

    Example:
      >>> params = {"first": {"kernel": jnp.ones((5, 2))}, "last": {"kernel": jnp.ones((2, 3))},
      ...           "hidden": {"kernel": jnp.ones((1, 2, 2))}}
      >>> [kernel.shape for kernel in kernels(params)]
      [(5, 2), (2, 2), (2, 3)]
    """
    if member is not None:
        params = jax.tree.map(lambda leaf: leaf[member], params)
    return [params["first"]["kernel"], *params["hidden"]["kernel"], params["last"]["kernel"]]


def lasso(params: Any) -> Float[Array, ""]:
    """Sum of the sizes of all parameters: single weights go to zero, the control of a group lasso.

    Example:
      >>> float(lasso({"w": jnp.array([1.0, -2.0])}))
      3.0
    """
    return jnp.stack([jnp.abs(leaf).sum() for leaf in jax.tree.leaves(params)]).sum()


def nested(scores: Float[Array, "layer neuron"], kept: Any) -> Float[Array, "choice layer neuron"]:
    """Gates that keep the best neurons, all layers ranked together, for many numbers of them.

    Args:
      scores: the higher, the more a neuron matters; of equals the earlier one stays.
      kept: (choice,) how many neurons stay.

    Returns:
      Gates of 0 and 1.

    Example:
      >>> nested(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1, 2])).tolist()
      [[[0.0, 1.0, 0.0]], [[0.0, 1.0, 1.0]]]
    """
    rank = jnp.argsort(jnp.argsort(-scores.reshape(-1), stable=True), stable=True)
    found = rank[None] < jnp.asarray(kept)[:, None]
    return found.reshape(-1, *scores.shape).astype(jnp.float32)


def fewest(kept: Any, accuracy: Any, *, threshold: float = 0.98) -> float:
    """The smallest number of neurons with which the accuracy is at least `threshold`.

    Args:
      kept: (choice,) numbers of neurons.
      accuracy: (choice,) in [0, 1].
      threshold: in [0, 1].

    Returns:
      The number, or NaN if there is none.

    Example:
      >>> fewest([60, 40, 20], [1.0, 0.99, 0.7])
      40.0
    """
    kept, accuracy = np.asarray(kept, float), np.asarray(accuracy, float)
    check.shape("accuracy", accuracy, [kept.shape], "(choice,)")
    if not 0 <= threshold <= 1:
        raise check.fail("threshold", "a number in [0, 1]", threshold)
    enough = kept[accuracy >= threshold]
    return float(enough.min()) if enough.size else float("nan")


def overlap(sets: Bool[Array, "skill *neurons"]) -> Float[Array, "skill skill"]:
    """Jaccard index of the skills' neuron sets: shared neurons of all in either; 1 if both empty.

    The nonlocality of a network is how far this is above 0 off the diagonal; compare it with
    `overlap_by_chance`, since large sets share neurons anyway.

    Args:
      sets: True where a neuron belongs to the skill.

    Example:
      >>> (6 * overlap(jnp.array([[True, True, False], [False, True, True]]))).round().tolist()
      [[6.0, 2.0], [2.0, 6.0]]
    """
    flat = jnp.asarray(sets).reshape(len(sets), -1).astype(jnp.float32)
    both, sizes = flat @ flat.T, flat.sum(axis=1)
    either = sizes[:, None] + sizes[None] - both
    return jnp.where(either > 0, both / jnp.maximum(either, 1.0), 1.0)


def overlap_by_chance(sets: Bool[Array, "skill *neurons"]) -> Float[Array, "skill skill"]:
    """What `overlap` is for random sets of the same sizes: of expected shared and joint numbers.

    Args:
      sets: True where a neuron belongs to the skill.

    Returns:
      The ratio of the expectations; the diagonal is 1.

    Example:
      >>> overlap_by_chance(jnp.array([[True, True, False, False], [False, True, True, False]]))
      Array([[1.        , 0.33333334],
             [0.33333334, 1.        ]], dtype=float32)
    """
    flat = jnp.asarray(sets).reshape(len(sets), -1)
    sizes = flat.sum(axis=1).astype(jnp.float32)
    both = sizes[:, None] * sizes[None] / flat.shape[1]
    either = sizes[:, None] + sizes[None] - both
    found = jnp.where(either > 0, both / jnp.maximum(either, 1e-9), 1.0)
    return jnp.where(jnp.eye(len(sizes), dtype=bool), 1.0, found)
