"""The blocks of one forward, scanned, looped or started at a traced layer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.models.blocks import Block, take
from jaxcompress.models.config import LayerSize, ModelConfig
from jaxcompress.models.control import LayerControl
from jaxcompress.models.gates import controls
from jaxcompress.models.positions import sight

__all__ = ["TAPS", "Stack"]

TAPS = ("attns", "heads", "mlps", "neurons", "pattern", "resid")
"""Activations a forward can return, each before its gate: what the component computed.

`heads` (layer, batch, position, head, head_dim), `attns` and `mlps` (layer, batch, position,
width), `neurons` (layer, batch, position, neuron), `pattern` (layer, batch, head, query, key),
`resid` (layer + 1, batch, position, width): the stream that enters each layer, and the last.
"""


class Stack:
    """The blocks of one forward with everything that they share; lives only while tracing."""

    def __init__(self, config, params, resid, attention_mask, gates, edits, taps, prefix, split):
        self.x = jnp.asarray(resid).astype(config.dtype)
        if self.x.ndim != 3 or self.x.shape[2] != config.width:
            expected = f"(batch, position, {config.width})"
            raise check.fail("resid", expected, self.x.shape)
        for tap in taps:
            check.known("taps", tap, TAPS)
        batch, length = self.x.shape[:2]
        self.config, self.blocks, self.taps, self.prefix = config, params["blocks"], taps, prefix
        self.earlier = 0 if prefix is None else prefix.shape[2]
        if prefix is not None and not config.causal:
            raise check.fail("prefix", "a causal model", "one that sees both ways")
        self.control, self.keep = controls(config, gates, edits, batch, length)
        if prefix is not None and self.keep is not None and self.keep.shape[1] != 1:
            raise check.fail(
                "gates.width", "the same at all positions with a prefix", "per position"
            )
        self.split = split and self.control.heads is not None
        self.sight = sight(config, attention_mask, length, self.earlier)

    def static(self, layer: int, rows: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Layers `layer` to the last, known while tracing."""
        last = self.config.layers - 1
        x, seen, start = self.x, [], layer
        stop = last if rows is not None and not self.taps else last + 1
        if self.split and start < stop:
            x, tap = self._block(x, start, split=True)
            seen, start = [jax.tree.map(lambda leaf: leaf[None], tap)], start + 1
        if start < stop:
            x, tap = self._run(x, start, stop)
            seen.append(tap)
        if stop == last and layer <= last:
            x, _ = self._block(x, last, rows=rows, split=self.split and layer == last)
        if not self.taps:
            return x, {}
        taps = jax.tree.map(lambda *parts: jnp.concatenate(parts), *seen) if seen else {}
        if "resid" in self.taps:
            ends = [taps["resid"]] if seen else []
            taps["resid"] = jnp.concatenate([*ends, x[None]])
        return x, taps

    def traced(self, layer: jax.Array, rows: Any) -> jax.Array:
        """Layers `layer` to the last; the first is unrolled, so that it can be shared by gates."""
        if not self.config.stacked or self.taps:
            what = "taps" if self.taps else "layers of different sizes"
            raise check.fail("layer", f"an int, as there are {what}", "a traced value")
        last = self.config.layers - 1

        def run(x: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(layer + self.split, last, lambda i, x: self._block(x, i)[0], x)

        def finish(x: jax.Array) -> jax.Array:
            return self._block(x, last, rows=rows)[0]

        def pick(x: jax.Array) -> jax.Array:
            return x if rows is None else take(x, rows)

        if not self.split:
            return jax.lax.cond(layer <= last, lambda x: finish(run(x)), pick, self.x)
        x, _ = self._block(self.x, jnp.minimum(layer, last), split=True)
        x = jnp.where(layer <= last, x, self.x)
        return jax.lax.cond(layer < last, lambda x: finish(run(x)), pick, x)

    def _run(self, x: jax.Array, start: int, stop: int) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.config.stacked and self.config.scan:
            part = jax.tree.map(lambda leaf: leaf[start:stop], (self.blocks, self.control))
            prefix = None if self.prefix is None else self.prefix[start:stop]

            def body(x: jax.Array, layer: Any) -> Any:
                (params, control), prefix = layer
                return self._call(x, params, control, prefix, self.config.layer_sizes[0])

            return jax.lax.scan(body, x, (part, prefix))
        seen = []
        for i in range(start, stop):
            x, tap = self._block(x, i)
            seen.append(tap)
        return x, tree.stack(seen)

    def _block(self, x: jax.Array, i: Any, rows: Any = None, split: bool = False) -> Any:
        control = tree.index(self.control, i)
        prefix = None if self.prefix is None else self.prefix[i]
        if self.config.stacked:
            size, params = self.config.layer_sizes[0], tree.index(self.blocks, i)
        else:
            size, params = self.config.layer_sizes[i], self.blocks[str(i)]
            control = _narrow(control, size)
        return self._call(x, params, control, prefix, size, rows, split)

    def _call(self, x, params, control, prefix, size, rows=None, split=False):
        block = Block(self.config, size)
        variables = {"params": params}
        x, taps = block.apply(variables, x, prefix, self.sight, control, self.keep, rows, split)
        return x, {name: _widen(name, taps[name], self.config) for name in self.taps}


def _narrow(control: LayerControl, size: LayerSize) -> LayerControl:
    """Gates and edits of the components that an uneven layer has."""
    heads, neurons = size.heads, size.neurons
    cuts = {
        "heads": lambda x: x[..., :heads],
        "neurons": lambda x: x[..., :neurons],
        "heads_edit": lambda x: x[..., :heads, :],
        "neurons_edit": lambda x: x[..., :neurons],
    }
    fields = control._asdict()
    return LayerControl(
        **{k: v if v is None or k not in cuts else cuts[k](v) for k, v in fields.items()}
    )


def _widen(name: str, tap: jax.Array, config: ModelConfig) -> jax.Array:
    """Pads a tap of an uneven layer with zeros, so that layers stack."""
    axes = {
        "heads": (2, config.heads),
        "pattern": (1, config.heads),
        "neurons": (2, config.neurons),
    }
    if config.stacked or name not in axes:
        return tap
    axis, size = axes[name]
    padding = [(0, size - n if i == axis else 0) for i, n in enumerate(tap.shape)]
    return jnp.pad(tap, padding)
