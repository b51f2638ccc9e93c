"""Tables of networks that learn modular addition, beside the published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress.narrow.scaling import reached
from jaxcompress.report.curves import curves
from jaxcompress.report.sections import Section

__all__ = ["progress", "readings", "sweep"]


def progress(steps: Any, found: Mapping[str, Any]) -> Section:
    """What a network is like at the end, beside the published one at p = 113.

    Args:
      steps: (time,) of the snapshots.
      found: what `narrow.grokking.trajectory` returns.

    Example:
      >>> names = ("train_loss", "test_loss", "restricted_loss", "excluded_loss", "embedding_gini",
      ...          "neuron_gini", "square_weights")
      >>> found = {name: np.array([0.5, 0.05]) for name in names} | {"keys": np.array([0, 1])}
      >>> progress([100, 200], found).rows[0]
      ('train loss < 0.1 nats at step', '200', 'about 150')
    """
    keys = ", ".join(str(k + 1) for k in np.flatnonzero(np.asarray(found["keys"])))

    def first(name: str) -> str:
        return _step(float(reached(steps, found[name], 0.1)))

    def last(name: str) -> str:
        return f"{found[name][-1]:.2g}"

    def both(name: str) -> str:
        return f"{found[name][0]:.3g}, {found[name][-1]:.3g}"

    rows = (
        ("train loss < 0.1 nats at step", first("train_loss"), "about 150"),
        ("test loss < 0.1 nats at step", first("test_loss"), "about 11,000"),
        ("key frequencies", keys, "14, 35, 41, 42, 52"),
        ("train loss at the end", last("train_loss"), "3e-7"),
        ("test loss at the end", last("test_loss"), "3e-7"),
        ("restricted loss at the end", last("restricted_loss"), "below the test loss"),
        ("excluded loss at the end", last("excluded_loss"), "6 to 15"),
        ("Gini of W_E, start and end", both("embedding_gini"), "n/a"),
        ("Gini of W_L, start and end", both("neuron_gini"), "n/a"),
        ("sum of squared weights, start and end", both("square_weights"), "3650, 960"),
    )
    return Section(("", "measured", "published, p = 113"), rows, "Losses in nats.")


def sweep(rows: Sequence[Mapping[str, Any]], steps: int) -> tuple[bytes, Section]:
    """Steps to generalise by fraction and weight decay: a figure, and a table.

    Args:
      rows: one for each network: `fraction`, `weight_decay`, and `grokked`, a step or NaN.
      steps: of each.

    Returns:
      A PNG, in which a network that did not get there stands at its last step, and a table.

    Example:
      >>> sweep([{"fraction": 0.3, "weight_decay": 1.0, "grokked": np.nan}], steps=40)[1].rows
      (('0.3', 'not reached'),)
    """
    decays = sorted({row["weight_decay"] for row in rows})
    cells = []
    for fraction in sorted({row["fraction"] for row in rows}):
        mine = [row for row in rows if row["fraction"] == fraction]
        texts = [
            ", ".join(_step(row["grokked"]) for row in mine if row["weight_decay"] == decay)
            for decay in decays
        ]
        cells.append((f"{fraction:g}", *texts))
    drawn = [
        {
            **row,
            "decay": f"weight decay {row['weight_decay']:g}",
            "until": row["grokked"] if np.isfinite(row["grokked"]) else steps,
        }
        for row in rows
    ]
    png = curves(
        drawn, x="fraction", y="until", by="decay",
        xlabel="fraction of the table trained on", ylabel="steps until test loss < 0.1 nats",
    )  # fmt: skip
    columns = ("fraction", *(f"weight decay {decay:g}" for decay in decays))
    return png, Section(columns, tuple(cells), "One number for each seed.")


def readings(rows: Sequence[Mapping[str, Any]]) -> dict[str, Section]:
    """Tables of trained networks: losses, the algorithm, and each key frequency.

    Args:
      rows: one for each network, as `experiments/read_modular.py` makes them.

    Example:
      >>> readings([])["Key frequencies"].columns[:2]
      ('network', 'frequency')
    """
    losses = ("network", "right", "loss", "restricted", "excluded")
    whole = [
        (
            row["network"],
            f"{row['accuracy']:.2%}",
            *(f"{row[name]:.2g}" for name in ("loss", "restricted_loss", "excluded_loss")),
        )
        for row in rows
    ]
    kinds = ("gradient_symmetry", "distance_irrelevance", "circularity")
    named = [
        (row["network"], row["algorithm"], *(f"{row[kind]:.4f}" for kind in kinds)) for row in rows
    ]
    columns = ("network", "frequency", "share of logits", "loss without it", "neurons")
    each = [
        (
            row["network"],
            str(k),
            f"{share:.1%}",
            f"{row['excluded_each'][k]:.2g}",
            str(row["neurons"][k]),
        )
        for row in rows
        for k, share in row["keys"].items()
    ]
    note = "Nats over all pairs. Restricted: key frequencies only; excluded: all but them."
    how = ("network", "algorithm", *(kind.replace("_", " ") for kind in kinds))
    return {
        "Losses": Section(losses, tuple(whole), note),
        "Clock or pizza": Section(how, tuple(named)),
        "Key frequencies": Section(columns, tuple(each)),
    }


def _step(step: float) -> str:
    return f"{step:,.0f}" if np.isfinite(step) else "not reached"
