"""Who does the job of a component, and who backs whom up: components removed together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcompress.ablate.forward import run, start
from jaxcompress.ablate.interventions import components, replacements
from jaxcompress.ablate.sweep import chunk_size, measure
from jaxcompress.align.causal import marks
from jaxcompress.align.measured import Profile
from jaxcompress.align.profile import recorded
from jaxcompress.align.robustness import drops
from jaxcompress.tasks.prompts import Prompts

__all__ = ["Job", "important", "jobs", "redundancy", "together"]

_TOGETHER = 8  # groups that are measured at once


@dataclasses.dataclass(frozen=True)
class Job:
    """What a component of the teacher does, and the components of the student that do it.

    Attributes:
      teacher: name.
      students: the set whose joint removal is most like its removal.
      similarity: of the two removals, cosine of the logit changes.
      alone: the same for the best single component.
      drop_teacher: share of the clean logit difference that its removal costs, in percent.
      drop_student: likewise for the set.
    """

    teacher: str
    students: tuple[str, ...]
    similarity: float
    alone: float
    drop_teacher: float
    drop_student: float


def together(
    model: Any,
    prompts: Prompts,
    groups: Sequence[Sequence[str]],
    *,
    replacement: str = "mean",
) -> tuple[np.ndarray, np.ndarray]:
    """Removes groups of components, each group at once: one vmap over gates.

    Args:
      model: as in `ablate.sweep`.
      prompts: clean and corrupted.
      groups: names such as "head 0.1" and "mlp 3".
      replacement: see `profile`.

    Returns:
      (group, batch) change of the logit difference in nats, and (group, batch, token) changes of
      the logits that `Profile.logits` has.

    Example:
      >>> together(model, prompts, [["head 0.1", "mlp 3"]])[0].shape  # doctest: +SKIP
      (1, 64)
    """
    base = start(model, prompts, recorded)
    # All groups from the first layer on, filled up with one of both kinds: so every call has the
    # same program, and compiling it takes longer than running it does in a small model.
    size = min(_TOGETHER, chunk_size(model.config, base.prompts))
    filled = [*groups, *[("head 0.0", "mlp 0")] * (size - len(groups) % size)]
    items = components(model.config, [_off(group) for group in filled])
    items = dataclasses.replace(items, layers=np.zeros_like(items.layers))
    edits = None
    if replacement != "zero":
        taps = run(model, base.prompts, tokens=base.prompts.corrupted, taps=items.fields).taps
        edits = replacements(taps, replacement, base.prompts)
    effects = measure(model, base, items, edits, metric=recorded, chunk=size, progress=False)
    found = np.asarray(effects.per_example)[: len(groups)]
    return found[..., 0], found[..., 1:]


def _off(group: Sequence[str]) -> dict[str, list[Any]]:
    """Keyword arguments of `Gates.off` for component names."""
    heads = [name.removeprefix("head ") for name in group if name.startswith("head ")]
    mlps = [int(name.removeprefix("mlp ")) for name in group if name.startswith("mlp ")]
    pairs = [tuple(int(part) for part in name.split(".")) for name in heads]
    return {name: items for name, items in (("heads", pairs), ("mlps", mlps)) if items}


def important(profile: Profile, threshold: float = 10.0, most: int = 8) -> list[int]:
    """The components whose removal costs most, if at least `threshold` percent; worst first.

    Example:
      >>> one = Profile(("head 0.0", "mlp 0"), 1, np.array([[-1.0], [-0.01]]), np.ones(1), None,
      ...               None, None)
      >>> important(one)
      [0]
    """
    drop = np.nan_to_num(drops(profile.effects.mean(axis=1), float(profile.clean.mean())))
    return [int(i) for i in np.argsort(-drop)[:most] if drop[i] >= threshold]


def jobs(
    teacher: Profile,
    student: Profile,
    model: Any,
    prompts: Prompts,
    *,
    threshold: float = 10.0,
    most: int = 8,
    largest: int = 3,
    replacement: str = "mean",
) -> tuple[Job, ...]:
    """For each teacher component that matters, the student components that do its job.

    Candidates are taken in the order of their own similarity; the student is measured with the
    first, the first two, ... of them removed together, and the set whose logit changes are most
    like the teacher's is kept. A larger set must gain at least 0.01.

    Args:
      teacher: the profile.
      student: likewise, of the same prompts.
      model: the student.
      prompts: those of the profiles.
      threshold: see `fate`.
      most: teacher components, the costliest first.
      largest: components in a set.
      replacement: as in the profiles.

    Example:
      >>> jobs(teacher_profile, student_profile, student, prompts)[0].students  # doctest: +SKIP
      ('head 1.2', 'mlp 1')
    """
    chosen = important(teacher, threshold, most)
    if not chosen or not student.clean.mean() > 0:
        return ()
    alike = marks(student, teacher, across=True, only=("causal",))["causal"]
    order = np.argsort(-alike, axis=0)
    names = np.array(student.names)
    sets = [tuple(names[order[:size, t]]) for t in chosen for size in range(1, largest + 1)]
    effects, logits = together(model, prompts, sets, replacement=replacement)
    drop = drops(effects.mean(axis=1), float(student.clean.mean()))
    cost = drops(teacher.effects.mean(axis=1), float(teacher.clean.mean()))
    found = []
    for i, t in enumerate(chosen):
        rows = range(i * largest, (i + 1) * largest)
        values = [_cosine(logits[row], teacher.logits[t]) for row in rows]
        best = 0
        for j, value in enumerate(values):
            best = j if value > values[best] + 0.01 else best
        row = rows[best]
        told = float(values[best]), float(values[0]), float(cost[t]), float(drop[row])
        found.append(Job(teacher.names[t], tuple(map(str, sets[row])), *told))
    return tuple(found)


def redundancy(
    profile: Profile,
    model: Any,
    prompts: Prompts,
    *,
    threshold: float = 10.0,
    most: int = 8,
    replacement: str = "mean",
) -> tuple[tuple[str, ...], np.ndarray]:
    """Does removing two components do more than the sum of both?

    Args:
      profile: of the model on the prompts.
      model: that was measured.
      prompts: of the profile.
      threshold: only components that matter, see `fate`.
      most: of them, the costliest first.
      replacement: as in the profile.

    Returns:
      Names, and (component, component) effect of removing both minus the sum of the effects, mean
      over prompts in nats, 0 on the diagonal. Negative: they back each other up (removing both
      costs more than the sum). Positive: they work in one chain.

    Example:
      >>> names, extra = redundancy(one, model, prompts)  # doctest: +SKIP
    """
    chosen = important(profile, threshold, most)
    names = tuple(profile.names[i] for i in chosen)
    extra = np.zeros((len(names), len(names)))
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    if pairs:
        groups = [(names[i], names[j]) for i, j in pairs]
        joint = together(model, prompts, groups, replacement=replacement)[0].mean(axis=1)
        single = profile.effects.mean(axis=1)
        for (i, j), value in zip(pairs, joint, strict=True):
            extra[i, j] = extra[j, i] = value - single[chosen[i]] - single[chosen[j]]
    return names, extra


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return float((x * y).sum() / norm) if norm > 0 else 0.0
