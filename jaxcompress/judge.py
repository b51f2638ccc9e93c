"""How students of one teacher are judged: accuracy, alignment, brittleness, and its circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcompress import ablate, check, circuits, examples, tasks
from jaxcompress.align.calibrated import calibrated
from jaxcompress.align.profile import profile
from jaxcompress.align.robustness import drops
from jaxcompress.align.score import score
from jaxcompress.models import Gates, Model
from jaxcompress.tasks import Prompts

__all__ = ["Judge", "add_faithfulness", "carried"]


class Judge:
    """Prompts that nobody is trained on, and what the teacher and a stranger do on them.

    Args:
      teacher: that students are compared with.
      sets: by name, prompts of one or more tasks whose mean accuracy is measured.
      aligned: the set on which alignment and brittleness are measured.
      unrelated: by name, models that share with the teacher only the tasks: alignment 0.

    Raises:
      ValueError: if there is no such set.

    Example:
      >>> judge = Judge(teacher, {"known": [ioi], "new": [months]}, "known")  # doctest: +SKIP
      >>> judge(student)["alignment"]  # doctest: +SKIP
    """

    def __init__(
        self,
        teacher: Model,
        sets: Mapping[str, Sequence[Prompts]],
        aligned: str,
        unrelated: Mapping[str, Model] | None = None,
    ) -> None:
        check.known("aligned", aligned, sets)
        # All of one shape: a student is then compiled once and not for every task.
        every = [one for prompts in sets.values() for one in prompts]
        padded = iter(tasks.alike(every, teacher.config.context))
        self._sets = {name: [next(padded) for _ in prompts] for name, prompts in sets.items()}
        self._prompts = self._sets[aligned]
        self._teacher = [profile(teacher, one, progress=False) for one in self._prompts]
        self._unrelated = [
            {name: profile(model, one, progress=False) for name, model in (unrelated or {}).items()}
            for one in self._prompts
        ]

    def effects(self, model: Model) -> np.ndarray:
        """(layer, head, task) change of the answer's probability without each head."""
        options: dict[str, Any] = {"metric": "probability", "progress": False}
        found = [ablate.sweep(model, one, "heads", **options).mean for one in self._prompts]
        return np.stack([np.asarray(one) for one in found], axis=-1)

    def __call__(self, student: Model) -> dict[str, float]:
        """The mean accuracy on every set, `alignment` in [0, 1], `brittleness`, `worst` in percent.

        Brittleness is the mean over components of the drop of the logit difference when the
        component is removed (`align.robustness.drops`), worst that of the worst 5 % of them.
        """
        found = {
            name: float(
                np.mean(
                    [
                        examples.under_gates(student, [one], examples.accuracy, Gates())[0]
                        for one in prompts
                    ]
                )
            )
            for name, prompts in self._sets.items()
        }
        scores, fallen, worst = [], [], []
        for theirs, others, prompts in zip(
            self._teacher, self._unrelated, self._prompts, strict=True
        ):
            ours = profile(student, prompts, progress=False)
            scores.append(calibrated(theirs, ours, unrelated=others, samples=1).value)
            lost = np.sort(drops(ours.effects.mean(axis=1), float(ours.clean.mean())))
            fallen.append(float(lost.mean()))
            worst.append(float(lost[-max(1, round(0.05 * len(lost))) :].mean()))
        return found | {
            "alignment": float(np.mean(scores)),
            "brittleness": float(np.mean(fallen)),
            "worst": float(np.mean(worst)),
        }


def carried(teacher: Model, student: Model, prompts: Prompts, *, target: float = 0.8) -> float:
    """Faithfulness of the teacher's circuit in the student: does the same job live in its like?

    The teacher's circuit is the smallest by EAP-IG that reaches `target`. A student component
    belongs to its image if the teacher component most like it belongs to the circuit. All edges
    between the components of the image stay clean, every other carries corrupted activations.

    Args:
      teacher: that can do the task.
      student: likewise, of the same vocabulary.
      prompts: clean and corrupted.
      target: faithfulness of the circuit in the teacher.

    Returns:
      The share of the student's logit difference, clean minus corrupted, that the image carries;
      0 if it is empty.

    Raises:
      ValueError: where one of the models cannot do the task.

    Example:
      >>> carried(teacher, student, prompts)  # doctest: +SKIP
    """
    found, _ = circuits.smallest(
        teacher, prompts, circuits.attribute(teacher, prompts, method="eap-ig"), target
    )
    inside = set(found.nodes)
    pairs = score(teacher, student, prompts, samples=1, progress=False).pairs
    image = [_node(pair.student) for pair in pairs if _node(pair.teacher) in inside]
    if not image:
        return 0.0
    mapped = circuits.Circuit.of_nodes(circuits.Graph.of(student.config), image)
    return float(circuits.faithfulness(student, prompts, mapped).faithfulness[0])


def add_faithfulness(
    comparison: dict[str, Any], teacher: Any, student: Any, count: int, seed: int
) -> None:
    """Writes `carried` of every task into a comparison, as `faithfulness`.

    Args:
      comparison: as from `compare`; its tasks are changed in place.
      teacher: the models that were compared.
      student: likewise.
      count: prompts of each task.
      seed: of the prompts.

    Raises:
      ValueError: as `carried`.

    Example:
      >>> add_faithfulness({"tasks": []}, None, None, 8, 0)
    """
    for row in comparison["tasks"]:
        prompts = tasks.get(
            row["name"], teacher.tokenizer, count, jax.random.key(seed),
            context=teacher.config.context,
        )  # fmt: skip
        row["faithfulness"] = {"value": carried(teacher, student, prompts)}


def _node(name: str) -> str:
    """The name in a graph of the component `head 0.1` or `mlp 0`."""
    kind, _, place = name.partition(" ")
    return f"a{place.replace('.', '.h')}" if kind == "head" else f"m{place}"
