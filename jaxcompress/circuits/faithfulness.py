"""How much of a task's behaviour a circuit carries, by running it and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxcompress import check
from jaxcompress.ablate.forward import validated
from jaxcompress.circuits.circuit import Circuit
from jaxcompress.circuits.forward import Pairs, measure, size
from jaxcompress.circuits.scores import Scores
from jaxcompress.circuits.search import find
from jaxcompress.tasks.metrics import Metric, get_metric, kl
from jaxcompress.tasks.prompts import Prompts

__all__ = ["SHARES", "Curve", "able", "completeness", "faithfulness", "minimality", "smallest"]

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""MIB's sizes of circuits, as shares of all edges."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Faithfulness of circuits of several sizes.

    Attributes:
      shares: (size,) of all edges, as asked for.
      edges: (size,) edges of each circuit, after dead ends went.
      faithfulness: (size,) (m(C) - m(empty)) / (m(all) - m(empty)), m the mean metric with every
        edge outside the circuit corrupted; NaN where the model cannot do the task, see `able`.
      metric: (size,) m(C).
      clean: m(all).
      corrupted: m(empty).
      per_example: (size, batch) metric of each prompt.
      error: (size,) standard error of faithfulness over prompts.
    """

    shares: np.ndarray
    edges: np.ndarray
    faithfulness: np.ndarray
    metric: np.ndarray
    clean: float
    corrupted: float
    per_example: np.ndarray
    error: np.ndarray

    @property
    def cpr(self) -> float:
        """Circuit performance ratio: the area under faithfulness over shares; higher is better.

        MIB's is that of circuits ranked by help (`signed`). The sizes may come in any order; one
        size alone has no area, and gives NaN.
        """
        return _area(self.faithfulness, self.shares)

    @property
    def cmd(self) -> float:
        """Circuit-model distance: the area of |1 - faithfulness|; 0 is best.

        MIB's is that of circuits ranked by the size of the score (not `signed`). As for `cpr`, the
        sizes may come in any order, and one alone gives NaN.
        """
        return _area(np.abs(1 - self.faithfulness), self.shares)


def _area(values: np.ndarray, shares: np.ndarray) -> float:
    if len(np.unique(shares)) < 2:
        return float("nan")
    order = np.argsort(shares, kind="stable")
    return float(np.trapezoid(values[order], shares[order]))


def able(clean: Any, corrupted: Any, metric: str | Metric = "logit_difference") -> bool:
    """Whether a model can do a task, so that a share of what it does means something.

    Args:
      clean: (batch,) metric of the clean run.
      corrupted: (batch,) metric of the corrupted run, or of the empty circuit.
      metric: whose they are.

    Returns:
      True if the mean clean metric is above 0 and above the corrupted one by more than 1.96
      standard errors over prompts. Of KL, which is 0 on the clean run, the corrupted one must be.

    Example:
      >>> able([2.0, 3.0, 2.5], [0.1, -1.0, 0.5])
      True
      >>> able([-8.0, -8.5], [-9.0, -9.5]), able([2.0, -1.9], [-2.0, 1.9])
      (False, False)
    """
    clean, corrupted = np.asarray(clean, np.float64), np.asarray(corrupted, np.float64)
    low = get_metric(metric) is kl
    gap = corrupted - clean if low else clean - corrupted
    error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else 0.0
    return bool(gap.mean() > max(1e-6, 1.96 * error) and (low or clean.mean() > 0))


