"""Where parameters and batches lie on a mesh of devices."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcompress import check

__all__ = ["DATA", "MODEL", "make_mesh", "shardings", "spread"]

DATA = "data"
"""Mesh axis over which the rows of a batch are spread."""

MODEL = "model"
"""Mesh axis over which every parameter is spread."""


def make_mesh(data: int, model: int = 1) -> Mesh:
    """A mesh of `data * model` devices, the first ones.

    Args:
      data: parts that a batch is cut into.
      model: parts that the parameters are cut into.

    Raises:
      ValueError: if there are not so many devices.

    Example:
      >>> make_mesh(1).axis_names
      ('data', 'model')
    """
    count = check.integer("data", data, 1) * check.integer("model", model, 1)
    devices = jax.devices()
    if count > len(devices):
        raise check.fail("data * model", f"at most {len(devices)} devices", count)
    kinds = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, model), (DATA, MODEL), axis_types=kinds, devices=devices[:count])


def shardings(tree: Any, mesh: Mesh) -> Any:
    """Where each array of a state lies: its largest axis that can be divided is cut over `MODEL`.

    The moments of an optimiser have the shapes of the parameters, so they lie where these do. An
    array without such an axis is on every device whole. XLA puts in the communication; the numbers
    are the same up to the order of sums.

    Args:
      tree: pytree of arrays, such as a `State`.
      mesh: with an axis `DATA` and, if parameters are to be cut, an axis `MODEL`.

    Returns:
      A tree of `NamedSharding`.

    Raises:
      ValueError: for a mesh with other axes, or whose axes are not `AxisType.Auto`.

    Example:
      >>> tuple(shardings({"w": jax.numpy.ones((2, 4))}, make_mesh(1))["w"].spec)
      (None, 'model')
    """
    others = set(mesh.axis_names) - {DATA, MODEL}
    if DATA not in mesh.axis_names or others:
        raise check.fail("mesh", f"axes {DATA!r} and {MODEL!r}", mesh.axis_names)
    if set(mesh.axis_types) != {AxisType.Auto}:
        raise check.fail("mesh", "axes of AxisType.Auto", mesh.axis_types, "See make_mesh")
    parts = mesh.shape.get(MODEL)

    def place(leaf: Any) -> NamedSharding:
        axes = [i for i, size in enumerate(leaf.shape) if parts and size % parts == 0]
        if not axes:
            return NamedSharding(mesh, PartitionSpec())
        # The last of equals: the first one counts layers, and is scanned over.
        largest = max(axes, key=lambda i: (leaf.shape[i], i))
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, MODEL))

    return jax.tree.map(place, tree)


def spread(batches: Any, mesh: Mesh) -> Any:
    """Puts (step, row, ...) arrays on a mesh, the rows of each step over `DATA`.

    Example:
      >>> tuple(spread(jax.numpy.ones((3, 8)), make_mesh(1)).sharding.spec)
      (None, 'data')
    """
    return jax.device_put(batches, NamedSharding(mesh, PartitionSpec(None, DATA)))
