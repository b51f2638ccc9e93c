"""Who does the job of a component, and who backs whom up: components removed together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcompress.ablate.forward import run, start
from jaxcompress.ablate.interventions import components, replacements
from jaxcompress.ablate.sweep import chunk_size, measure
from jaxcompress.align.causal import cosine, marks
from jaxcompress.align.floors import floors, shuffled
from jaxcompress.align.measured import Job, Profile
from jaxcompress.align.profile import recorded
from jaxcompress.align.robustness import drops
from jaxcompress.tasks.prompts import Prompts

__all__ = ["important", "jobs", "redundancy", "together"]

_TOGETHER = 8  # groups that are measured at once


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
    unrelated: Mapping[str, tuple[Profile, Any]] | None = None,
    threshold: float = 10.0,
    most: int = 24,
    largest: int = 3,
    replacement: str = "mean",
    seed: int = 0,
) -> tuple[Job, ...]:
    """For each teacher component that matters, the student components that do its job.

    Candidates are taken in the order of their own similarity; the student is measured with the
    first, the first two, ... of them removed together, and the set whose logit changes are most
    like the teacher's is kept. A larger set must gain at least 0.01.

    The floor of a job is the largest of `floors.floors`, what the same search finds in unrelated
    models, and what the set that was found reaches on shuffled prompts.

    Args:
      teacher: the profile.
      student: likewise, of the same prompts.
      model: the student.
      prompts: those of the profiles.
      unrelated: by name, profiles and models that share with the teacher only the task.
      threshold: see `fate`.
      most: teacher components, the costliest first.
      largest: components in a set.
      replacement: as in the profiles.
      seed: of the shuffles.

    Returns:
      The jobs, the costliest first; empty if the student cannot do the task.

    Example:
      >>> jobs(teacher_profile, student_profile, student, prompts)[0].students  # doctest: +SKIP
      ('head 1.2', 'mlp 1')
    """
    chosen = important(teacher, threshold, most)
    if not chosen or not student.clean.mean() > 0:
        return ()
    options: dict[str, Any] = {"largest": largest, "replacement": replacement}
    found = _searched(teacher, chosen, student, model, prompts, **options)
    sets = np.stack([one.logits for one in found])
    by_chance = floors(teacher, student, seed=seed)[chosen]
    by_chance = np.maximum(by_chance, np.diag(shuffled(sets, teacher.logits[chosen], seed=seed)))
    for profile, other in (unrelated or {}).values():
        null = _searched(teacher, chosen, profile, other, prompts, **options)
        by_chance = np.maximum(by_chance, [one.similarity for one in null])
    cost = drops(teacher.effects.mean(axis=1), float(teacher.clean.mean()))
    fallen = drops([one.effect for one in found], float(student.clean.mean()))
    return tuple(
        Job(
            teacher.names[t], one.parts, one.similarity, one.alone,
            float(floor), float(cost[t]), float(drop),
        )
        for t, one, floor, drop in zip(chosen, found, by_chance, fallen, strict=True)
    )  # fmt: skip


class _Set(NamedTuple):
    """The parts of a model whose joint removal is most like that of one of the teacher's."""

    parts: tuple[str, ...]
    similarity: float
    alone: float
    effect: float
    logits: np.ndarray


def _searched(
    teacher: Profile,
    chosen: Sequence[int],
    student: Profile,
    model: Any,
    prompts: Prompts,
    *,
    largest: int,
    replacement: str,
) -> list[_Set]:
    """The best set for each chosen teacher component."""
    alike = marks(student, teacher, across=True, only=("causal",))["causal"]
    order = np.argsort(-alike, axis=0)
    sets = [
        tuple(student.names[i] for i in order[:size, t])
        for t in chosen
        for size in range(1, largest + 1)
    ]
    effects, logits = together(model, prompts, sets, replacement=replacement)
    found = []
    for i, t in enumerate(chosen):
        rows = range(i * largest, (i + 1) * largest)
        values = [cosine(logits[row], teacher.logits[t]) for row in rows]
        best = 0
        for j, value in enumerate(values):
            best = j if value > values[best] + 0.01 else best
        row = rows[best]
        effect = float(effects[row].mean())
        found.append(_Set(sets[row], values[best], values[0], effect, logits[row]))
    return found


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
