"""Arrays made smaller by indexing them with the gates that are not 0: masked equals shrunk.

What gates say is carried out exactly, whatever their values: a head or neuron at 0 is cut out, one
at 0.5 has its outgoing weights halved. So the shrunk model without gates computes what the whole
one computes with them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, tree
from jaxcompress.models.config import LayerSize, ModelConfig
from jaxcompress.models.gates import Gates
from jaxcompress.prune import coupling

__all__ = ["fold", "kept", "pad", "shrink"]

Flat = dict[str, Any]
Shrinkable = TypeVar("Shrinkable")
"""A model: `config`, `params` and `replace(config=..., params=...)`."""


def shrink(model: Shrinkable, gates: Gates) -> Shrinkable:
    """Cuts out every component whose gate is 0.

    * Heads: a key/value head goes with the last of its query heads. Where the others of a layer
      are left with different numbers of query heads, key/value heads are repeated until each
      serves equally many (greatest common divisor of the numbers): exact, and no larger than
      multi-head attention. `select` with `groups` avoids it.
    * Layers: a layer that no longer writes anything is cut out if the norms stand before the
      blocks; if they stand after, it stays, as they would still act, with no heads and no neurons.
    * Width: the channel goes from every array; gates must be 0 or 1.

    Args:
      model: with `config`, `params` and `replace`, such as `models.Model`.
      gates: of the whole model, without batch axes.

    Returns:
      The smaller model. Layers that are left with the same sizes stay stacked, otherwise the
      configuration has `sizes`.

    Raises:
      ValueError: for gates of the wrong shape, a width gate that is neither 0 nor 1, or gates that
        leave no residual channel.

    Example:
      >>> import jax
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> small = shrink(create(config, key=jax.random.key(0)), Gates.off(config, heads=[(0, 1)]))
      >>> [size.heads for size in small.config.sizes]
      [1, 2]
    """
    config, params = model.config, model.params  # pyright: ignore[reportAttributeAccessIssue]
    values = _values(config, gates)
    width = np.flatnonzero(values["width"])
    layers = _layers(config, params, values)
    rest = tree.paths({name: part for name, part in params.items() if name != "blocks"})
    rest = coupling.take(rest, coupling.WIDTH, width)
    small = _resized(config, [layer.size for layer in layers], width=len(width))
    narrow = [coupling.take(layer.flat, coupling.WIDTH, width) for layer in layers]
    blocks = coupling.layers(narrow, small.stacked)
    params = jax.tree.map(jnp.asarray, {**tree.nest(rest), "blocks": blocks})
    return model.replace(config=small, params=params)  # pyright: ignore[reportAttributeAccessIssue]


def fold(model: Shrinkable, gates: Gates) -> Shrinkable:
    """The same model with gates multiplied into the weights behind them; nothing is cut out.

    What is gated off then has only zeros behind it, and a second round of scores can be taken.

    Args:
      model: as for `shrink`.
      gates: of heads, blocks and neurons. Width cannot be folded in, as norms would still see it.

    Raises:
      ValueError: for gates of the wrong shape, or of width.

    Example:
      >>> import jax
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> shut = fold(create(config, key=jax.random.key(0)), Gates.off(config, heads=[(0, 1)]))
      >>> float(abs(shut.params["blocks"]["attn"]["output"]["kernel"][0, 1]).max())
      0.0
    """
    config, params = model.config, model.params  # pyright: ignore[reportAttributeAccessIssue]
    values = _values(config, gates)
    if not values["width"].all():
        raise check.fail("gates.width", "all ones: shrink instead", "some at 0")
    flat = [
        _folded(coupling.layer(params, config, i), config.layer_sizes[i], values, i)
        for i in range(config.layers)
    ]
    blocks = jax.tree.map(jnp.asarray, coupling.layers(flat, config.stacked))
    return model.replace(params={**params, "blocks": blocks})  # pyright: ignore[reportAttributeAccessIssue]


def kept(model: Any, gates: Gates) -> dict[str, Any]:
    """Indices in the whole model of what `shrink` leaves: the names of what is in the small one.

    Args:
      model: the whole one.
      gates: as for `shrink`.

    Returns:
      Plain lists: `layers`; `heads` and `neurons` (one list for each of these layers); `width`.

    Example:
      >>> import jax
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=4,
      ...                      neurons=2, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> kept(model, Gates.off(config, heads=[(0, 1)], layers=[1]))
      {'layers': [0], 'heads': [[0]], 'neurons': [[0, 1]], 'width': [0, 1, 2, 3]}
    """
    values = _values(model.config, gates)
    layers = _layers(model.config, model.params, values)
    return {
        "layers": [layer.place for layer in layers],
        "heads": [layer.heads for layer in layers],
        "neurons": [layer.neurons for layer in layers],
        "width": np.flatnonzero(values["width"]).tolist(),
    }


def pad(
    config: ModelConfig, params: Any, *, heads: int, kv_heads: int, neurons: int
) -> tuple[ModelConfig, Any]:
    """Fills uneven layers with zeros up to one size: exact, loads everywhere, saves no time.

    A head of zeros writes nothing, and neither does a neuron whose outgoing weights are zero.

    Args:
      config: of the model.
      params: its parameters.
      heads: query heads of every layer, a multiple of `kv_heads`.
      kv_heads: key/value heads of every layer.
      neurons: of every layer.

    Returns:
      The configuration, with layers of one size, and the parameters.

    Raises:
      ValueError: if a layer has more than that.

    Example:
      >>> import jax
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = shrink(create(config, key=jax.random.key(0)), Gates.off(config, heads=[(0, 1)]))
      >>> pad(model.config, model.params, heads=2, kv_heads=2, neurons=16)[0] == config
      True
    """
    check.integer("heads", heads, 1)
    if heads % check.integer("kv_heads", kv_heads, 1):
        raise check.fail("heads", f"a multiple of kv_heads ({kv_heads})", heads)
    size = LayerSize(heads, kv_heads, neurons)
    flat = [
        _pad_layer(coupling.layer(params, config, i), config.layer_sizes[i], size)
        for i in range(config.layers)
    ]
    blocks = jax.tree.map(jnp.asarray, coupling.layers(flat, True))
    whole = _resized(config, [size] * config.layers, width=config.width)
    return whole, {**params, "blocks": blocks}


def _values(config: ModelConfig, gates: Gates) -> dict[str, np.ndarray]:
    """The gates as NumPy arrays of the model's shapes, ones where there are none."""
    found = {}
    for field in dataclasses.fields(Gates):
        ones = getattr(Gates.ones(config), field.name)
        value = getattr(gates, field.name)
        found[field.name] = np.asarray(ones if value is None else value)
        check.shape(f"gates.{field.name}", found[field.name], [ones.shape])
    check.finite("gates", found)
    width = found["width"]
    if not np.isin(width, (0, 1)).all() or not width.any():
        got = f"{np.unique(width).tolist()}"
        raise check.fail("gates.width", "0 or 1 everywhere, and 1 somewhere", got)
    return found


