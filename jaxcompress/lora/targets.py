"""Which matrices of a parameter tree get an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from jaxcompress import check, tree
from jaxcompress.matrices import Rule, sides

__all__ = ["select"]


def select(
    params: Any, targets: Mapping[str, int] | Sequence[str], rank: int | None, rule: Rule
) -> dict[str, int]:
    """Ranks by path, of the matrices that some glob matches.

    Args:
      params: pytree of arrays.
      targets: globs over slash paths (`*` matches slashes too), or a rank for each; where several
        match, the last one counts.
      rank: of all, if the targets have none.
      rule: what is a matrix.

    Returns:
      Ranks by path, in tree order.

    Raises:
      ValueError: for a glob without a match, a rank that is missing, given twice or larger than
        the smaller side of its matrix.

    Example:
      >>> import numpy as np
      >>> from jaxcompress.matrices import layout_of
      >>> params = {"mlp": {"up": {"kernel": np.zeros((4, 8)), "bias": np.zeros(8)}}}
      >>> select(params, ["*/up/*"], 2, layout_of)
      {'mlp/up/kernel': 2}
    """
    if isinstance(targets, Mapping):
        if rank is not None:
            raise check.fail("rank", "None, as every target has one", rank)
        ranks = dict(targets)
    else:
        globs = [targets] if isinstance(targets, str) else targets
        ranks = {glob: check.integer("rank", rank, 1) for glob in globs}
    smaller = _smaller_sides(params, rule)
    found: dict[str, int] = {}
    for glob, wanted in ranks.items():
        matched = [path for path in smaller if fnmatchcase(path, glob)]
        if not matched:
            hint = "no parameter here has a name that is known: give a `rule`"
            hint = check.nearest(glob, smaller) if smaller else hint
            raise check.fail("targets", "globs that match a matrix", repr(glob), hint)
        for path in matched:
            found[path] = check.integer(f"rank of {path}", wanted, 1, smaller[path])
    if not found:
        raise check.fail("targets", "at least one glob", "none")
    return {path: found[path] for path in smaller if path in found}


def _smaller_sides(params: Any, rule: Rule) -> dict[str, int]:
    """The smaller side of every matrix that is not empty: a layer may have lost all its heads."""
    found = {}
    for path, leaf in tree.paths(params).items():
        layout = rule(path)
        if layout is not None and leaf.size and leaf.ndim > layout.layers + layout.inputs:
            found[path] = min(sides(leaf.shape, layout))
    return found
