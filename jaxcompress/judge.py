"""How students of one teacher are judged: accuracy, alignment, brittleness."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress import ablate, check, gated, tasks
from jaxcompress.align.calibrated import calibrated
from jaxcompress.align.causal import marks, masses
from jaxcompress.align.profile import profile
from jaxcompress.align.robustness import drops
from jaxcompress.distill.mechanisms import Head, match_by_effect
from jaxcompress.examples import Data, batches
from jaxcompress.models import Gates, Model
from jaxcompress.tasks import Prompts

__all__ = ["Judge", "held_out"]


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

    def without(self, model: Model) -> np.ndarray:
        """(layer, head, task) the answer's probability without each head: one baseline for all."""
        options: dict[str, Any] = {"metric": "probability", "progress": False}
        found = [ablate.sweep(model, one, "heads", **options) for one in self._prompts]
        left = [np.asarray(one.mean) + float(np.mean(one.clean)) for one in found]
        return np.stack(left, axis=-1)

    def matched(self, student: Model, share: float = 1.0) -> list[tuple[Head, Head]]:
        """The student's heads that matter most, each with the teacher's head most like it.

        By what removals do to the logits (`align.marks`), mean over the aligned tasks, so the
        student must be able to do them: heads of one that cannot do nothing that could be matched.

        Args:
          student: that can do the tasks.
          share: of its heads, those on which most depends.
        """
        alike, size, ours = [], [], None
        for theirs, prompts in zip(self._teacher, self._prompts, strict=True):
            ours = profile(student, prompts, progress=False)
            found = marks(ours, theirs, only=("causal",))["causal"]
            alike.append(found[: ours.heads, : theirs.heads])
            size.append(masses(ours)[: ours.heads])
        assert ours is not None  # there is at least one task
        best, total = np.mean(alike, axis=0).argmax(axis=1), np.mean(size, axis=0)
        kept = np.flatnonzero(total >= np.quantile(total, 1 - share))
        names = self._teacher[0].names
        return [(_head(ours.names[i]), _head(names[best[i]])) for i in kept]

    def hits(self, student: Model, teacher: Model, share: float) -> dict[str, float]:
        """Share of the heads that are matched with the one they started from.

        Args:
          student: that started from every second layer of
          teacher: the same that the judge has.
          share: see `matched`.

        Returns:
          `hits` by what removals do, `hits_effect` by their size, as published.
        """
        causal = self.matched(student, share)
        chosen = {ours for ours, _ in causal}
        effect = match_by_effect(self.without(student), self.without(teacher))
        pairs = {"hits": causal, "hits_effect": [pair for pair in effect if pair[0] in chosen]}
        return {
            name: float(np.mean([theirs == (2 * ours[0], ours[1]) for ours, theirs in found]))
            for name, found in pairs.items()
        }

    def __call__(self, student: Model) -> dict[str, float]:
        """The mean accuracy on every set, `alignment` in [0, 1], `brittleness`, `worst` in percent.

        Brittleness is the mean over components of the drop of the logit difference when the
        component is removed (`align.robustness.drops`), worst that of the worst 5 % of them.
        """
        found = {
            name: float(
                np.mean(
                    [
                        gated.under_gates(student, [one], gated.accuracy, Gates())[0]
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


def held_out(model: Model, data: Data) -> dict[str, float]:
    """`loss` in nats and `accuracy` on at most 128 held-out prompts of each task.

    Raises:
      ValueError: without tasks, and as `examples.batches`.

    Example:
      >>> from jaxcompress.io.huggingface import load
      >>> held_out(load("builtin:student"), Data(tasks=("months",), count=8))["accuracy"]
      1.0
    """
    if not data.tasks:
        raise check.fail("data.tasks", "names of tasks", "none")
    few = dataclasses.replace(data, count=min(data.count, 128))
    found, loss = batches(model, few, held_out=True)
    right = float(gated.under_gates(model, found, gated.accuracy, Gates())[0])
    return {"loss": gated.mean_loss(model, found, loss), "accuracy": right}


def _head(name: str) -> Head:
    """(layer, head) of `head 0.1`."""
    layer, head = name.removeprefix("head ").split(".")
    return int(layer), int(head)