def faithfulness(
    model: Any,
    prompts: Any,
    circuits: Scores | Circuit | Sequence[Circuit],
    *,
    shares: Sequence[float] = SHARES,
    how: Literal["top", "greedy"] = "top",
    signed: bool = True,
    metric: str | Metric = "logit_difference",
    replacement: Literal["resample", "mean"] = "resample",
    batch: int | None = None,
    memory: int | None = None,
    progress: bool | None = None,
) -> Curve:
    """Runs circuits with every other edge carrying the corrupted run, or its mean.

    Args:
      model: as in `attribute`.
      prompts: clean and corrupted; others than the scores were made on, if they are to generalise.
      circuits: scores, of which circuits of all `shares` are made; or circuits.
      shares: for scores.
      how: for scores, see `find`.
      signed: for scores: rank by help (CPR's ranking); without, by size (CMD's).
      metric: as in `attribute`; of KL, m(all) is 0 and m(empty) what the corrupted run costs.
      replacement: what edges outside the circuit carry.
      batch: prompts at a time; `None` chooses by memory.
      memory: as in `attribute`.
      progress: as in `attribute`.

    Returns:
      A `Curve` with one entry per circuit.

    Raises:
      ValueError: for an empty list, circuits or scores of a model with other nodes or edges, and
        as `attribute`.

    Reference:
      Mueller et al. 2025 (arXiv 2504.13151, MIB, section 3: sizes, CPR and CMD); Wang et al. 2022
      (arXiv 2211.00593, section 4).

    Example:
      >>> curve = faithfulness(model, prompts, attribute(model, prompts))  # doctest: +SKIP
      >>> curve.faithfulness[-1], curve.cpr  # doctest: +SKIP
      (1.0, 1.2)
      >>> faithfulness(None, None, [])
      Traceback (most recent call last):
      ...
      ValueError: circuits: expected at least one, got none
    """
    if isinstance(circuits, Scores):
        made = [find(circuits, share=s, how=how, signed=signed) for s in shares]
        wanted = np.asarray(shares, float)
    else:
        made = [circuits] if isinstance(circuits, Circuit) else list(circuits)
        wanted = np.array([circuit.share for circuit in made])
    if not made:
        raise check.fail("circuits", "at least one", "none")
    options = {"metric": metric, "replacement": replacement, "batch": batch, "memory": memory}
    values, *ends = _values(model, prompts, made, options, progress)
    means, (clean, empty) = values.mean(axis=1), (float(end.mean()) for end in ends)
    kept = error = np.full(means.shape, np.nan)
    if able(ends[0], ends[1], metric):
        kept = (means - empty) / (clean - empty)
        # Of a ratio of means, to first order.
        rest = (values - ends[1]) - kept[:, None] * (ends[0] - ends[1])
        error = rest.std(axis=1) / np.sqrt(max(rest.shape[1] - 1, 1)) / abs(clean - empty)
    edges = np.array([len(circuit) for circuit in made])
    return Curve(wanted, edges, kept, means, clean, empty, values, error)


def _values(model, prompts, circuits, options, progress) -> tuple[np.ndarray, ...]:
    """(circuit, prompt) metric, and (prompt,) metric of the clean run and of the empty circuit."""
    function = get_metric(options["metric"])
    for graph in {circuit.graph for circuit in circuits}:
        graph.require(model.config)
    shapes = {circuit.mask.shape for circuit in circuits}
    if len(shapes) > 1 or next(iter(shapes))[-2:] != model.edges.shape:
        raise check.fail("circuits", f"masks of one shape {model.edges.shape}", sorted(shapes))
    prompts = validated(model.config, prompts)
    room = size(model.config, prompts.tokens.shape[1], options["memory"])
    batch = min(options["batch"] or room, len(prompts))
    found = Pairs(model, prompts, function, replacement=options["replacement"], batch=batch)
    masks = np.stack([circuit.mask for circuit in circuits] + [np.zeros_like(circuits[0].mask)])
    values = measure(
        model, found, masks, metric=function, memory=options["memory"], progress=progress
    )
    return values[:-1], found.clean, values[-1]


