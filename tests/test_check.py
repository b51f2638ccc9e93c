"""Errors at the door name the argument, what it must be, and what arrived."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import check


def test_messages():
    assert str(check.fail("x", "a number", "text")) == "x: expected a number, got text"
    assert str(check.fail("x", "a", "b", "do c")) == "x: expected a, got b. do c"
    assert isinstance(check.fail("x", "a", "b"), ValueError)


def test_nearest_names():
    assert check.nearest("ioy", ["ioi", "months"]) == "did you mean 'ioi'?"
    assert check.nearest("zzz", ["b", "a"]) == "known: a, b"
    assert check.nearest("x", []) == "known: "


def test_known():
    assert check.known("task", "ioi", {"ioi": 1}) == "ioi"
    with pytest.raises(ValueError, match=r"^task: expected one of \['ioi'\], got 'ioy'\. did you"):
        check.known("task", "ioy", ["ioi"])


def test_a_lone_string_is_no_list_and_a_number_no_key():
    with pytest.raises(
        ValueError, match=r"tasks: expected a list of names, got 'ioi'\. Write \['i"
    ):
        check.listed("tasks", "ioi")
    with pytest.raises(ValueError, match="key: expected a typed jax PRNG key, got int"):
        check.key("key", 0)


@pytest.mark.parametrize("array", [np.ones((2, 3)), jnp.ones((2, 3)), [[1, 2, 3]] * 2])
def test_shapes_are_exact(array):
    check.shape("gates", array, [(1, 1), (2, 3)])
    for other in [(2, 1), (3,), (2, 3, 1), (1, 3), ()]:
        with pytest.raises(ValueError, match=r"^gates: expected shape .* got shape \(2, 3\)"):
            check.shape("gates", array, [other])


def test_shape_messages():
    with pytest.raises(
        ValueError, match=r"^w: expected shape \(1,\) or \(2, 2\) \(a, b\), got shape \(\)$"
    ):
        check.shape("w", 1.0, [(1,), (2, 2)], "(a, b)")


def test_integers():
    value = check.integer("n", np.int32(3), 1, 3)
    assert (value, type(value)) == (3, int)
    assert check.integer("n", 10**9, 0) == 10**9


@pytest.mark.parametrize("value", [0, 4, 1.0, True, "1", None, np.float32(1), np.bool_(True)])
def test_what_is_no_integer_in_range(value):
    with pytest.raises(ValueError, match=r"^n: expected a whole number in \[1, 3\], got"):
        check.integer("n", value, 1, 3)


def test_integers_without_an_upper_bound():
    with pytest.raises(ValueError, match="^n: expected a whole number >= 1, got 0"):
        check.integer("n", 0, 1)


def test_finite():
    check.finite("params", {"w": jnp.ones(3), "steps": np.arange(2), "none": None})
    bad = {"a": jnp.ones(2), "b": [jnp.array([1.0, jnp.nan, jnp.inf])]}
    with pytest.raises(
        ValueError, match=r"^params\['b'\]\[0\]: expected finite .* got 2 NaN or infinite of 3"
    ):
        check.finite("params", bad)


def test_finite_looks_at_narrow_floats():
    with pytest.raises(ValueError, match="1 NaN"):
        check.finite("p", jnp.array([jnp.nan, 1], jnp.bfloat16))
