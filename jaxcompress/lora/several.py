"""Several adapters at once: side by side for `vmap`, or added up into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.lora.adapters import Adapter, Spec

__all__ = ["combine", "stack"]


def stack(adapters: Sequence[Adapter]) -> Adapter:
    """Adapters of one make on a new leading axis, to be mapped over.

        logits = jax.vmap(lambda one: model.apply(model.params, tokens, lora=one).logits)(stacked)

    Args:
      adapters: of equal specs.

    Raises:
      ValueError: if there is none, or the specs differ.

    Example:
      >>> import jax
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"kernel": jnp.ones((3, 2))}
      >>> one = init(params, ["kernel"], rank=1, alpha=1, key=jax.random.key(0))
      >>> stack([one, one]).leaves["kernel"]["a"].shape
      (2, 3, 1)
    """
    if not adapters:
        raise check.fail("adapters", "at least one", "none")
    for i, adapter in enumerate(adapters):
        if adapter.specs != adapters[0].specs:
            hint = "combine() adds up adapters of different makes"
            raise check.fail(f"adapters[{i}]", "the specs of the first", adapter.specs, hint)
    return tree.stack(adapters)


def combine(adapters: Sequence[Adapter], weights: Any = None) -> Adapter:
    """One ordinary LoRA adapter whose edit is the weighted sum of the edits of several.

    Its factors are those of the others side by side, so that the sum is exact and ranks add up. Of
    one PiSSA adapter it makes the ordinary one of twice the rank: [a, a0] @ [b; -b0].

    Args:
      adapters: of the same base; they need not have the same targets.
      weights: one number each, of any sign; may be traced. `None` is 1 for all.

    Raises:
      ValueError: for no adapter, a wrong number of weights, layouts that differ, or a DoRA adapter:
        its edit is not a product of two factors.

    Example:
      >>> import jax
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"kernel": jnp.ones((3, 2))}
      >>> one = init(params, ["kernel"], rank=1, alpha=1, key=jax.random.key(0))
      >>> combine([one, one], [0.5, -1.0]).specs[0].rank
      2

    Reference: Meng et al. 2024 (PiSSA, arXiv 2404.02948), appendix on conversion to LoRA.
    """
    if not adapters:
        raise check.fail("adapters", "at least one", "none")
    weights = jnp.ones(len(adapters)) if weights is None else jnp.asarray(weights, jnp.float32)
    check.shape("weights", weights, [(len(adapters),)])
    parts: dict[str, list[tuple[Any, Any]]] = {}
    layouts: dict[str, Any] = {}
    for weight, adapter in zip(weights, adapters, strict=True):
        for spec in adapter.specs:
            if layouts.setdefault(spec.path, spec.layout) != spec.layout:
                raise check.fail(spec.path, f"layout {layouts[spec.path]}", spec.layout)
            parts.setdefault(spec.path, []).extend(_factors(spec, adapter, weight))
    leaves, specs = {}, []
    for path, pairs in parts.items():
        a = jnp.concatenate([a for a, _ in pairs], axis=-1)
        b = jnp.concatenate([b for _, b in pairs], axis=-2)
        leaves[path] = {"a": a, "b": b}
        specs.append(Spec(path, a.shape[-1], float(a.shape[-1]), "lora", layouts[path]))
    return Adapter(leaves, tuple(specs))


def _factors(spec: Spec, adapter: Adapter, weight: Any) -> list[tuple[Any, Any]]:
    """Pairs (a, b) whose products add up to the weighted edit."""
    if spec.variant == "dora":
        raise check.fail("adapters", "edits that are products", f"dora at {spec.path}")
    leaves, scale = adapter.leaves[spec.path], weight * spec.scale
    pairs = [(leaves["a"], scale * leaves["b"])]
    return [*pairs, (leaves["a0"], -scale * leaves["b0"])] if "a0" in leaves else pairs
