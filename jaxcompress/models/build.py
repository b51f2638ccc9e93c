"""A model as people hold it: configuration, parameters, tokenizer, and two pure functions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcompress import check, tree
from jaxcompress.models import transformer
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.edges import Edges
from jaxcompress.models.values import in_range
from jaxcompress.types import Output

__all__ = ["Model", "create", "shapes"]


# One function object per configuration: jit's cache is keyed on it, so equal models share compiled
# programs however often they are loaded. Jitted here, so that a call outside `jit` compiles once;
# within another `jit`, `vmap` or `grad` this changes nothing.
@functools.cache
def _bind_apply(config: ModelConfig) -> Callable[..., Any]:
    forward = functools.partial(transformer.apply, config)
    compiled = jax.jit(forward, static_argnames=("taps",))

    @functools.wraps(transformer.apply)
    def apply(params: Any, tokens: Any, *, taps: Sequence[str] = (), **options: Any) -> Output:
        in_range(config, tokens, **options)
        return compiled(params, tokens, taps=check.listed("taps", taps), **options)

    return apply


@functools.cache
def _bind_resume(config: ModelConfig) -> Callable[..., Any]:
    @functools.partial(jax.jit, static_argnames=("fixed", "taps", "split"))
    def compiled(params, resid, layer, fixed, **options):
        layer = layer if fixed is None else fixed
        return transformer.resume(config, params, resid, layer, **options)

    @functools.wraps(transformer.resume)
    def resume(
        params: Any, resid: Any, layer: Any, *, taps: Sequence[str] = (), **options: Any
    ) -> Output:
        fixed = int(layer) if isinstance(layer, int | np.integer) else None
        taps = check.listed("taps", taps)
        return compiled(params, resid, layer, fixed, taps=taps, **options)

    return resume


@dataclasses.dataclass(frozen=True)
class Model:
    """A configuration with parameters.

    Attributes:
      config: sizes and choices.
      params: nested dict of arrays, per-layer leaves stacked on a leading layer axis.
      tokenizer: a Hugging Face tokenizer, or `None`.
      name: where it came from, for reports.
      generation: what its files say of generating text, by file; carried along to new files.
    """

    config: ModelConfig
    params: Any
    tokenizer: Any = None
    name: str = ""
    generation: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def apply(self) -> Callable[..., Any]:
        """`apply(params, tokens, *, attention_mask, gates, ..., lora)`: see `transformer.apply`."""
        return _bind_apply(self.config)

    @property
    def resume(self) -> Callable[..., Any]:
        """`resume(params, resid, layer, *, ..., prefix, lora)`: see `transformer.resume`."""
        return _bind_resume(self.config)

    @property
    def edges(self) -> Edges:
        """The forward as a graph of edges, for circuits: see `edges.Edges`."""
        return Edges(self.config, self.apply)

    def replace(self, **changes: Any) -> Model:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def create(
    config: ModelConfig,
    params: Any = None,
    *,
    key: Any = None,
    tokenizer: Any = None,
    name: str = "",
) -> Model:
    """Makes a model and checks that its parameters fit the configuration.

    Args:
      config: of the model.
      params: parameters of exactly the tree and shapes that the configuration implies; or
      key: a typed PRNG key to draw them with.
      tokenizer: optional.
      name: optional, for reports.

    Raises:
      ValueError: if parameters are missing, left over or of the wrong shape, naming them.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> model.apply(model.params, jax.numpy.zeros((1, 3), int)).logits.shape
      (1, 3, 11)
    """
    if (params is None) == (key is None):
        raise check.fail("create", "either params or key", "both or neither")
    if params is None:
        return Model(
            config, jax.jit(transformer.init, static_argnums=0)(config, key), tokenizer, name
        )
    carried = {"pooler"}  # checkpoint weights that no forward here uses
    tree.fitting({k: v for k, v in params.items() if k not in carried}, shapes(config))
    return Model(config, params, tokenizer, name)


def shapes(config: ModelConfig) -> Any:
    """The parameter tree with shapes and types instead of arrays; allocates nothing.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> shapes(config)["embed"]["tokens"].shape
      (11, 8)
    """
    return jax.eval_shape(functools.partial(transformer.init, config), jax.random.key(0))
