"""SparseGPT: prune a matrix and let the weights that stay make up for those that go.

Minimises || X W - X W' ||^2 for inputs X (tokens, inputs). Inputs are taken in order; what a pruned
weight did is spread over the inputs that come after it, which is the step of the optimal brain
surgeon with the inputs before it held fixed. All in float32; stacked matrices one after the other.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcompress import check
from jaxcompress.prune import patterns

__all__ = ["saliency", "sparsegpt", "sparsegpt_n_of_m"]

_EXACT = jax.lax.Precision.HIGHEST


def saliency(
    kernel: Float[Array, "*stack i o"],
    second_moment: Float[Array, "*stack i i"],
    *,
    damping: float = 0.01,
) -> Float[Array, "*stack i o"]:
    """w_ij^2 / U_ii^2: the output error that is left if only w_ij goes and later inputs correct.

    U is upper triangular with U^T U = (H + damping * mean(diag H) I)^-1, so that U_ii^2 is the
    first diagonal element of the inverse of H without the inputs before i.

    Args:
      kernel: (..., inputs, outputs).
      second_moment: H = X^T X, (..., inputs, inputs).
      damping: what is added to the diagonal, as a fraction of its mean; 0 asks for an H that has
        an inverse.

    Example:
      >>> moment = jnp.diag(jnp.array([1.0, 3.0]))
      >>> saliency(jnp.array([[2.0], [1.0]]), moment, damping=0.0).round(4).tolist()
      [[4.0], [3.0]]

    Reference: Frantar and Alistarh 2023 (arXiv 2301.00774), section 3.
    """
    squares, _ = _factors(second_moment, damping)
    return kernel.astype(jnp.float32) ** 2 * squares[..., None]


def sparsegpt(
    kernel: Float[Array, "*stack i o"],
    second_moment: Float[Array, "*stack i i"],
    sparsity: Any,
    *,
    block: int = 128,
    damping: float = 0.01,
) -> tuple[Float[Array, "*stack i o"], Bool[Array, "*stack i o"]]:
    """Prunes a fraction of each matrix and corrects the rest.

    What goes is chosen by `saliency` for `block` inputs at a time, among their weights to all
    outputs, as corrected so far. All blocks lose the same fraction, rounded so that each matrix
    loses exactly `round(sparsity * size)`.

    Args:
      kernel: (..., inputs, outputs).
      second_moment: X^T X, (..., inputs, inputs); its scale does not matter.
      sparsity: fraction to prune, in [0, 1); may be traced, as in `patterns`.
      block: inputs whose weights are ranked together.
      damping: what is added to the diagonal, as a fraction of its mean.

    Returns:
      The corrected kernel, exactly 0 where pruned, and the mask, True where kept.

    Raises:
      ValueError: for a sparsity outside [0, 1), or a block below 1.

    Example:
      >>> moment = jnp.array([[1.0, 0.5], [0.5, 1.0]])
      >>> kernel, mask = sparsegpt(jnp.array([[1.0], [2.0]]), moment, 0.5, damping=0.0)
      >>> kernel.round(4).tolist(), mask.tolist()
      ([[0.0], [2.5]], [[False], [True]])

    Reference: Frantar and Alistarh 2023 (arXiv 2301.00774), algorithm 1.
    """
    inputs, outputs = kernel.shape[-2:]
    ends = np.minimum(np.arange(0, inputs + check.integer("block", block, 1), block), inputs)
    pruned = jnp.asarray([patterns.count(sparsity, int(end) * outputs) for end in ends])
    return _solve(kernel, second_moment, damping, pruned, block=min(block, inputs), joint=True)


def sparsegpt_n_of_m(
    kernel: Float[Array, "*stack i o"],
    second_moment: Float[Array, "*stack i i"],
    *,
    keep: int,
    of: int,
    damping: float = 0.01,
) -> tuple[Float[Array, "*stack i o"], Bool[Array, "*stack i o"]]:
    """Keeps `keep` weights of every `of` inputs that follow each other, and corrects the rest.

    Args:
      kernel: (..., inputs, outputs).
      second_moment: X^T X, (..., inputs, inputs); its scale does not matter.
      keep: number kept in a group (not the number pruned).
      of: size of a group.
      damping: what is added to the diagonal, as a fraction of its mean.

    Returns:
      The corrected kernel, exactly 0 where pruned, and the mask, True where kept.

    Raises:
      ValueError: if `keep` is not in [1, of], or `of` does not divide the number of inputs.

    Example:
      >>> kernel, mask = sparsegpt_n_of_m(jnp.ones((4, 1)), jnp.eye(4), keep=1, of=4)
      >>> mask.ravel().tolist()
      [True, False, False, False]

    Reference: Frantar and Alistarh 2023 (arXiv 2301.00774), section 3.4.
    """
    pruned = (of - keep) * np.arange(patterns.groups(kernel.shape[-2], keep=keep, of=of) + 1)
    return _solve(kernel, second_moment, damping, pruned, block=of, joint=False)


@functools.partial(jax.jit, static_argnames=("block", "joint"))
def _solve(
    kernel: Any, moment: Any, damping: Any, pruned: Any, *, block: int, joint: bool
) -> tuple[Any, Any]:
    """`pruned` (blocks + 1,) is how many go before each block: of all outputs, or of each."""
    shape, (inputs, outputs) = kernel.shape, kernel.shape[-2:]
    if not kernel.size:
        return kernel, jnp.ones(shape, bool)
    squares, spread = _factors(moment, damping)
    whole, pruned = inputs // block, jnp.diff(pruned)

    def single(matrix: Any) -> tuple[Any, Any]:
        kernel, squares, spread = matrix
        step = functools.partial(_block, squares=squares, spread=spread, joint=joint)
        starts = block * jnp.arange(whole)
        kernel, mask = jax.lax.scan(
            lambda kernel, at: step(kernel, *at, size=block), kernel, (starts, pruned[:whole])
        )
        mask = mask.reshape(whole * block, outputs)
        if inputs % block:
            kernel, rest = step(kernel, whole * block, pruned[-1], size=inputs % block)
            mask = jnp.concatenate([mask, rest])
        return jnp.where(mask, kernel, 0), mask

    stacked = (kernel.astype(jnp.float32), squares, spread)
    flat = [leaf.reshape(-1, *leaf.shape[len(shape) - 2 :]) for leaf in stacked]
    corrected, mask = jax.lax.map(single, tuple(flat))
    return corrected.reshape(shape).astype(kernel.dtype), mask.reshape(shape)


def _block(
    kernel: Any, start: Any, pruned: Any, *, squares: Any, spread: Any, size: int, joint: bool
) -> tuple[Any, Any]:
    """Prunes the inputs from `start` on, and corrects them and all later ones."""

    def cut(array: Any, axis: int = 0) -> Any:
        return jax.lax.dynamic_slice_in_dim(array, start, size, axis)

    rows = cut(kernel)
    scores = rows**2 * cut(squares)[:, None]
    if joint:
        mask = patterns.all_but(scores.ravel(), pruned, axis=0).reshape(scores.shape)
    else:
        mask = patterns.all_but(scores, pruned, axis=0)
    inside = cut(cut(spread), axis=1)

    def one(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        rows, gone = carry
        lost = jnp.where(mask[i], 0, rows[i])
        return rows - jnp.outer(inside[i], lost), gone.at[i].set(lost)

    _, gone = jax.lax.fori_loop(0, size, one, (rows, jnp.zeros_like(rows)))
    return kernel - jnp.matmul(cut(spread).T, gone, precision=_EXACT), mask


@jax.jit
def _factors(moment: Any, damping: Any) -> tuple[Any, Any]:
    """1 / U_ii^2, (..., i); and U with each row divided by U_ii, (..., i, i).

    With the damped H = R R^T and R upper triangular, U is the inverse of R.
    """
    moment = moment.astype(jnp.float32)
    mean = jnp.diagonal(moment, axis1=-2, axis2=-1).mean(axis=-1)
    # Inputs that were never active, all of them: any multiple of the identity does.
    added = jnp.where(mean > 0, damping * mean, 1.0)[..., None, None]
    identity = jnp.broadcast_to(jnp.eye(moment.shape[-1]), moment.shape)
    flipped = (moment + added * identity)[..., ::-1, ::-1]
    root = jnp.linalg.cholesky(flipped)[..., ::-1, ::-1]
    diagonal = jnp.diagonal(root, axis1=-2, axis2=-1)
    spread = jax.scipy.linalg.solve_triangular(
        root / diagonal[..., None, :], identity, unit_diagonal=True
    )
    return diagonal**2, spread
