"""Adapters: low-rank edits under the paths of the parameters they edit.

    adapter = init(params, ["*/attn/query/kernel"], rank=4, alpha=8.0, key=key)
    logits = model.apply(model.params, tokens, lora=adapter).logits

To train one, differentiate by `trainable(adapter)` and put the result back with `with_trained`: the
base and the constants then have neither gradient nor optimizer state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.lora import variants
from jaxcompress.lora.targets import select
from jaxcompress.matrices import Layout, Rule, layout_of, matrices, restored

__all__ = ["Adapter", "Spec", "init", "merge", "trainable", "unmerge", "with_trained"]

TRAINED = ("a", "b", "m")


class Spec(NamedTuple):
    """What is fixed about the edit of one parameter.

    Attributes:
      path: of the parameter, slash-joined.
      rank: columns of `a`.
      alpha: numerator of the scale.
      variant: "lora", "rslora", "dora" or "pissa".
      layout: of the axes of the parameter.
    """

    path: str
    rank: int
    alpha: float
    variant: str
    layout: Layout

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return variants.scale(self.variant, self.rank, self.alpha)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapter:
    """Edits of several parameters; a pytree, safe under `jit`, `vmap` and `grad`.

    Attributes:
      leaves: by path of the parameter, float32 arrays by name: `a` (layer, in, rank) and `b`
        (layer, rank, out), for DoRA `m` (layer, out), for PiSSA the constants `a0` and `b0`.
        Parameters that are not stacked have no layer axis.
      specs: one `Spec` for each.
    """

    leaves: dict[str, dict[str, Any]]
    specs: tuple[Spec, ...] = dataclasses.field(metadata={"static": True})

    def merged(self, params: Any) -> Any:
        """The parameters with the edits in them: `merge(params, self)`."""
        return merge(params, self)


def init(
    params: Any,
    targets: Mapping[str, int] | Sequence[str],
    *,
    rank: int | None = None,
    alpha: float | int,
    variant: str = "lora",
    key: jax.Array,
    rule: Rule = layout_of,
) -> Adapter:
    """An adapter that changes nothing yet.

    PiSSA leaves the parameters alone as well: where the paper trains the leading singular
    directions and takes them off the weight, their first values are kept as constants, and taken
    off what is added. The effective weight is the same, and so is that of an exported adapter.

    Args:
      params: pytree of arrays; the base, not changed.
      targets: globs over slash paths, such as `"*/attn/query/kernel"` (`*` matches slashes too),
        or a rank for each glob; where several match a path, the last one counts.
      rank: of all, if the targets have none.
      alpha: the edit is multiplied by alpha / rank, for rsLoRA by alpha / sqrt(rank).
      variant: "lora", "rslora", "dora" or "pissa".
      key: typed PRNG key, consumed.
      rule: which parameters are matrices, and how; for the parameters of another library.

    Raises:
      ValueError: for a glob without a match, a rank that does not fit, an alpha that is not
        positive, an unknown variant.

    Example:
      >>> params = {"mlp": {"up": {"kernel": jnp.ones((4, 8))}}}
      >>> adapter = init(params, ["*/kernel"], rank=2, alpha=4, key=jax.random.key(0))
      >>> adapter.leaves["mlp/up/kernel"]["a"].shape
      (4, 2)

    Reference: see `jaxcompress.lora.variants`.
    """
    check.known("variant", variant, variants.VARIANTS)
    if not alpha > 0:
        raise check.fail("alpha", "a number above 0", alpha)
    check.key("key", key)
    ranks, flat = select(params, targets, rank, rule), tree.paths(params)
    leaves, specs = {}, []
    for one, (path, size) in zip(jax.random.split(key, len(ranks)), ranks.items(), strict=True):
        layout = rule(path)
        assert layout is not None  # selected
        spec = Spec(path, size, float(alpha), variant, layout)
        weight = matrices(jnp.asarray(flat[path]), layout)
        leaves[path] = variants.start(variant, weight, size, spec.scale, one)
        specs.append(spec)
    return Adapter(leaves, tuple(specs))


def merge(params: Any, adapter: Adapter) -> Any:
    """Parameters with the edits in them; computed in float32 and cast to their type at the end.

    Args:
      params: the base.
      adapter: for parameters of these paths and shapes.

    Returns:
      The same tree; parameters without an edit are the same arrays.

    Raises:
      ValueError: for an edit of something that is not there, or of another shape.

    Example:
      >>> params = {"kernel": jnp.ones((2, 2))}
      >>> adapter = init(params, ["kernel"], rank=1, alpha=1, key=jax.random.key(0))
      >>> merge(params, adapter)["kernel"].tolist()
      [[1.0, 1.0], [1.0, 1.0]]
    """
    return _map(params, adapter, lambda w, leaves, spec: variants.edited(w, leaves, spec.scale))


def unmerge(params: Any, adapter: Adapter) -> Any:
    """The base parameters, from merged ones: exact up to the rounding of their type.

    Args:
      params: merged with this adapter.
      adapter: the one that was merged.

    Raises:
      ValueError: as `merge`; and for DoRA, which divides by a norm that the merged weights no
        longer show. Keep the base then: `merge` does not change it.

    Example:
      >>> params = {"kernel": jnp.ones((2, 2))}
      >>> adapter = init(params, ["kernel"], rank=1, alpha=1, key=jax.random.key(0))
      >>> unmerge(merge(params, adapter), adapter)["kernel"].tolist()
      [[1.0, 1.0], [1.0, 1.0]]
    """
    for spec in adapter.specs:
        if spec.variant == "dora":
            hint = "DoRA divides by a norm that is lost in merging: keep the base parameters"
            raise check.fail("adapter", "a sum of base and edit", f"dora at {spec.path}", hint)
    return _map(params, adapter, lambda w, leaves, spec: w - variants.delta(leaves, spec.scale))


def trainable(adapter: Adapter) -> dict[str, dict[str, Any]]:
    """The leaves to differentiate by and to give to the optimizer: a, b and m, not the constants.

    Example:
      >>> params = {"kernel": jnp.eye(2)}
      >>> adapter = init(
      ...     params, ["kernel"], rank=1, alpha=1, variant="pissa", key=jax.random.key(0)
      ... )
      >>> sorted(adapter.leaves["kernel"]), sorted(trainable(adapter)["kernel"])
      (['a', 'a0', 'b', 'b0'], ['a', 'b'])
    """
    return {
        path: {name: leaf for name, leaf in leaves.items() if name in TRAINED}
        for path, leaves in adapter.leaves.items()
    }


def with_trained(adapter: Adapter, trained: Mapping[str, Mapping[str, Any]]) -> Adapter:
    """The adapter with other values of its trainable leaves; for use inside a loss.

    Args:
      adapter: gives the constants and the specs.
      trained: as returned by `trainable`.

    Example:
      >>> params = {"kernel": jnp.eye(2)}
      >>> adapter = init(params, ["kernel"], rank=1, alpha=1, key=jax.random.key(0))
      >>> def loss(trained):
      ...     return merge(params, with_trained(adapter, trained))["kernel"].sum()
      >>> jax.grad(loss)(trainable(adapter))["kernel"]["a"].tolist()
      [[0.0], [0.0]]
    """
    leaves = {path: {**old, **trained[path]} for path, old in adapter.leaves.items()}
    return dataclasses.replace(adapter, leaves=leaves)


_Edit = Callable[[jax.Array, Mapping[str, Any], Spec], jax.Array]


def _map(params: Any, adapter: Adapter, edit: _Edit) -> Any:
    """The tree with `edit` applied to the matrices, in float32, that the adapter has edits of."""
    flat = tree.paths(params)
    for spec in adapter.specs:
        if spec.path not in flat:
            hint = check.nearest(spec.path, flat)
            raise check.fail("adapter", "paths of the parameters", repr(spec.path), hint)
        leaf, leaves = jnp.asarray(flat[spec.path]), adapter.leaves[spec.path]
        weight = matrices(leaf, spec.layout)
        for name, shape in _shapes(weight.shape, spec.rank).items():
            if name in leaves:
                check.shape(f"adapter.leaves[{spec.path!r}][{name!r}]", leaves[name], [shape])
        wide = weight.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        flat[spec.path] = restored(edit(wide, leaves, spec), leaf, spec.layout)
    return jax.tree.unflatten(jax.tree.structure(params), flat.values())


def _shapes(weight: tuple[int, ...], rank: int) -> dict[str, tuple[int, ...]]:
    *lead, inputs, outputs = weight
    a, b = (*lead, inputs, rank), (*lead, rank, outputs)
    return {"a": a, "b": b, "m": (*lead, outputs), "a0": a, "b0": b}
