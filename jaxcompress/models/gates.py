"""Gates: a number per component, 1 keeps, 0 removes; and the edits that fill the hole.

`out = gate * out + (1 - gate) * replacement`. A gate array may carry leading batch axes, so that
every example, or every position of every example, has gates of its own:

| field   | per model | per example | per position |
|---------|-----------|-------------|--------------|
| heads   | (L, H)    | (B, L, H)   | (B, T, L, H) |
| attns   | (L,)      | (B, L)      | (B, T, L)    |
| mlps    | (L,)      | (B, L)      | (B, T, L)    |
| neurons | (L, F)    | (B, L, F)   | (B, T, L, F) |
| width   | (D,)      | (B, D)      | (B, T, D)    |

Any other shape is a `ValueError`, never a broadcast. What is gated: a head after the value mix and
before the output projection; an attention or MLP block's output, bias included, before it is added
to the residual stream; a neuron after the activation; a residual channel wherever it is written,
with norms taken over the channels that are kept (so that a gated model equals the narrower one).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.control import LayerControl

__all__ = ["Edits", "Gates", "controls"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gates:
    """Gate values; a field that is `None` is all ones and costs nothing.

    Attributes:
      heads: (layer, head).
      attns: (layer,).
      mlps: (layer,).
      neurons: (layer, neuron).
      width: (width,).

    All may have leading axes, see the module's table.
    """

    heads: Any = None
    attns: Any = None
    mlps: Any = None
    neurons: Any = None
    width: Any = None

    @classmethod
    def ones(cls, config: ModelConfig) -> Gates:
        """All components kept, every field filled in: the point to differentiate at."""
        return cls(**{name: jnp.ones(shape) for name, shape in _shapes(config).items()})

    @classmethod
    def off(
        cls,
        config: ModelConfig,
        *,
        heads: Iterable[tuple[int, int]] = (),
        attns: Iterable[int] = (),
        mlps: Iterable[int] = (),
        layers: Iterable[int] = (),
        neurons: Iterable[tuple[int, int]] = (),
        width: Iterable[int] = (),
    ) -> Gates:
        """Some components removed; fields of which nothing is removed stay `None`.

        Args:
          config: of the model.
          heads: (layer, head) pairs.
          attns: layers whose attention block goes.
          mlps: layers whose MLP block goes.
          layers: layers of which both blocks go.
          neurons: (layer, neuron) pairs.
          width: residual channels.

        Raises:
          ValueError: for a component that the model does not have.
        """
        both = [(layer,) for layer in layers]
        listed = {
            "heads": [tuple(pair) for pair in heads],
            "attns": [(layer,) for layer in attns] + both,
            "mlps": [(layer,) for layer in mlps] + both,
            "neurons": [tuple(pair) for pair in neurons],
            "width": [(channel,) for channel in width],
        }
        fields = {}
        for name, shape in _shapes(config).items():
            for item in listed[name]:
                inside = len(item) == len(shape) and all(
                    0 <= i < n for i, n in zip(item, shape, strict=True)
                )
                if not inside:
                    raise check.fail(f"Gates.off({name})", f"an index within {shape}", item)
            if listed[name]:
                where = tuple(jnp.asarray(listed[name]).T)
                fields[name] = jnp.ones(shape).at[where].set(0.0)
        return cls(**fields)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edits:
    """Replacement activations, used where a gate is below 1; `None` is zeros.

    Attributes:
      heads: (layer, batch, position, head, head_dim).
      attns: (layer, batch, position, width).
      mlps: (layer, batch, position, width).
      neurons: (layer, batch, position, neuron).

    The batch and the position axis may have size 1: the same replacement for all.
    """

    heads: Any = None
    attns: Any = None
    mlps: Any = None
    neurons: Any = None


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {
        "heads": (config.layers, config.heads),
        "attns": (config.layers,),
        "mlps": (config.layers,),
        "neurons": (config.layers, config.neurons),
        "width": (config.width,),
    }


def controls(
    config: ModelConfig, gates: Gates | None, edits: Edits | None, batch: int, positions: int
) -> tuple[LayerControl, Any]:
    """Checks gates and edits and lays them out for the blocks.

    Args:
      config: of the model.
      gates: or `None`.
      edits: or `None`.
      batch: examples in the forward.
      positions: positions in the forward.

    Returns:
      A `LayerControl` with the layer axis leading in every field, and the width gate as
      (1 or batch, 1 or position, width) or `None`.

    Raises:
      ValueError: for a shape that is none of the allowed ones, and for an edit without its gate.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> control, keep = controls(config, Gates.off(config, heads=[(1, 0)]), None, 3, 5)
      >>> control.heads.shape, control.mlps, keep
      ((2, 1, 1, 2), None, None)
    """
    gates = Gates() if gates is None else gates
    edits = Edits() if edits is None else edits
    shapes = _shapes(config)
    laid: dict[str, Any] = {}
    for name, shape in shapes.items():
        value = getattr(gates, name)
        if value is not None:
            allowed = [shape, (batch, *shape), (batch, positions, *shape)]
            check.shape(f"gates.{name}", value, allowed)
            value = jnp.asarray(value)
            lead = value.ndim - len(shape)
            value = jnp.expand_dims(value, tuple(range(lead, 2)))
            laid[name] = value if name == "width" else jnp.moveaxis(value, 2, 0)
    trailing = {
        "heads": (config.heads, config.head_dim),
        "attns": (config.width,),
        "mlps": (config.width,),
        "neurons": (config.neurons,),
    }
    for name, tail in trailing.items():
        value = getattr(edits, name)
        if value is not None:
            if name not in laid:
                raise check.fail(f"edits.{name}", f"used together with gates.{name}", "no gate")
            leads = {(b, t) for b in (1, batch) for t in (1, positions)}
            check.shape(f"edits.{name}", value, [(config.layers, *lead, *tail) for lead in leads])
            laid[f"{name}_edit"] = jnp.asarray(value)
    width = laid.pop("width", None)
    return LayerControl(**laid), width
