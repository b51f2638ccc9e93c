"""What a component is worth, one function for each published criterion.

Each returns a `Gates` that holds scores: the higher, the more the component matters. Fields for
which a criterion says nothing are `None`. Those that look at data are functions of the sums that
`calibrate` collects.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, tree
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.gates import Gates
from jaxcompress.prune import coupling, size

__all__ = [
    "Statistics",
    "ablation",
    "activation",
    "angular_distance",
    "block_influence",
    "fisher",
    "layer_runs",
    "magnitude",
    "marked",
    "michel",
    "parameter_attribution",
    "random",
    "taylor",
]

Statistics = dict[str, Any]
"""What `calibrate` returns."""

Reduction = Literal["token", "example", "batch"]
_DIVISOR = {"token": "tokens", "example": "examples", "batch": "tokens"}
_FIELDS = ("heads", "neurons", "attns", "mlps", "width")


def marked(config: ModelConfig, scores: Gates) -> Gates:
    """Scores with infinity in the slots that smaller layers lack: `select` passes these over.

    Args:
      config: of the model.
      scores: of its largest layer's shape in every layer.

    Example:
      >>> from jaxcompress.models.config import LayerSize
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=3, vocab=11, context=5,
      ...                      sizes=(LayerSize(1, 1, 3), LayerSize(2, 2, 0)))
      >>> marked(config, Gates(heads=np.zeros((2, 2)))).heads.tolist()
      [[0.0, inf], [0.0, 0.0]]
    """
    if config.stacked:
        return scores
    there = size.existing(config)
    names = [name for name in ("heads", "neurons") if getattr(scores, name) is not None]
    return dataclasses.replace(
        scores,
        **{
            name: np.where(getattr(there, name), np.asarray(getattr(scores, name)), np.inf)
            for name in names
        },
    )


def magnitude(config: ModelConfig, params: Any) -> Gates:
    """Euclidean norm of all weights that would go with a component.

    Biases of the component count, those behind it do not; a key/value head counts for each of its
    query heads.

    Args:
      config: of the model.
      params: its parameters.

    Returns:
      Scores of heads, neurons and width, in the unit of the weights.

    Example:
      >>> from jaxcompress.io import load
      >>> model = load("builtin:teacher")
      >>> magnitude(model.config, model.params).heads.shape
      (4, 8)

    Reference: Han et al. 2015 (arXiv 1506.02626), with the groups of coupling.py.
    """
    heads, neurons = np.zeros((config.layers, config.heads)), []
    width = np.zeros(config.width)
    for i, own in enumerate(config.layer_sizes):
        flat = coupling.layer(params, config, i)
        shared = _squares(flat, coupling.KV_HEADS, own.kv_heads)
        each = own.heads // max(own.kv_heads, 1)
        heads[i, : own.heads] = _squares(flat, coupling.HEADS, own.heads) + np.repeat(shared, each)
        neurons.append(_filled(_squares(flat, coupling.NEURONS, own.neurons), config.neurons))
        width += _squares(flat, coupling.WIDTH, config.width)
    outside = {name: part for name, part in params.items() if name != "blocks"}
    flat = {k: np.asarray(v) for k, v in tree.paths(outside).items()}
    width += _squares(flat, coupling.WIDTH, config.width)
    return Gates(heads=np.sqrt(heads), neurons=np.sqrt(neurons), width=np.sqrt(width))


def taylor(sums: Statistics, reduction: Reduction = "token") -> Gates:
    """First-order effect of shutting a gate: the size of d loss / d gate.

    Three scores circulate under one name, and rank weak components differently:

    * `token`: mean over tokens of each one's size (the authors' code of Michel et al.);
    * `example`: of each example's sum (their equation, read literally);
    * `batch`: of each batch's sum, divided by the tokens (run_bertology and its copies; for
      neurons the "activation attribution" of the narrow-AI code). It depends on how examples are
      batched, as signs cancel within a batch.

    Args:
      sums: of `calibrate`, with gradients.
      reduction: see above.

    Returns:
      Scores of all fields, nats per token or example.

    Raises:
      ValueError: for another reduction, or if gradients were not collected.

    Example:
      >>> one = {"token": 6.0, "example": 4.0, "batch": 2.0, "square": 8.0}
      >>> counts = {"tokens": 2.0, "examples": 2.0, "batches": 1.0}
      >>> fields = dict.fromkeys(("heads", "neurons", "attns", "mlps", "width"), one)
      >>> taylor({"counts": counts, "gradients": fields}, "example").heads
      2.0

    Reference: Molchanov et al. 2019 (arXiv 1906.10771); Michel et al. 2019 (arXiv 1905.10650), 4.1.
    """
    check.known("reduction", reduction, tuple(_DIVISOR))
    gradients = _collected(sums, "gradients")
    count = sums["counts"][_DIVISOR[reduction]]
    return Gates(**{name: gradients[name][reduction] / count for name in _FIELDS})


def michel(sums: Statistics, reduction: Reduction = "token") -> Gates:
    """Head importance: `taylor` of heads, divided by its norm over the layer.

    Args:
      sums: of `calibrate`, with gradients.
      reduction: as in `taylor`.

    Returns:
      Scores of heads, the squares of each layer adding up to 1.

    Example:
      >>> one = {"token": jnp.array([[3.0, 4.0]])}
      >>> fields = dict.fromkeys(("heads", "neurons", "attns", "mlps", "width"), one)
      >>> heads = michel({"counts": {"tokens": 5.0}, "gradients": fields}).heads
      >>> np.asarray(heads).round(2)
      array([[0.6, 0.8]], dtype=float32)

    Reference: Michel et al. 2019 (arXiv 1905.10650), sections 4.1 and 4.2.
    """
    heads = jnp.asarray(taylor(sums, reduction).heads)
    norm = jnp.linalg.norm(heads, axis=1, keepdims=True)
    return Gates(heads=heads / jnp.where(norm > 0, norm, 1.0))


def fisher(sums: Statistics) -> Gates:
    """Second-order effect of shutting a gate, by the empirical Fisher information.

    Half the mean over examples of (d loss / d gate)^2; labels are those of the data.

    Args:
      sums: of `calibrate`, with gradients.

    Returns:
      Scores of all fields, in nats per example.

    Example:
      >>> fields = dict.fromkeys(("heads", "neurons", "attns", "mlps", "width"), {"square": 8.0})
      >>> fisher({"counts": {"examples": 2.0}, "gradients": fields}).mlps
      2.0

    Reference: Kwon et al. 2022 (arXiv 2204.09656), section 3.
    """
    gradients, count = _collected(sums, "gradients"), sums["counts"]["examples"]
    return Gates(**{name: 0.5 * gradients[name]["square"] / count for name in _FIELDS})


def activation(sums: Statistics) -> Gates:
    """How large a component's activations are: no gradient, no labels.

    For each example the mean over tokens of the size (of a head, the norm of its output; of a
    channel, after the norms), then the Euclidean norm over examples; width adds up all norms.

    Args:
      sums: of `calibrate`, with activations.

    Returns:
      Scores of heads, neurons and width.

    Example:
      >>> sums = {"heads": jnp.ones((1, 2)), "neurons": jnp.ones((1, 3)), "width": jnp.ones((2, 4))}
      >>> activation({"activations": sums}).width.tolist()
      [2.0, 2.0, 2.0, 2.0]

    Reference: Muralidharan et al. 2024 (arXiv 2407.14679), section 2.2.
    """
    found = {name: jnp.sqrt(value) for name, value in _collected(sums, "activations").items()}
    return Gates(heads=found["heads"], neurons=found["neurons"], width=found["width"].sum(axis=0))


def block_influence(sums: Statistics) -> Gates:
    """How much a layer turns the residual stream: 1 - mean cosine of what enters and leaves it.

    Args:
      sums: of `calibrate`, with activations.

    Returns:
      The same score for the attention and the MLP block of a layer.

    Example:
      >>> sums = {"activations": {}, "influence": jnp.array([1.0, 3.0]), "counts": {"tokens": 4.0}}
      >>> block_influence(sums).mlps.tolist()
      [0.75, 0.25]

    Reference: Men et al. 2024 (arXiv 2403.03853), section 2.2.
    """
    _collected(sums, "activations")
    score = 1.0 - sums["influence"] / sums["counts"]["tokens"]
    return Gates(attns=score, mlps=score)


def angular_distance(sums: Statistics, layers: int = 1) -> np.ndarray:
    """How far `layers` neighbouring layers together turn the stream, at the last token.

    Args:
      sums: of `calibrate`, with activations.
      layers: how many go together.

    Returns:
      (L + 1 - layers,) angles / pi, in [0, 1]: entry i is for layers i to i + layers - 1. The
      smallest names the run of layers to cut out.

    Raises:
      ValueError: if the model does not have so many layers.

    Example:
      >>> sums = {"activations": {}, "angles": jnp.ones((4, 4)), "counts": {"examples": 2.0}}
      >>> angular_distance(sums, 2).tolist()
      [0.5, 0.5]

    Reference: Gromov et al. 2024 (arXiv 2403.17887), section 3.2.
    """
    _collected(sums, "activations")
    angles = np.asarray(sums["angles"])
    check.integer("layers", layers, 1, len(angles) - 1)
    return np.diagonal(angles, layers) / np.asarray(sums["counts"]["examples"])


def layer_runs(sums: Statistics, layers: int = 1) -> Gates:
    """Scores by which the run of neighbouring layers that turns the stream least goes first.

    Args:
      sums: of `calibrate`, with activations.
      layers: of a run.

    Returns:
      Of the attention and the MLP block of each layer, the `angular_distance` of the best run that
      it is in, in [0, 1]: the `layers` lowest are the best run.

    Raises:
      ValueError: as `angular_distance`.

    Example:
      >>> angles = jnp.array([[0, 3, 5, 9], [0, 0, 1, 4], [0, 0, 0, 2], [0, 0, 0, 0]]) / 10
      >>> sums = {"activations": {}, "angles": angles, "counts": {"examples": 1.0}}
      >>> layer_runs(sums, 2).mlps.round(1).tolist()
      [0.5, 0.4, 0.4]
    """
    distances = angular_distance(sums, layers)
    padded = np.pad(distances, layers - 1, constant_values=np.inf)
    best = np.lib.stride_tricks.sliding_window_view(padded, layers).min(axis=1)
    return Gates(attns=best, mlps=best)


def parameter_attribution(
    config: ModelConfig, params: Any, sums: Statistics, *, signed: bool = False
) -> Gates:
    """Neurons by |sum over their weights of gradient * weight|, from gradients of parameters.

    Args:
      config: of the model.
      params: its parameters.
      sums: of `calibrate`, with parameters.
      signed: use the gradient itself, which makes it a first-order effect. The authors' code takes
        its absolute value first, batch by batch, so that the signs of the weights alone cancel.

    Returns:
      Scores of neurons, nats per example.

    Example:
      >>> from jaxcompress.io import load
      >>> from jaxcompress.prune.calibrate import Text, calibrate
      >>> model, text = load("builtin:student"), Text(jnp.ones((1, 3), int), jnp.ones((1, 3), int))
      >>> sums = calibrate(model, [text], wanted=("parameters",), progress=False)
      >>> parameter_attribution(model.config, model.params, sums).neurons.shape
      (2, 256)

    Reference: Michaud et al. 2025, the code of "narrow", prune_and_train.py.
    """
    gradients = _collected(sums, "parameters")["sum" if signed else "abs"]
    neurons = []
    for i, own in enumerate(config.layer_sizes):
        weights = coupling.layer(params, config, i)
        slopes = coupling.layer(gradients, config, i)
        products = {path: slopes[path] * weights[path] for path in weights}
        found = np.abs(_sums(products, coupling.NEURONS, own.neurons))
        neurons.append(_filled(found, config.neurons))
    return Gates(neurons=np.array(neurons) / np.asarray(sums["counts"]["examples"]))


def ablation(over: str, effects: Any) -> Gates:
    """Exact effects of removing components, from `ablate.sweep` with a metric that is to be high.

    Args:
      over: the field they belong to, such as "heads".
      effects: (layer, ...) or (layer, ..., batch) changes of the metric, negative where it falls.

    Returns:
      Scores of that field: by how much the metric falls.

    Raises:
      ValueError: for an unknown field.

    Example:
      >>> ablation("mlps", np.array([-2.0, 1.0])).mlps.tolist()
      [2.0, -1.0]
    """
    check.known("over", over, _FIELDS)
    effects = np.asarray(effects)
    axes = {"heads": 2, "neurons": 2}.get(over, 1)
    return Gates(**{over: -(effects.mean(axis=-1) if effects.ndim > axes else effects)})


def random(config: ModelConfig, key: jax.Array) -> Gates:
    """Uniform numbers in [0, 1): the control that every criterion has to beat.

    Example:
      >>> from jaxcompress.io import load
      >>> random(load("builtin:student").config, jax.random.key(0)).heads.shape
      (2, 8)
    """
    ones = Gates.ones(config)
    keys = jax.random.split(key, len(_FIELDS))
    return dataclasses.replace(
        ones,
        **{
            name: jax.random.uniform(k, getattr(ones, name).shape)
            for name, k in zip(_FIELDS, keys, strict=True)
        },
    )


def _collected(sums: Statistics, name: str) -> Any:
    if name not in sums:
        raise check.fail("sums", f"statistics with {name!r} in them", sorted(sums), "see `wanted`")
    return sums[name]


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    """Zeros in the slots that a smaller layer lacks."""
    return np.pad(values, (0, count - len(values)))


def _squares(flat: dict[str, Any], table: Any, count: int) -> np.ndarray:
    return _sums({path: np.asarray(x, np.float64) ** 2 for path, x in flat.items()}, table, count)


def _sums(flat: dict[str, Any], table: Any, count: int) -> np.ndarray:
    """Sums over the slices of each component, of all arrays that a table names."""
    total = np.zeros(count)
    for path, axes in table.items():
        for axis in axes if path in flat else ():
            others = tuple(i for i in range(flat[path].ndim) if i != axis)
            total += flat[path].sum(axis=others)
        if path in flat and len(axes) == 2:
            total -= np.diagonal(flat[path])  # a square's: in the row and the column of one
    return total
