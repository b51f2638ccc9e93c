"""Tables of skills: how few neurons one needs, and how many it shares with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress.narrow.scaling import wilson
from jaxcompress.narrow.skills import fewest
from jaxcompress.report.curves import curves
from jaxcompress.report.networks import Drawn, networks
from jaxcompress.report.numbers import NA, reached, spread
from jaxcompress.report.sections import Section

__all__ = ["accuracy", "converged", "fewest_neurons", "locality", "weights"]

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
      rows: with `way`, `width`, `seed`, `kept` (neurons), `empty` (whether a layer has none),
        `skill` (`kept` or `other`), `stage` (`pruned` or `recovered`) and `accuracy`.
      threshold: accuracy at which a skill is there.

    Returns:
      The median over all seeds, those that never reach the threshold being the largest, with the
      lowest and the highest of the others.

    Example:
      >>> row = {"way": "random", "width": 8, "seed": 0, "kept": 4, "skill": "kept", "empty": False}
      >>> fewest_neurons([row | {"stage": "pruned", "accuracy": 1.0}]).rows
      (('random', '8', '4', 'n/a', 'n/a', 'n/a'),)
    """
    cells = []
    for way, width in dict.fromkeys((row["way"], row["width"]) for row in rows):
        line = [way, str(width)]
        for stage, skill in _COLUMNS:
            wanted = {"way": way, "width": width, "stage": stage, "skill": skill}
            line.append(_least([row for row in rows if wanted.items() <= row.items()], threshold))
        cells.append(tuple(line))
    names = tuple(f"{skill} skill, {stage}" for stage, skill in _COLUMNS)
    columns = ("way", "width", "seed", "kept")
    every = {tuple(row[name] for name in columns): row["empty"] for row in rows}
    note = (
        f"Median over all seeds (range of those that get there); never counts as the largest. "
        f"A hidden layer is empty in {sum(every.values())} of {len(every)} pruned networks: they "
        "give one answer to everything."
    )
    return Section(("network", "width", *names), tuple(cells), note)


def _least(rows: list[Mapping[str, Any]], threshold: float) -> str:
    found = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        chosen = [row for row in rows if row["seed"] == seed]
        counts = [row["kept"] for row in chosen], [row["accuracy"] for row in chosen]
        found.append(fewest(*counts, threshold=threshold))
    return reached(found) if found else NA


def weights(drawn: Mapping[str, Drawn], *, atoms: int, size: int) -> bytes:
    """Networks of compositional parity with their inputs named by atom.

    Args:
      drawn: by title.
      atoms: as in `data.parity.compositional`.
      size: likewise.

    Returns:
      A PNG.

    Example:
      >>> weights({"trained": Drawn([np.ones((4, 2)), np.ones((2, 2))])}, atoms=2, size=1)[1:4]
      b'PNG'
    """
    first = [atoms + size * i for i in range(atoms)]
    groups = {"control bits": range(atoms)}
    groups |= {f"atom {i}": range(n, n + size) for i, n in enumerate(first)}
    return networks(drawn, groups=groups, outputs=("even", "odd"))


def converged(rows: Sequence[Mapping[str, Any]], recorded: Mapping[str, str]) -> Section:
    """Share of the seeds of each condition that converged, and after how many samples.

    Args:
      rows: one for each condition, seed and time: `condition`, `seed`, `samples`, and `reached`,
        the samples until the loss was low, NaN where it never was.
      recorded: what others had, by condition.

    Example:
      >>> row = {"condition": "broad", "seed": 0, "samples": 90, "reached": 60.0}
      >>> converged([row], {"broad": "27/40"}).rows
      (('broad', '1/1', '21% to 100%', '6.0e+01', '27/40'),)
    """
    last, cells = max(row["samples"] for row in rows), []
    for name in dict.fromkeys(row["condition"] for row in rows):
        found = [r for r in rows if r["condition"] == name and r["samples"] == last]
        done = [row["reached"] for row in found if np.isfinite(row["reached"])]
        low, high = wilson(len(done), len(found))
        share = f"{len(done)}/{len(found)}", f"{low:.0%} to {high:.0%}"
        # Those that never get there count: a median over the others would be of the lucky ones.
        middle = np.median(np.nan_to_num([row["reached"] for row in found], nan=np.inf))
        median = f"{middle:.1e}" if np.isfinite(middle) else "never"
        cells.append((name, *share, median, recorded.get(name, NA)))
    columns = ("condition", "converged", "95 % interval", "samples, median of all seeds")
    note = f"Within {last:.1e} samples."
    return Section((*columns, "recorded at 64 bits, 2e9 samples"), tuple(cells), note)


def locality(rows: Sequence[Mapping[str, Any]]) -> Section:
    """Overlap of two skills' neurons beside that of random sets, one line for each network.

    Args:
      rows: with `network`, and `sizes`, `overlap` and `chance` as of `train.pulling.locality`.

    Returns:
      Means and ranges over the networks that have both skills, with their number.

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
            line.append(" and ".join(f"{value:.0f}" for value in sizes))
            line += [spread([row[name] for row in both]) for name in ("overlap", "chance")]
        cells.append(tuple(line + [NA] * (5 - len(line))))
    columns = ("network", "with both skills", "neurons of each", "overlap", "by chance")
    return Section(columns, tuple(cells))
