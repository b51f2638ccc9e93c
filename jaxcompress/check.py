"""Errors at the door: a `ValueError` that names the argument, what it must be, what arrived."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["fail", "finite", "integer", "key", "known", "listed", "multiple", "nearest", "shape"]


def fail(name: str, expected: str, got: Any, hint: str = "") -> ValueError:
    """Builds the one error message of the house, to be raised by the caller.

    Args:
      name: the argument, file or tree path at fault.
      expected: what it must be.
      got: what arrived.
      hint: what to do about it, if that is known.

    Returns:
      A `ValueError`, not raised.

    Example:
      >>> raise fail("sparsity", "a number in [0, 1)", 1.5)
      Traceback (most recent call last):
      ...
      ValueError: sparsity: expected a number in [0, 1), got 1.5
    """
    message = f"{name}: expected {expected}, got {got}"
    return ValueError(f"{message}. {hint}" if hint else message)


def nearest(name: str, options: Iterable[str]) -> str:
    """The hint "did you mean ...?" for a misspelt name, or the list of options.

    Example:
      >>> nearest("numeral", ["numerals", "ioi"])
      "did you mean 'numerals'?"
    """
    options = sorted(options)
    return _close(name, options) or f"known: {', '.join(options)}"


def _close(name: str, options: Collection[str]) -> str:
    close = difflib.get_close_matches(name, options, n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def known(name: str, value: str, options: Collection[str]) -> str:
    """Returns `value` if it is one of `options`, else raises `ValueError` with the nearest one.

    Example:
      >>> known("replacement", "zero", ["zero", "mean"])
      'zero'
    """
    if value not in options:
        raise fail(name, f"one of {sorted(options)}", repr(value), _close(str(value), options))
    return value


def listed(name: str, values: Any) -> tuple[Any, ...]:
    """Returns `values` as a tuple; a lone string, which is a sequence of letters, is refused.

    Example:
      >>> listed("taps", ["heads", "resid"])
      ('heads', 'resid')
    """
    if isinstance(values, str):
        raise fail(name, "a list of names", repr(values), f"Write [{values!r}]")
    return tuple(values)


def key(name: str, value: Any) -> Any:
    """Returns `value` if it is one typed PRNG key, else raises `ValueError`.

    Example:
      >>> key("key", jax.random.key(0)).shape
      ()
    """
    hint = "Make one with jax.random.key(seed)"
    if not isinstance(value, jax.Array) or not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise fail(
            name, "a typed jax PRNG key", getattr(value, "dtype", type(value).__name__), hint
        )
    if value.shape != ():
        raise fail(name, "one key, shape ()", f"shape {value.shape}", hint)
    return value


def shape(name: str, array: Any, allowed: Sequence[tuple[int, ...]], axes: str = "") -> None:
    """Raises `ValueError` unless `array` has exactly one of the `allowed` shapes.

    Args:
      name: what the array is called.
      array: anything with `.shape`.
      allowed: the shapes that are right; nothing is ever broadcast.
      axes: what the axes mean, for the message.

    Example:
      >>> shape("gates.heads", np.ones((2, 4)), [(2, 4)])
    """
    got = tuple(np.shape(array))
    if got not in allowed:
        options = " or ".join(str(option) for option in allowed)
        raise fail(name, f"shape {options}" + (f" {axes}" if axes else ""), f"shape {got}")


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Returns `value` if it is a whole number in [low, high], else raises `ValueError`.

    Example:
      >>> integer("count", 3, 1)
      3
    """
    bound = f">= {low}" if high is None else f"in [{low}, {high}]"
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        raise fail(name, f"a whole number {bound}", repr(value))
    return int(value)


def multiple(name: str, value: int, of: int, called: str) -> int:
    """Returns `value` if it is a multiple of another argument, else raises `ValueError`.

    Example:
      >>> multiple("steps", 12, 4, "every")
      12
    """
    if value % of:
        raise fail(name, f"a multiple of {called} ({of})", value)
    return value


def finite(name: str, tree: Any) -> None:
    """Raises `ValueError` naming the first leaf of a pytree that holds NaN or infinity.

    Example:
      >>> finite("params", {"w": np.ones(3)})
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        bad = ~np.isfinite(np.asarray(leaf, dtype=np.float32))
        if bad.any():
            where = name + jax.tree_util.keystr(path)
            raise fail(where, "finite numbers", f"{int(bad.sum())} NaN or infinite of {bad.size}")