class _Layer(NamedTuple):
    """What is left of a layer: its place, heads and neurons in the whole model, and its arrays."""

    place: int
    heads: list[int]
    neurons: list[int]
    flat: Flat
    size: LayerSize


def _layers(config: ModelConfig, params: Any, values: Mapping[str, np.ndarray]) -> list[_Layer]:
    """The layers that still do something, or, if there is none, the first."""
    found = [
        _shrink_layer(coupling.layer(params, config, i), config.layer_sizes[i], values, i)
        for i in range(config.layers)
    ]
    return [layer for layer in found if config.post_norm or not _is_silent(layer)] or found[:1]


def _shrink_layer(flat: Flat, size: LayerSize, values: Mapping[str, np.ndarray], i: int) -> _Layer:
    """One layer with gates multiplied into what it writes, and without what is then 0."""
    heads, neurons = _open(size, values, i)
    flat = _folded(flat, size, values, i)
    query, shared = _regroup(heads != 0, size)
    units = np.flatnonzero(neurons).tolist()
    for table, taken in (
        (coupling.HEADS, query),
        (coupling.KV_HEADS, shared),
        (coupling.NEURONS, units),
    ):
        flat = coupling.take(flat, table, taken)
    return _Layer(i, query, units, flat, LayerSize(len(query), len(shared), len(units)))


