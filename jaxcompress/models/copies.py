"""The copies of the residual stream that receivers read, each from its own choice of senders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress.models.products import einsum

__all__ = ["Copies"]


class _Segment(NamedTuple):
    """Writes to the stream between two norms: of the other run, and this one's differences."""

    base: jax.Array
    deltas: list[jax.Array]
    columns: list[int]
    norm: Any = None


class Copies:
    """What every receiver reads, from what has been written so far; lives only while tracing."""

    def __init__(self, norm: Callable[[Any, jax.Array], jax.Array], mask: jax.Array) -> None:
        self._norm, self.mask = norm, mask
        self.closed: list[_Segment] = []
        self.open: _Segment | None = None
        self.column = 0
        self.like: Any = None

    def write(self, base: jax.Array, delta: jax.Array, columns: int = 1) -> None:
        """Adds what senders write: their sum in the other run, (sender, b, t, m) differences."""
        self.like = base
        own = list(range(self.column, self.column + len(delta)))
        self.column += columns
        if self.open is None:
            self.open = _Segment(base, [delta], own)
        else:
            self.open.deltas.append(delta)
            self.open.columns.extend(own)
            self.open = self.open._replace(base=self.open.base + base)

    def norm(self, params: Any) -> None:
        """Every copy is normalised."""
        assert self.open is not None
        self.closed.append(self.open._replace(norm=params))
        self.open = None

    def read(self, first: int, count: int) -> jax.Array:
        """(receiver, batch, position, width): the copies of some receivers."""
        rows = self.mask[:, first : first + count]
        x: Any = None
        for segment in self.closed:
            x = self._with(x, segment, rows)
            x = self._norm(segment.norm, x)
        return x if self.open is None else self._with(x, self.open, rows)

    def _with(self, x: Any, segment: _Segment, rows: jax.Array) -> jax.Array:
        if not segment.columns:  # a layer without heads
            mixed = jnp.broadcast_to(segment.base[None], (rows.shape[1], *segment.base.shape))
            return mixed if x is None else x + mixed
        delta = jnp.concatenate(segment.deltas)
        # One slice where the columns are in a row, which they are unless layers are padded.
        low, high = segment.columns[0], segment.columns[-1] + 1
        whole = high - low == len(segment.columns)
        mask = rows[..., low:high] if whole else rows[..., jnp.array(segment.columns)]
        mask = mask.astype(delta.dtype)
        if len(mask) == 1:
            mixed = einsum("rs,sbtm->rbtm", mask[0], delta)
        else:
            mixed = einsum("trs,sbtm->rbtm", mask, delta)
        mixed = mixed + segment.base[None]
        return mixed if x is None else x + mixed
