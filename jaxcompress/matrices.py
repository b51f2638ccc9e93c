"""Parameters as matrices: which axes are inputs, which outputs, and which only count."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import check

__all__ = ["Layout", "Rule", "layout_of", "matrices", "readout", "restored", "sides"]


class Layout(NamedTuple):
    """How the axes of a parameter make a matrix.

    Attributes:
      layers: leading axes that only count: the parameter is that many axes of matrices.
      inputs: the axes after them that are inputs (or outputs, if `transposed`), flattened into one;
        the rest are flattened into the other.
      transposed: whether outputs come before inputs, as in PyTorch and Equinox.
    """

    layers: int = 0
    inputs: int = 1
    transposed: bool = False


Rule = Callable[[str], Layout | None]
"""The layout of the parameter at a slash path; `None` for what is not a matrix."""


def layout_of(path: str) -> Layout | None:
    """The rule for the models of this library: kernels, with inputs before outputs.

    Kernels of even layers are stacked on a leading axis; the output projection of attention takes
    two axes, (head, head_dim). Pass another rule for the parameters of another library.

    Args:
      path: slash-joined, such as `blocks/attn/query/kernel` or `blocks/0/mlp/up/kernel`.

    Example:
      >>> layout_of("blocks/attn/output/kernel")
      Layout(layers=1, inputs=2, transposed=False)
      >>> layout_of("blocks/attn/output/bias") is None
      True
    """
    if path.rpartition("/")[2] != "kernel":
        return None
    first, _, rest = path.partition("/")
    stacked = first == "blocks" and not rest.split("/")[0].isdigit()
    return Layout(int(stacked), 2 if path.endswith("attn/output/kernel") else 1)


def matrices(leaf: Any, layout: Layout) -> Any:
    """A parameter as matrices (..., in, out).

    Args:
      leaf: an array, of any type that has `reshape`.
      layout: of its axes.

    Raises:
      ValueError: if no axis is left for the outputs.

    Example:
      >>> import numpy as np
      >>> matrices(np.zeros((3, 2, 4, 8)), Layout(layers=1, inputs=2)).shape
      (3, 8, 8)
    """
    if leaf.ndim <= layout.layers + layout.inputs:
        expected = f"more than {layout.layers + layout.inputs} axes"
        raise check.fail("leaf", expected, f"shape {leaf.shape}")
    flat = leaf.reshape(*leaf.shape[: layout.layers], *sides(leaf.shape, layout))
    return flat.swapaxes(-1, -2) if layout.transposed else flat


def restored(matrix: Any, leaf: Any, layout: Layout) -> Any:
    """The inverse of `matrices`, with the axes and the type of `leaf`.

    Args:
      matrix: (..., in, out).
      leaf: the parameter that it came from.
      layout: of its axes.

    Example:
      >>> import numpy as np
      >>> restored(np.zeros((6, 4)), np.zeros((4, 2, 3)), Layout(transposed=True)).shape
      (4, 2, 3)
    """
    matrix = matrix.swapaxes(-1, -2) if layout.transposed else matrix
    return matrix.reshape(leaf.shape).astype(leaf.dtype)


def sides(shape: tuple[int, ...], layout: Layout) -> tuple[int, int]:
    """Sizes of the two flattened axes, in the order in which they are stored.

    Example:
      >>> sides((3, 2, 4, 8), Layout(layers=1, inputs=2))
      (8, 8)
    """
    start, end = layout.layers, layout.layers + layout.inputs
    return math.prod(shape[start:end]), math.prod(shape[end:])


def readout(params: Any, *, tied: bool) -> jax.Array:
    """(width, vocab): the matrix that makes logits of the last hidden states.

    Args:
      params: of a model of this library, with a head.
      tied: whether the matrix is the table of token embeddings.

    Example:
      >>> readout({"embed": {"tokens": jnp.ones((3, 2))}}, tied=True).shape
      (2, 3)
    """
    return jnp.asarray(params["embed"]["tokens"].T if tied else params["head"]["kernel"])