def _open(
    size: LayerSize, values: Mapping[str, np.ndarray], i: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gates of the heads and neurons of a layer, those of their blocks included."""
    heads = values["heads"][i, : size.heads] * values["attns"][i]
    return heads, values["neurons"][i, : size.neurons] * values["mlps"][i]


def _folded(flat: Flat, size: LayerSize, values: Mapping[str, np.ndarray], i: int) -> Flat:
    """One layer with gates multiplied into what it writes."""
    heads, neurons = _open(size, values, i)
    gates = {
        "attn/output/kernel": heads[:, None, None],
        "attn/output/bias": values["attns"][i],
        "mlp/down/kernel": neurons[:, None],
        "mlp/down/bias": values["mlps"][i],
    }
    return {
        path: leaf * np.asarray(gates[path], leaf.dtype) if path in gates else leaf
        for path, leaf in flat.items()
    }


def _regroup(alive: np.ndarray, size: LayerSize) -> tuple[list[int], list[int]]:
    """Query heads and key/value heads to take, so that each of the latter serves equally many."""
    if not alive.any():
        return [], []
    groups = np.flatnonzero(alive) // (size.heads // size.kv_heads)
    names, counts = np.unique(groups, return_counts=True)
    each = functools.reduce(math.gcd, counts.tolist())
    return np.flatnonzero(alive).tolist(), np.repeat(names, counts // each).tolist()


def _is_silent(layer: _Layer) -> bool:
    """Whether a layer writes nothing to the residual stream, not even a bias."""
    paths = ("attn/output/bias", "mlp/down/bias")
    biases = [layer.flat[path] for path in paths if path in layer.flat]
    return not layer.heads and not layer.neurons and not any(bias.any() for bias in biases)


def _resized(config: ModelConfig, sizes: list[LayerSize], *, width: int) -> ModelConfig:
    """The configuration of a model whose layers have these sizes; stacked if they are equal."""
    heads, neurons = max(s.heads for s in sizes), max(s.neurons for s in sizes)
    even = len(set(sizes)) == 1 and heads > 0
    return dataclasses.replace(
        config,
        layers=len(sizes),
        width=width,
        heads=max(heads, 1),
        kv_heads=max(1, *(size.kv_heads for size in sizes)),
        neurons=neurons,
        sizes=None if even else tuple(sizes),
    )


def _pad_layer(flat: Flat, old: LayerSize, new: LayerSize) -> Flat:
    """Zeros for the heads and neurons that are missing; query heads stay with their group."""
    groups, wider = (size.heads // max(size.kv_heads, 1) for size in (old, new))
    if old.kv_heads > new.kv_heads or groups > wider or old.neurons > new.neurons:
        raise check.fail("size", f"at least {old} in every layer", new)
    places = [head // groups * wider + head % groups for head in range(old.heads)]
    for table, count, where in (
        (coupling.HEADS, new.heads, places),
        (coupling.KV_HEADS, new.kv_heads, range(old.kv_heads)),
        (coupling.NEURONS, new.neurons, range(old.neurons)),
    ):
        flat = {path: _spread(leaf, table.get(path), count, where) for path, leaf in flat.items()}
    return flat


def _spread(leaf: Any, axes: tuple[int, ...] | None, count: int, where: Any) -> Any:
    """An array whose rows stand at the places `where` of an axis of `count`, zeros between."""
    if axes is None:
        return leaf
    (axis,) = axes
    shape = (*leaf.shape[:axis], count, *leaf.shape[axis + 1 :])
    out = np.zeros(shape, leaf.dtype)
    out[(slice(None),) * axis + (np.asarray(where, np.int64),)] = leaf
    return out