def smallest(
    model: Any,
    prompts: Any,
    scores: Any,
    target: float = 0.8,
    *,
    errors: float = 0.0,
    how: Literal["top", "greedy"] = "top",
    signed: bool = True,
    **options: Any,
) -> tuple[Circuit, float]:
    """The smallest circuit, in the order of the scores, that is as faithful as wanted.

    Sizes are tried on a grid, fine where circuits are small; faithfulness need not rise with
    every edge, and the smallest size that reaches the target is taken. That it holds on prompts
    that are not these is likely only with other prompts than the scores were made on, and `errors`.

    Args:
      model: as in `attribute`.
      prompts: as in `faithfulness`.
      scores: of edges.
      target: faithfulness wanted.
      errors: by how many standard errors over prompts the target must be cleared.
      how: as in `find`.
      signed: as in `find`.
      **options: of `faithfulness`.

    Returns:
      The circuit and its faithfulness. The whole graph if no smaller circuit reaches the target.

    Raises:
      ValueError: for a target outside (0, 1], and where the model cannot do the task (`able`).

    Example:
      >>> circuit, kept = smallest(model, prompts, scores)  # doctest: +SKIP
    """
    if not 0 < target <= 1:
        raise check.fail("target", "a number in (0, 1]", target)
    grid = np.unique(np.geomspace(1, scores.graph.valid.sum(), 40).round().astype(int))
    positions = len(scores.values) if scores.values.ndim == 3 else 1
    made = [find(scores, edges=int(n) * positions, how=how, signed=signed) for n in grid]
    curve = faithfulness(model, prompts, made, **options)
    if np.isnan(curve.faithfulness).all():
        got = f"{curve.clean:.3g} clean and {curve.corrupted:.3g} corrupted"
        hint = "the model cannot do this task, so no part of it can be said to"
        raise check.fail("task", "a clean metric above 0 and above the corrupted one", got, hint)
    reached = np.flatnonzero(curve.faithfulness - errors * curve.error >= target)
    at = int(reached[0]) if len(reached) else len(made) - 1
    return made[at], float(curve.faithfulness[at])


def completeness(
    model: Any,
    prompts: Prompts,
    circuit: Circuit,
    *,
    samples: int = 16,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Does the circuit hold all that the task uses: circuit and model, both without the same parts.

    For random halves K of the circuit's edges, and for all of them, F(circuit without K) is
    compared with F(model without K), F being faithfulness. Nothing else is used if they agree.

    Args:
      model: as in `attribute`.
      prompts: as in `faithfulness`.
      circuit: not empty.
      samples: random subsets.
      seed: of the subsets.
      **options: of `faithfulness`.

    Returns:
      `gap`: mean |F(C without K) - F(M without K)| over the subsets, `worst`, and `without`:
      faithfulness of the model without the whole circuit, 0 for a complete one.

    Raises:
      ValueError: for an empty circuit.

    Reference:
      Wang et al. 2022 (arXiv 2211.00593, section 4).

    Example:
      >>> completeness(model, prompts, circuit)  # doctest: +SKIP
    """
    _not_empty(circuit)
    rng = np.random.default_rng(seed)
    keep = rng.random((samples, *circuit.mask.shape)) < 0.5
    keep = np.concatenate([keep, np.zeros((1, *circuit.mask.shape), bool)])
    whole = np.broadcast_to(circuit.graph.valid, circuit.mask.shape)
    inside = [dataclasses.replace(circuit, mask=circuit.mask & k) for k in keep]
    outside = [dataclasses.replace(circuit, mask=whole & ~(circuit.mask & ~k)) for k in keep]
    found = faithfulness(model, prompts, [*inside, *outside], **options).faithfulness
    gaps = np.abs(found[: len(keep)] - found[len(keep) :])
    return {
        "gap": float(gaps.mean()), "worst": float(gaps.max()), "without": float(found[-1]),
    }  # fmt: skip


def minimality(model: Any, prompts: Prompts, circuit: Circuit, **options: Any) -> np.ndarray:
    """What each edge of the circuit adds: faithfulness with it minus faithfulness without.

    Args:
      model: as in `attribute`.
      prompts: as in `faithfulness`.
      circuit: not empty.
      **options: of `faithfulness`.

    Returns:
      (edge,) in the order of `circuit.edges`; near 0 for an edge that could go.

    Raises:
      ValueError: for an empty circuit.

    Reference:
      Wang et al. 2022 (arXiv 2211.00593, section 4), with K empty.

    Example:
      >>> minimality(model, prompts, circuit)  # doctest: +SKIP
    """
    _not_empty(circuit)
    places = np.argwhere(circuit.mask)
    without = []
    for place in places:
        mask = circuit.mask.copy()
        mask[tuple(place)] = False
        without.append(dataclasses.replace(circuit, mask=mask))
    found = faithfulness(model, prompts, [circuit, *without], **options).faithfulness
    return found[0] - found[1:]


def _not_empty(circuit: Circuit) -> None:
    if not len(circuit):
        hint = "take more edges, or a lower threshold"
        raise check.fail("circuit", "at least one edge", "none", hint)
