"""Tables of skills: how few neurons one needs, and how many it shares with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress.narrow.skills import fewest
from jaxcompress.report.curves import curves
from jaxcompress.report.numbers import number
from jaxcompress.report.sections import Section

__all__ = ["accuracy", "fewest_neurons", "locality"]

_COLUMNS = (("pruned", "kept"), ("recovered", "kept"), ("pruned", "other"), ("recovered", "other"))


def accuracy(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Accuracy against the neurons that stay, a panel for each skill and stage.

    Args:
      rows: as for `fewest_neurons`.

    Returns:
      A PNG.

    Example:
      >>> row = {"way": "random", "kept": 4, "skill": "kept", "stage": "pruned", "accuracy": 1.0}
      >>> accuracy([row])[1:4]
      b'PNG'
    """
    return curves(
        [{**row, "panel": f"{row['skill']} skill, {row['stage']}"} for row in rows],
        x="kept", y="accuracy", by="way", panel="panel", control="trained, random",
        xlabel="neurons that stay",
    )  # fmt: skip


def fewest_neurons(rows: Sequence[Mapping[str, Any]], *, threshold: float = 0.98) -> Section:
    """The smallest network that has a skill, by width and by how it was made.

    Args:
      rows: with `way`, `width`, `seed`, `kept` (neurons), `skill` (`kept` or `other`), `stage`
        (`pruned` or `recovered`) and `accuracy`.
      threshold: accuracy at which a skill is there.

    Returns:
      The median over seeds with the lowest and highest; seeds that never reach the threshold are
      counted as never.

    Example:
      >>> row = {"way": "random", "width": 8, "seed": 0, "kept": 4, "skill": "kept"}
      >>> fewest_neurons([row | {"stage": "pruned", "accuracy": 1.0}]).rows
      (('random', '8', '4 (4 to 4)', 'n/a', 'n/a', 'n/a'),)
    """
    cells = []
    for way, width in dict.fromkeys((row["way"], row["width"]) for row in rows):
        line = [way, str(width)]
        for stage, skill in _COLUMNS:
            wanted = {"way": way, "width": width, "stage": stage, "skill": skill}
            line.append(_least([row for row in rows if wanted.items() <= row.items()], threshold))
        cells.append(tuple(line))
    names = tuple(f"{skill} skill, {stage}" for stage, skill in _COLUMNS)
    return Section(("network", "width", *names), tuple(cells))


def _least(rows: list[Mapping[str, Any]], threshold: float) -> str:
    found = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        chosen = [row for row in rows if row["seed"] == seed]
        counts = [row["kept"] for row in chosen], [row["accuracy"] for row in chosen]
        found.append(fewest(*counts, threshold=threshold))
    there = [value for value in found if np.isfinite(value)]
    never = f", {len(found) - len(there)} never" if len(there) < len(found) else ""
    if not there:
        return "never" if found else "n/a"
    return f"{np.median(there):g} ({min(there):g} to {max(there):g}{never})"


def locality(rows: Sequence[Mapping[str, Any]]) -> Section:
    """Overlap of two skills' neurons beside that of random sets, one line for each network.

    Args:
      rows: with `network`, and `sizes`, `overlap` and `chance` as of `train.pulling.locality`.

    Returns:
      Means over the networks that have both skills, with their number.

    Example:
      >>> locality([{"network": "a", "sizes": (4, 6), "overlap": 0.5, "chance": 0.25}]).rows
      (('a', '1 of 1', '4 and 6', '0.500', '0.250'),)
    """
    cells = []
    for network in dict.fromkeys(row["network"] for row in rows):
        found = [row for row in rows if row["network"] == network]
        both = [row for row in found if np.isfinite(row["overlap"])]
        line = [network, f"{len(both)} of {len(found)}"]
        if both:
            sizes = np.mean([row["sizes"] for row in both], axis=0)
            line.append(" and ".join(f"{value:g}" for value in sizes))
            line += [number(np.mean([row[name] for row in both])) for name in ("overlap", "chance")]
        cells.append(tuple(line + ["n/a"] * (5 - len(line))))
    columns = ("network", "with both skills", "neurons of each", "overlap", "by chance")
    return Section(columns, tuple(cells))
