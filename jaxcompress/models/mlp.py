"""The plain ReLU MLP of the sparse-parity networks, each hidden neuron behind its gate.

A narrower network is this one with gates at 0, so networks of different widths run under one
`vmap`. Reference: Michaud et al. 2025 (arXiv 2505.15811, section 3).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.models.gates import Gates
from jaxcompress.models.layers import affine, gated
from jaxcompress.types import Output

__all__ = ["MLPConfig", "MLPModel", "apply", "create_mlp", "init"]


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """Sizes of a ReLU network.

    Attributes:
      inputs: numbers in.
      width: neurons of every hidden layer.
      depth: linear maps, so one more than there are hidden layers.
      outputs: logits out.
    """

    inputs: int
    width: int
    depth: int
    outputs: int = 2

    def __post_init__(self) -> None:
        for name, low in (("inputs", 1), ("width", 1), ("depth", 2), ("outputs", 1)):
            check.integer(f"config.{name}", getattr(self, name), low)

    @property
    def layers(self) -> int:
        """Hidden layers: rows of the neuron gates."""
        return self.depth - 1

    @property
    def neurons(self) -> int:
        """Neurons of a hidden layer: columns of the neuron gates."""
        return self.width


class Linear(nn.Module):
    """Declares kernel and bias as PyTorch draws them: uniform in +-1/sqrt(inputs)."""

    inputs: int
    outputs: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """The kernel (inputs, outputs) and the bias (outputs,)."""

        def initial(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            bound = self.inputs**-0.5
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        kernel = self.param("kernel", initial, (self.inputs, self.outputs))
        return kernel, self.param("bias", initial, (self.outputs,))


def init(config: MLPConfig, key: jax.Array) -> dict[str, Any]:
    """Random parameters, distributed as those of a stack of `torch.nn.Linear`.

    Args:
      config: of the network.
      key: typed PRNG key, consumed.

    Returns:
      `{"first", "hidden", "last"}`, each a kernel (in, out) and a bias; `hidden` is stacked on a
      leading layer axis of `depth - 2`.

    Example:
      >>> init(MLPConfig(inputs=4, width=8, depth=5), jax.random.key(0))["hidden"]["kernel"].shape
      (3, 8, 8)
    """
    first_key, hidden_key, last_key = jax.random.split(key, 3)
    hidden_keys = jax.random.split(hidden_key, config.depth - 2)

    def linear(inputs: int, outputs: int, key: jax.Array) -> Any:
        return Linear(inputs, outputs).init(key)["params"]

    return {
        "first": linear(config.inputs, config.width, first_key),
        "hidden": jax.vmap(functools.partial(linear, config.width, config.width))(hidden_keys),
        "last": linear(config.width, config.outputs, last_key),
    }


def apply(
    config: MLPConfig,
    params: Mapping[str, Any],
    x: Any,
    *,
    gates: Gates | None = None,
    taps: Sequence[str] = (),
) -> Output:
    """The forward; pure, safe under jit, vmap and grad.

    Args:
      config: of the network.
      params: as made by `init`.
      x: (batch, inputs) numbers.
      gates: `neurons` (depth - 1, width), or (batch, depth - 1, width); no other field.
      taps: `neurons` or nothing.

    Returns:
      `Output(logits (batch, outputs), taps)`; the tap is (depth - 1, batch, width), after the ReLU
      and before the gate.

    Raises:
      ValueError: for shapes that do not fit, and gates or taps that an MLP does not have.

    Example:
      >>> config = MLPConfig(inputs=4, width=8, depth=3)
      >>> gates = Gates(neurons=jnp.ones((2, 8)))
      >>> apply(config, init(config, jax.random.key(0)), jnp.ones((5, 4)), gates=gates).logits.shape
      (5, 2)
    """
    x = jnp.asarray(x, jnp.float32)
    if x.ndim != 2 or x.shape[1] != config.inputs:
        raise check.fail("x", f"shape (batch, {config.inputs})", x.shape)
    for tap in taps:
        check.known("taps", tap, ("neurons",))
    gate = _neuron_gates(config, gates, len(x))

    def layer(x: jax.Array, scanned: Any) -> tuple[jax.Array, Any]:
        weights, gate = scanned
        h = jax.nn.relu(affine("bm,mf->bf", x, (weights["kernel"], weights["bias"])))
        return gated(h, gate, None), h if taps else None

    first, rest = (None, None) if gate is None else (gate[0], gate[1:])
    x, seen = layer(x, (params["first"], first))
    x, later = jax.lax.scan(layer, x, (params["hidden"], rest))
    logits = affine("bm,mf->bf", x, (params["last"]["kernel"], params["last"]["bias"]))
    return Output(logits, {"neurons": jnp.concatenate([seen[None], later])} if taps else {})


def _neuron_gates(config: MLPConfig, gates: Gates | None, batch: int) -> jax.Array | None:
    """(layer, 1 or batch, neuron), or `None`."""
    for field in dataclasses.fields(Gates):
        if field.name != "neurons" and getattr(gates, field.name, None) is not None:
            raise check.fail(f"gates.{field.name}", "None: an MLP has neurons only", "an array")
    if gates is None or gates.neurons is None:
        return None
    shape = (config.layers, config.neurons)
    check.shape("gates.neurons", gates.neurons, [shape, (batch, *shape)])
    gate = jnp.asarray(gates.neurons)
    return gate[:, None] if gate.ndim == 2 else jnp.moveaxis(gate, 1, 0)


@functools.cache
def _bind(config: MLPConfig) -> Callable[..., Any]:
    compiled = jax.jit(functools.partial(apply, config), static_argnames=("taps",))

    @functools.wraps(apply)
    def bound(params: Any, x: Any, *, gates: Any = None, taps: Sequence[str] = ()) -> Output:
        return compiled(params, x, gates=gates, taps=tuple(taps))

    return bound


@dataclasses.dataclass(frozen=True)
class MLPModel:
    """A configuration with parameters, as `Model` is for transformers.

    Attributes:
      config: sizes.
      params: as made by `init`.
      name: for reports.
    """

    config: MLPConfig
    params: Any
    name: str = ""

    @property
    def apply(self) -> Callable[..., Any]:
        """`apply(params, x, *, gates, taps)`: one function object per configuration."""
        return _bind(self.config)

    def replace(self, **changes: Any) -> MLPModel:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def create_mlp(
    config: MLPConfig, params: Any = None, *, key: Any = None, name: str = ""
) -> MLPModel:
    """Makes a network and checks that its parameters fit; arguments as in `create`.

    Example:
      >>> model = create_mlp(MLPConfig(inputs=4, width=8, depth=2), key=jax.random.key(0))
      >>> model.apply(model.params, jnp.ones((5, 4))).logits.shape
      (5, 2)
    """
    if (params is None) == (key is None):
        raise check.fail("create_mlp", "either params or key", "both or neither")
    if params is None:
        return MLPModel(config, init(config, key), name)
    expected = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
    return MLPModel(config, tree.fitting(params, expected), name)
