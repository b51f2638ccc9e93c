"""LoRA+: the second factor of an adapter learns faster than the first."""

from __future__ import annotations

from typing import Any

import jax
import optax

from jaxcompress import check

__all__ = ["lora_plus"]


def lora_plus(
    optimizer: optax.GradientTransformation, *, ratio: float | int = 16.0
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose rate for the leaves called `b` is `ratio` times that for all others.

    The updates are multiplied after the whole chain, which for a chain that ends in its learning
    rate is the same as two learning rates: a schedule, decoupled weight decay and a clip by the
    global norm stay what they are.

    Args:
      optimizer: the whole chain, such as `optax.adam(rate)`; its rate is that of `a`.
      ratio: eta_B / eta_A, above 0; the paper finds about 16 good for language models.

    Returns:
      An optimizer for `jaxcompress.lora.trainable(adapter)`, or any tree with leaves called `b`.

    Raises:
      ValueError: for a ratio that is not positive.

    Example:
      >>> optimizer = lora_plus(optax.sgd(0.5), ratio=4.0)
      >>> params = {"kernel": {"a": jax.numpy.ones(1), "b": jax.numpy.ones(1)}}
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> updates["kernel"]["a"].tolist(), updates["kernel"]["b"].tolist()
      ([-0.5], [-2.0])

    Reference: Hayou et al. 2024 (LoRA+, arXiv 2402.12354), section 4.
    """
    if not ratio > 0:
        raise check.fail("ratio", "a number above 0", ratio)
    faster = optax.partition({"b": optax.scale(ratio), "other": optax.identity()}, _labels)
    return optax.with_extra_args_support(optax.chain(optimizer, faster))


def _labels(params: Any) -> Any:
    def label(path: Any, _: Any) -> str:
        return "b" if jax.tree_util.keystr(path[-1:], simple=True) == "b" else "other"

    return jax.tree_util.tree_map_with_path(label, params)
