"""Single weights of a model: their criteria joined with what `calibrate` collected for it."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxcompress import check, tree
from jaxcompress.matrices import Layout, layout_of, matrices, restored
from jaxcompress.prune import patterns, weights
from jaxcompress.prune.scores import Statistics
from jaxcompress.prune.shrink import Shrinkable
from jaxcompress.prune.sparsegpt import sparsegpt, sparsegpt_n_of_m

__all__ = ["WEIGHT_CRITERIA", "prune_weights", "weight_scores"]

WEIGHT_CRITERIA = {
    "fisher": ("parameters",),
    "lamp": (),
    "magnitude": (),
    "random": (),
    "snip": ("parameters",),
    "sparsegpt": ("moments",),
    "wanda": ("inputs",),
}
"""What `prune_weights` knows, and what `calibrate` has to collect for each."""

_ENTERS = {
    "attn/query": "attn",
    "attn/key": "attn",
    "attn/value": "attn",
    "attn/output": "heads",
    "mlp/up": "mlp",
    "mlp/gate": "mlp",
    "mlp/down": "neurons",
}


def prune_weights(
    model: Shrinkable,
    sums: Statistics,
    criterion: str,
    *,
    sparsity: float | None = None,
    keep: int | None = None,
    of: int | None = None,
    within: Literal["row", "tensor", "model"] = "row",
    key: jax.Array | None = None,
) -> tuple[Shrinkable, dict[str, Any]]:
    """Sets single weights of the blocks' matrices to zero; SparseGPT corrects the others.

    Args:
      model: with `config`, `params` and `replace`, such as `models.Model`.
      sums: of `calibrate`, with what the criterion wants: `WEIGHT_CRITERIA[criterion]`.
      criterion: one of these.
      sparsity: share that goes, in [0, 1); or
      keep: weights that stay of every `of` inputs that follow each other.
      of: see `keep`.
      within: where a share is taken: of the inputs of each output, of each matrix, or of the whole
        model. SparseGPT always takes it of each matrix.
      key: for `random`.

    Returns:
      The model, no smaller and no faster, and masks by path, True where a weight stays.

    Raises:
      ValueError: for an unknown criterion, sums that lack something, or neither or both of a share
        and `keep` with `of`.

    Example:
      >>> from jaxcompress.io import load
      >>> _, masks = prune_weights(load("builtin:student"), {}, "magnitude", keep=2, of=4)
      >>> float(masks["blocks/mlp/up/kernel"].mean())
      0.5
    """
    check.known("criterion", criterion, WEIGHT_CRITERIA)
    check.known("within", within, ("row", "tensor", "model"))
    pattern = {"sparsity": sparsity, "keep": keep, "of": of}
    given = [name for name, value in pattern.items() if value is not None]
    if given not in (["sparsity"], ["keep", "of"]):
        raise check.fail("pattern", "either a sparsity, or keep and of", given)
    params = model.params  # pyright: ignore[reportAttributeAccessIssue]
    flat = tree.paths(params)
    views = {path: matrices(jnp.asarray(flat[path]), at) for path, at in _layouts(flat).items()}
    if criterion == "sparsegpt":
        solved = {}
        for path, view in views.items():
            moment = _entering(sums, "moments", path, view)
            solved[path] = (
                sparsegpt(view, moment, sparsity)
                if sparsity is not None
                else sparsegpt_n_of_m(view, moment, keep=keep or 0, of=of or 0)
            )
    else:
        scores = weight_scores(params, sums, criterion, key=key)
        shares = {"row": patterns.per_row, "tensor": patterns.per_tensor, "model": patterns.global_}
        stays = (
            shares[within](scores, sparsity)
            if sparsity is not None
            else patterns.n_of_m(scores, keep=keep or 0, of=of or 0)
        )
        solved = {
            path: (jnp.where(stays[path], view, 0), stays[path]) for path, view in views.items()
        }
    masks = {path: stay.reshape(flat[path].shape) for path, (_, stay) in solved.items()}
    for path, layout in _layouts(flat).items():
        flat[path] = restored(solved[path][0], flat[path], layout)
    pruned = jax.tree.unflatten(jax.tree.structure(params), list(flat.values()))
    return model.replace(params=pruned), masks  # pyright: ignore[reportAttributeAccessIssue]


def weight_scores(
    params: Any, sums: Statistics, criterion: str, *, key: jax.Array | None = None
) -> dict[str, Any]:
    """What each weight of the blocks' matrices is worth, by a criterion of `prune.weights`.

    Args:
      params: of a model.
      sums: of `calibrate`, with what the criterion wants.
      criterion: one of `WEIGHT_CRITERIA` but `sparsegpt`, which scores as it goes.
      key: for `random`.

    Returns:
      By path (..., inputs, outputs), see `jaxcompress.matrices`.

    Raises:
      ValueError: for an unknown criterion, `random` without a key, or sums that lack something.

    Example:
      >>> from jaxcompress.io import load
      >>> found = weight_scores(load("builtin:student").params, {}, "lamp")
      >>> found["blocks/attn/output/kernel"].shape
      (2, 128, 128)
    """
    check.known("criterion", criterion, sorted(set(WEIGHT_CRITERIA) - {"sparsegpt"}))
    flat = tree.paths(params)
    layouts = _layouts(flat)
    views = {path: matrices(jnp.asarray(flat[path]), layout) for path, layout in layouts.items()}
    if criterion == "random":
        if key is None:
            raise check.fail("key", "a PRNG key for random scores", "none")
        keys = jax.random.split(key, len(views))
        pairs = zip(keys, views.items(), strict=True)
        return {path: weights.random(own, view) for own, (path, view) in pairs}
    if criterion == "wanda":
        squares = {path: _entering(sums, "inputs", path, view) for path, view in views.items()}
        return {path: weights.wanda(view, jnp.sqrt(squares[path])) for path, view in views.items()}
    if criterion in ("snip", "fisher"):
        name = "sum" if criterion == "snip" else "square"
        found = tree.paths(_collected(sums, "parameters")[name])
        slopes = {path: matrices(found[path], layout) for path, layout in layouts.items()}
        if criterion == "snip":
            return weights.snip(views, slopes)
        count = sums["counts"]["examples"]
        return {path: weights.fisher(view, slopes[path] / count) for path, view in views.items()}
    sizes = {path: weights.magnitude(view) for path, view in views.items()}
    if criterion == "lamp":
        return {path: weights.lamp(size**2) for path, size in sizes.items()}
    return sizes


def _layouts(flat: dict[str, Any]) -> dict[str, Layout]:
    """The matrices of the blocks, but those of layers without heads or neurons."""
    found = {
        path: layout_of(path)
        for path, leaf in flat.items()
        if path.startswith("blocks/") and leaf.size
    }
    return {path: layout for path, layout in found.items() if layout is not None}


def _entering(sums: Statistics, name: str, path: str, view: Any) -> Any:
    """What `calibrate` summed over the inputs of a matrix, or of each in a stack."""
    found = _collected(sums, name)[_ENTERS["/".join(path.split("/")[-3:-1])]]
    if view.ndim == 3:
        return found
    # A layer by itself; the slots behind its last head or neuron are those of larger layers.
    return found[int(path.split("/")[1])][(slice(view.shape[0]),) * (found.ndim - 1)]


def _collected(sums: Statistics, name: str) -> Any:
    if name not in sums:
        raise check.fail("sums", f"statistics with {name!r} in them", sorted(sums), "see `wanted`")
    return sums[name]
