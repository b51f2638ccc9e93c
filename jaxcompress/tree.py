"""Pytrees with a leading layer axis: slices, stacks and paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcompress import check

__all__ = ["count", "fitting", "index", "nbytes", "nest", "paths", "stack", "unstack"]


def index(tree: Any, i: Any) -> Any:
    """Element `i` of the leading axis of every leaf; `i` may be traced.

    Example:
      >>> index({"w": jnp.arange(6).reshape(3, 2)}, 1)["w"]
      Array([2, 3], dtype=int32)
    """
    return jax.tree.map(lambda leaf: leaf[i], tree)


def stack(trees: Sequence[Any]) -> Any:
    """One tree whose leaves have a new leading axis, from trees of equal structure and shapes.

    Example:
      >>> stack([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])["w"].shape
      (2, 2)
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """The inverse of `stack`.

    Example:
      >>> len(unstack({"w": jnp.zeros((3, 2))}))
      3
    """
    length = jax.tree.leaves(tree)[0].shape[0]
    return [index(tree, i) for i in range(length)]


def paths(tree: Any) -> dict[str, Any]:
    """Leaves by slash-joined path, in tree order.

    Example:
      >>> paths({"a": {"b": 1}})
      {'a/b': 1}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from slash-joined paths: the inverse of `paths`.

    Example:
      >>> nest({"a/b": 1, "a/c": 2})
      {'a': {'b': 1, 'c': 2}}
    """
    found: dict[str, Any] = {}
    for path, leaf in flat.items():
        *folders, name = path.split("/")
        here = found
        for folder in folders:
            here = here.setdefault(folder, {})
        here[name] = leaf
    return found


def count(tree: Any) -> int:
    """Number of scalars in a tree.

    Example:
      >>> count({"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
      8
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def nbytes(tree: Any) -> int:
    """Bytes that the leaves of a tree take.

    Example:
      >>> nbytes({"w": jnp.zeros((3, 2), jnp.float32)})
      24
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def fitting(params: Any, like: Any) -> Any:
    """Returns `params` if it has the paths and shapes of `like`, else raises `ValueError`.

    Example:
      >>> fitting({"w": jnp.ones(2)}, {"w": jnp.zeros(3)})
      Traceback (most recent call last):
      ...
      ValueError: params/w: expected shape (3,), got shape (2,)
    """
    expected, got = paths(like), paths(params)
    for kind, names in (("missing", expected.keys() - got), ("left over", got.keys() - expected)):
        if names:
            raise check.fail("params", "the configuration's parameters", f"{kind}: {sorted(names)}")
    for path, leaf in got.items():
        check.shape(f"params/{path}", leaf, [expected[path].shape])
    return params
