"""Same algorithm, other parts? What the effect of each component depends on.

Two networks may run one algorithm on different frequencies, directions or numbers of components,
and even on inputs that cannot be shared (addition modulo 59 and modulo 113). What can be compared
is which variables of the task an effect depends on: of the variance over prompts of the effect of
each removal, the share that each named variable explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcompress import check
from jaxcompress.align.causal import masses
from jaxcompress.align.matching import transport
from jaxcompress.align.measured import Profile

__all__ = ["algorithm", "shares"]


def shares(effects: Any, factors: Mapping[str, Any]) -> np.ndarray:
    """Share of the variance over prompts that each variable explains, and the rest.

    Of each variable the variance between its groups, less what that many groups explain of noise,
    as a share of the whole variance. The variables must overlap little (for a, b, a + b and a - b
    modulo a prime, over all pairs, they do not overlap at all); if the shares sum to more than 1
    they are scaled down.

    Args:
      effects: (component, batch).
      factors: by name (batch,) labels of a variable.

    Returns:
      (component, factor + 1), rows sum to 1; the last column is what no variable explains. A
      component without variance has only that.

    Raises:
      ValueError: for labels that are not one for each prompt.

    Example:
      >>> a, b = np.divmod(np.arange(25), 5)
      >>> effects = np.stack([np.cos(a) + 0.0, np.cos((a - b) % 5)])
      >>> shares(effects, {"a": a, "a - b": (a - b) % 5}).round(3).tolist()
      [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

    Reference:
      Fixed-effects analysis of variance; the adjustment is Ezekiel's (adjusted R squared).
    """
    effects = np.asarray(effects, np.float64)
    count = effects.shape[1]
    centred = effects - effects.mean(axis=1, keepdims=True)
    whole = (centred**2).sum(axis=1)
    found = []
    for name, labels in factors.items():
        check.shape(f"factors[{name!r}]", labels, [(count,)])
        group, size = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)[1:]
        sums = np.zeros((len(size), len(effects)))
        np.add.at(sums, group, centred.T)
        between = (sums**2 / size[:, None]).sum(axis=0)
        share = np.divide(between, whole, out=np.zeros_like(whole), where=whole > 1e-12)
        left = count - len(size)
        found.append(1.0 - (1.0 - share) * (count - 1) / left if left > 0 else share)
    # Whatever is explained of nothing is nothing.
    explained = np.clip(np.stack(found, axis=1), 0.0, None) * (whole > 1e-12)[:, None]
    explained /= np.maximum(explained.sum(axis=1, keepdims=True), 1.0)
    return np.concatenate([explained, 1.0 - explained.sum(axis=1, keepdims=True)], axis=1)


def algorithm(
    teacher: Profile,
    student: Profile,
    factors: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> float:
    """Do the components' effects depend on the same variables of the task?

    Components are alike as far as their shares agree (1 minus the total variation distance), and
    mass is moved between them as in `calibrated`, whatever their kind. 0 is what two divisions of
    the variance at random agree in, K / (2 K - 1) for K shares, or less; 1 is the same division.

    Args:
      teacher: of prompts of its own.
      student: likewise; they need not be the same.
      factors: labels of the same variables, for the teacher's and for the student's prompts.

    Returns:
      In [0, 1].

    Raises:
      ValueError: if the variables differ.

    Example:
      >>> a, b = np.divmod(np.arange(25), 5)
      >>> one = Profile(("head 0.0",), 1, np.cos(a)[None], np.ones(25), None, None, None)
      >>> algorithm(one, one, ({"a": a, "b": b}, {"a": a, "b": b}))
      1.0
    """
    if list(factors[0]) != list(factors[1]):
        raise check.fail("factors", f"{list(factors[0])} for both", list(factors[1]))
    both = [shares(p.effects, f) for p, f in zip((teacher, student), factors, strict=True)]
    kinds = len(factors[0]) + 1
    distance = 0.5 * np.abs(both[1][:, None] - both[0][None]).sum(axis=-1)
    chance = kinds / (2 * kinds - 1)
    alike = (1.0 - distance - chance) / (1.0 - chance)
    plan = transport(alike, masses(student), masses(teacher))
    return float((plan * np.maximum(alike, 0.0)).sum())
