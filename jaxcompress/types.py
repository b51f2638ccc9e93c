"""The words used everywhere: axis glossary, the forward's output, and what a model must offer.

Axis glossary, used in jaxtyping annotations and in einsum letters:

| word      | letter | meaning                                              |
|-----------|--------|------------------------------------------------------|
| batch     | b      | prompts                                              |
| position  | t, s   | token positions (s: key positions)                   |
| layer     | l      | transformer blocks                                   |
| head      | h      | query heads (k: key/value heads, g: heads per k)     |
| head_dim  | d      | width of one head                                    |
| width     | m      | residual stream                                      |
| neuron    | f      | hidden units of an MLP                               |
| vocab     | v      | tokens                                               |
| component | c      | things that are ablated or patched, one at a time    |
| answer    | a      | alternatives of a right (or wrong) answer, -1 padded |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

__all__ = ["Adapter", "Model", "Output", "Params", "Resumable", "Senders", "Taps"]

Params = Mapping[str, Any]
"""Nested dict of arrays; what `init` returns and `apply` takes."""

Taps = dict[str, jax.Array]
"""Activations by name, only those that were asked for."""


class Output(NamedTuple):
    """What a forward returns.

    Attributes:
      logits: (batch, position, vocab), or (batch, vocab) if answer positions were given, or `None`
        for an encoder without a language-model head.
      taps: the activations asked for by name.
    """

    logits: jax.Array | None
    taps: Taps


class Senders(NamedTuple):
    """What every part of a transformer writes to the residual stream, or a change of that.

    Attributes:
      embed: (batch, position, width).
      heads: (layer, batch, position, head, head_dim), before the output projection.
      mlps: (layer, batch, position, width), bias included.
    """

    embed: Any
    heads: Any
    mlps: Any


@runtime_checkable
class Model(Protocol):
    """The least that sweeps ask of a model: parameters and a pure forward with gates.

    `apply(params, tokens, *, attention_mask, gates, edits, taps)` returns an `Output`. A class of
    another library (`flax.nnx`, Equinox, plain dicts) qualifies by having these two attributes.
    """

    @property
    def params(self) -> Any: ...

    @property
    def apply(self) -> Any: ...


@runtime_checkable
class Resumable(Model, Protocol):
    """A model that can also start in the middle, which is what prefix sharing uses."""

    @property
    def resume(self) -> Any: ...


@runtime_checkable
class Adapter(Protocol):
    """What a forward takes as `lora`: something that knows the parameters with its edit in them."""

    def merged(self, params: Any) -> Any: ...
