"""In which order tasks of a mixture are shown: a weight for each task, as a function of the step.

A curriculum is two arrays, so a population of networks can have another one each under one `vmap`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcompress import check

__all__ = [
    "KINDS",
    "UNEQUAL",
    "Curriculum",
    "MixtureConfig",
    "curriculum",
    "mixed",
    "mixture",
    "several",
]

KINDS = ("mixed", "easy_first", "hard_first", "by_frequency")

UNEQUAL = "unequal shares"
"""Name of what `by_frequency` is to be compared with."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Curriculum:
    """When each task is first shown, and how often from then on; a pytree.

    Attributes:
      opens: (task,) float, the step from which on a task is shown.
      frequencies: (task,) float, relative to each other.
    """

    opens: Any
    frequencies: Any

    def weights(self, step: Any) -> Float[Array, "task"]:
        """Shares of the tasks at a step, which may be traced; they add up to 1.

        Example:
          >>> curriculum("easy_first", [1, 2], steps=10).weights(0).tolist()
          [1.0, 0.0]
        """
        shown = jnp.where(jnp.asarray(self.opens) <= step, jnp.asarray(self.frequencies), 0.0)
        return shown / shown.sum()

    def only(self, tasks: Any) -> Curriculum:
        """Some tasks alone, from step 0 on: the others never open.

        Args:
          tasks: (task,) True for those that are shown.

        Raises:
          ValueError: if none is.

        Example:
          >>> mixed([1, 2]).only([False, True]).weights(0).tolist()
          [0.0, 1.0]
        """
        tasks = np.asarray(tasks, bool)
        check.shape("tasks", tasks, [np.shape(self.opens)], "(task,)")
        if not tasks.any():
            raise check.fail("tasks", "at least one", "none")
        opens = jnp.where(tasks, self.opens, jnp.inf)
        return dataclasses.replace(self, opens=opens - opens.min())


def curriculum(
    kind: str,
    difficulty: Any,
    *,
    steps: int,
    frequencies: Any = None,
) -> Curriculum:
    """Opens the tasks in order; tasks of equal rank open together, and none closes again.

    Args:
      kind: `mixed` (all from the start), `easy_first`, `hard_first` or `by_frequency` (the most
        frequent first).
      difficulty: of each task, in any unit; for parity the number of bits.
      steps: in which the tasks open, in equal parts; the first rank is there from step 0, and after
        `steps` all are.
      frequencies: of each task, positive; all equal by default.

    Returns:
      The curriculum. At every step the open tasks share the examples by their frequencies.

    Raises:
      ValueError: for an unknown kind, no tasks, frequencies that are not as many and positive, and
        equal ones to open the tasks by.

    Example:
      >>> found = curriculum("hard_first", [4, 4, 16], steps=100)
      >>> found.weights(0).tolist(), (3 * found.weights(50)).round().tolist()
      ([0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    """
    check.known("kind", kind, KINDS)
    check.integer("steps", steps, 0)
    hard = np.asarray(difficulty, float)
    if hard.ndim != 1 or not hard.size or not np.isfinite(hard).all():
        raise check.fail("difficulty", "one finite number for each task", list(difficulty))
    often = np.ones(hard.shape) if frequencies is None else np.asarray(frequencies, float)
    check.shape("frequencies", often, [hard.shape], "(task,)")
    if not (np.isfinite(often).all() and (often > 0).all()):
        raise check.fail("frequencies", "positive numbers", often.tolist())
    ranked = {"easy_first": hard, "hard_first": -hard, "by_frequency": -often}
    if kind == "by_frequency" and len(np.unique(often)) == 1 < len(often):
        raise check.fail("frequencies", "different ones, to open the tasks by", often.tolist())
    levels, rank = np.unique(ranked.get(kind, np.zeros(hard.shape)), return_inverse=True)
    opens = (rank * steps / len(levels)).astype(np.float32)
    return Curriculum(jnp.asarray(opens), jnp.asarray(often, jnp.float32))


def mixed(difficulty: Any) -> Curriculum:
    """All tasks from the start, in equal shares.

    Example:
      >>> mixed([1, 2]).weights(0).tolist()
      [0.5, 0.5]
    """
    return curriculum("mixed", difficulty, steps=0)


def several(
    kinds: Sequence[str], difficulty: Any, *, steps: int, frequencies: Any
) -> dict[str, Curriculum]:
    """Curricula by kind, and what they are to be compared with.

    Args:
      kinds: from `KINDS`.
      difficulty: as in `curriculum`.
      steps: likewise.
      frequencies: of `by_frequency` only, which is preceded by `UNEQUAL`: the same shares, all open
        from the start.

    Example:
      >>> found = several(["by_frequency"], [1, 2], steps=10, frequencies=[1, 3])
      >>> {name: one.weights(0).tolist() for name, one in found.items()}
      {'unequal shares': [0.25, 0.75], 'by_frequency': [0.0, 1.0]}
    """
    found = {}
    for kind in kinds:
        often = frequencies if kind == "by_frequency" else None
        if often is not None:
            found[UNEQUAL] = curriculum("mixed", difficulty, steps=0, frequencies=often)
        found[kind] = curriculum(kind, difficulty, steps=steps, frequencies=often)
    return found


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
    """When the tasks, or texts, of a training run are shown, and how often.

    Left out, all rows are drawn alike: a text with more of them comes more often.

    Attributes:
      order: mixed (all from the start), easy_first or hard_first (by the loss of the model before
        training), or by_frequency.
      opening: share of the updates in which they open one by one.
      frequencies: of each task, relative to each other; left out, all equal.
    """

    order: Literal["mixed", "easy_first", "hard_first", "by_frequency"] = "mixed"
    opening: float = 0.5
    frequencies: tuple[float, ...] = ()


def mixture(
    config: MixtureConfig, tasks: Sequence[str], steps: int, difficulty: Callable[[str], float]
) -> Curriculum | None:
    """The curriculum of a training run; `None` if all tasks are shown alike from the start.

    Args:
      config: order and frequencies.
      tasks: names, of tasks or of texts.
      steps: updates of the run.
      difficulty: of a task by its name, asked only if the order depends on it.

    Raises:
      ValueError: for an order of less than two, an opening outside [0, 1], and as `curriculum`.

    Example:
      >>> found = mixture(MixtureConfig("hard_first"), ["a", "bb"], 100, len)
      >>> found.weights(0).tolist(), found.weights(50).tolist()
      ([0.0, 1.0], [0.5, 0.5])
    """
    if config == MixtureConfig():
        return None
    if len(tasks) < 2:
        raise check.fail("mixture", "several data.tasks or data.text to put in order", len(tasks))
    if not 0 <= config.opening <= 1:
        raise check.fail("mixture.opening", "a share in [0, 1]", config.opening)
    ranked = config.order in ("easy_first", "hard_first")
    hard = [difficulty(name) if ranked else 0.0 for name in tasks]
    opening, often = round(config.opening * steps), config.frequencies or None
    return curriculum(config.order, hard, steps=opening, frequencies=often)
