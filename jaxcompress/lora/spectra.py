"""What the directions of an adapter say, and whether the base had them already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.lora.adapters import Adapter, merge
from jaxcompress.lora.directions import turned
from jaxcompress.matrices import matrices, readout
from jaxcompress.models.config import ModelConfig

__all__ = ["Intruders", "intruders", "tokens", "unembedding"]

_READ = ("attn/query/kernel", "attn/key/kernel", "attn/value/kernel", "mlp/up/kernel")
_WRITTEN = ("attn/output/kernel", "mlp/down/kernel")


class Intruders(NamedTuple):
    """Singular directions set against those of the base matrix; see `intruders`.

    Attributes:
      update: (layer, rank) largest |cosine| of each direction of the edit with any of the base.
      tuned: (layer, top) the same for the leading directions of the edited matrix.
      intruders: (layer,) how many of `tuned` are below the threshold: the intruder dimensions.
    """

    update: jax.Array
    tuned: jax.Array
    intruders: jax.Array


def intruders(
    params: Any,
    adapter: Adapter,
    *,
    top: int = 10,
    threshold: float = 0.5,
    side: str = "output",
) -> dict[str, Intruders]:
    """Leading singular directions of the edited matrices that no direction of the base is like.

    A base of full rank spans one of its sides, so a direction there always has some cosine: of a
    random one in n dimensions the largest of n is about (2 ln n / n)^0.5, .28 for n = 128.

    Args:
      params: the base.
      adapter: LoRA, rsLoRA or PiSSA.
      top: leading directions that are looked at (the paper: 10), at most the smaller side.
      threshold: an intruder is below it (the paper varies it; .5 is in its range).
      side: "output", the paper's left singular vectors of W (out, in), or "input".

    Returns:
      By path; matrices that are not stacked have no layer axis.

    Raises:
      ValueError: for DoRA, an unknown side, an adapter of other parameters.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> params = {"kernel": jnp.eye(4)}
      >>> adapter = init(params, ["kernel"], rank=1, alpha=1, key=jax.random.key(0))
      >>> intruders(params, adapter)["kernel"].intruders.item()
      0

    Reference: Shuttleworth et al. 2024 (arXiv 2410.21228), section 3, algorithm 1.
    """
    check.known("side", side, ("input", "output"))
    edit = turned(adapter)
    before, after = tree.paths(params), tree.paths(merge(params, edit))
    found = {}
    for spec in edit.specs:
        base, tuned = (
            matrices(jnp.asarray(flat[spec.path]), spec.layout).astype(jnp.float32)
            for flat in (before, after)
        )
        if side == "output":
            own = edit.leaves[spec.path]["b"]
        else:
            own = edit.leaves[spec.path]["a"].swapaxes(-1, -2)
        # A direction of an edit that does nothing has no length: it is like nothing.
        own = own / jnp.maximum(jnp.linalg.norm(own, axis=-1, keepdims=True), 1e-30)
        old, new = _singular(base, side), _singular(tuned, side)[..., :top, :]
        cosines = _closest(new, old)
        count = (cosines < threshold).sum(axis=-1)
        found[spec.path] = Intruders(_closest(own, old), cosines, count)
    return found


def _singular(weight: jax.Array, side: str) -> jax.Array:
    """(..., direction, in or out) unit vectors, the largest singular value first."""
    u, _, v = jnp.linalg.svd(weight, full_matrices=False)
    return v if side == "output" else u.swapaxes(-1, -2)


def _closest(some: jax.Array, others: jax.Array) -> jax.Array:
    product = jnp.matmul(some, others.swapaxes(-1, -2), precision=jax.lax.Precision.HIGHEST)
    return jnp.abs(product).max(axis=-1)


def unembedding(config: ModelConfig, params: Mapping[str, Any]) -> jax.Array:
    """(width, vocab): from a direction of the residual stream to logits, up to the norm's length.

    The scale of the final norm is folded in, and for LayerNorm the mean is taken off; its bias and
    the division by the length of the whole stream are left out.

    Raises:
      ValueError: for a model without a plain linear head.

    Example:
      >>> config = ModelConfig(family="gpt2", layers=1, heads=1, kv_heads=1, head_dim=2, width=2,
      ...                      neurons=2, vocab=3, context=4, norm="none", final_norm=False)
      >>> unembedding(config, {"embed": {"tokens": jnp.ones((3, 2))}}).shape
      (2, 3)
    """
    if config.head != "linear":
        raise check.fail("config.head", "linear, to read directions as tokens", config.head)
    kernel = readout(params, tied=config.tied)
    if config.final_norm and config.norm != "none":
        kernel = params["head"]["final_norm"]["scale"][:, None] * kernel
    if config.final_norm and config.norm == "layernorm":
        kernel = kernel - kernel.mean(axis=0, keepdims=True)
    return kernel


def tokens(
    config: ModelConfig, params: Mapping[str, Any], adapter: Adapter, *, count: int = 5
) -> dict[str, jax.Array]:
    """The tokens that each direction writes or reads, at both of its ends.

    The side that lies in the residual stream is read: what the output projection and the MLP's
    down projection write goes through the unembedding; what query, key, value and up look for is
    multiplied with the token embeddings. The sign of a singular direction is arbitrary, so both
    ends are listed.

    Args:
      config: of the model.
      params: the base.
      adapter: LoRA, rsLoRA or PiSSA, turned here.
      count: tokens at each end.

    Returns:
      By path (layer, rank, 2, count) ids, the strongest first; parameters without a side in the
      stream are left out.

    Example:
      >>> from jaxcompress.lora.adapters import init
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> params = create(config, key=jax.random.key(0)).params
      >>> adapter = init(params, ["*/down/kernel"], rank=3, alpha=2, key=jax.random.key(1))
      >>> tokens(config, params, adapter)["blocks/mlp/down/kernel"].shape
      (2, 3, 2, 5)

    Reference: the logit lens, nostalgebraist 2020; Dar et al. 2022 (arXiv 2209.02535), section 3.
    """
    edit, found = turned(adapter), {}
    for spec in edit.specs:
        leaf = edit.leaves[spec.path]
        if spec.path.endswith((*_READ, "mlp/gate/kernel")):
            directions, table = leaf["a"].swapaxes(-1, -2), params["embed"]["tokens"].T
        elif spec.path.endswith(_WRITTEN):
            directions, table = leaf["b"], unembedding(config, params)
        else:
            continue
        said = jnp.matmul(directions, table, precision=jax.lax.Precision.HIGHEST)
        ends = [jax.lax.top_k(sign * said, count)[1] for sign in (1, -1)]
        found[spec.path] = jnp.stack(ends, axis=-2)
    return found
