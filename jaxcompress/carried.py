"""Does the job that a circuit of the teacher does live in its like in the student?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxcompress import check, circuits
from jaxcompress.align.causal import marks
from jaxcompress.align.floors import floors
from jaxcompress.align.measured import Profile
from jaxcompress.models import Model
from jaxcompress.tasks import Prompts

__all__ = ["Carried", "carried"]


@dataclasses.dataclass(frozen=True)
class Carried:
    """What the image of a teacher's circuit carries in a student.

    Attributes:
      value: 0 is what as many parts drawn at random carry, 1 the whole student; 0 without an image,
        `None` where a model cannot do the task.
      raw: share of the student's logit difference, clean minus corrupted, that the image carries.
      null: the mean of that over random sets of as many parts.
      circuit: the teacher's parts, by name.
      image: the student's.
      refused: why there is no value, or "".
    """

    value: float | None = None
    raw: float | None = None
    null: float | None = None
    circuit: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    refused: str = ""


def carried(
    profiles: tuple[Profile, Profile],
    models: tuple[Model, Model],
    prompts: Prompts,
    *,
    unrelated: Iterable[Profile] = (),
    target: float = 0.8,
    samples: int = 20,
    seed: int = 0,
) -> Carried:
    """Faithfulness of the teacher's circuit in the student: does the same job live in its like?

    The teacher's circuit is the fewest heads and MLPs, in the order of EAP-IG, that keep `target`.
    A part of the student belongs to its image if the teacher's part whose removal moves the logits
    most like its own belongs to the circuit, and more alike than chance has it (`align.floors`).
    All edges between the parts of the image stay clean, every other carries corrupted activations.

    Args:
      profiles: of teacher and student, on
      models: both.
      prompts: clean and corrupted.
      unrelated: profiles of models that share with the teacher only the task, for the floors.
      target: faithfulness of the circuit in the teacher.
      samples: random sets.
      seed: of these.

    Returns:
      What the image carries, beside chance.

    Raises:
      ValueError: for a target outside (0, 1].

    Example:
      >>> carried((theirs, ours), (teacher, student), prompts).value  # doctest: +SKIP
    """
    (theirs, ours), (teacher, student) = profiles, models
    inside = _fewest(teacher, prompts, target)
    if inside is None:
        return Carried(refused="the teacher cannot do this task")
    alike = marks(ours, theirs, across=True, only=("causal",))["causal"]
    best = alike.argmax(axis=1)
    above = alike.max(axis=1) > floors(theirs, ours, unrelated, seed=seed)[best]
    image = [
        name
        for name, t, clear in zip(ours.names, best, above, strict=True)
        if clear and _node(theirs.names[t]) in inside
    ]
    graph, rng = circuits.Graph.of(student.config), np.random.default_rng(seed)
    nodes = [_node(name) for name in ours.names]
    few = range(samples if image else 1)  # nothing to compare with: only, can it do the task?
    drawn = [rng.choice(nodes, len(image), replace=False) for _ in few]
    sets = [[_node(name) for name in image], *drawn]
    made = [circuits.Circuit.of_nodes(graph, one) for one in sets]
    kept = circuits.faithfulness(student, prompts, made, progress=False).faithfulness
    if np.isnan(kept).any():
        return Carried(refused="the student cannot do this task")
    raw, null = float(kept[0]), float(kept[1:].mean())
    value = float(np.clip((raw - null) / (1 - null), 0, 1)) if image and null < 1 else 0.0
    circuit = tuple(name for name in theirs.names if _node(name) in inside)
    return Carried(value, raw, null, circuit, tuple(image))


def _fewest(model: Model, prompts: Prompts, target: float) -> set[str] | None:
    """The fewest nodes, in the order of EAP-IG, that keep the target; `None` if it cannot be."""
    if not 0 < target <= 1:
        raise check.fail("target", "a number in (0, 1]", target)
    scores = circuits.attribute(model, prompts, level="node", progress=False)
    count = int(scores.graph.present_senders.sum())
    made = [circuits.find(scores, edges=n, connected=False) for n in range(1, count + 1)]
    kept = circuits.faithfulness(model, prompts, made, progress=False).faithfulness
    if np.isnan(kept).any():
        return None
    reached = np.flatnonzero(kept >= target)
    return set(made[int(reached[0]) if len(reached) else -1].nodes)


def _node(name: str) -> str:
    """The name in a graph of the component `head 0.1` or `mlp 0`."""
    kind, _, place = name.partition(" ")
    return f"a{place.replace('.', '.h')}" if kind == "head" else f"m{place}"
