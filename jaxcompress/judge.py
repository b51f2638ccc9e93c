"""How students of one teacher are judged: accuracy, alignment, brittleness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress import ablate, check, examples, tasks
from jaxcompress.align.calibrated import calibrated
from jaxcompress.align.profile import profile
from jaxcompress.align.robustness import drops
from jaxcompress.models import Gates, Model
from jaxcompress.tasks import Prompts

__all__ = ["Judge"]


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
