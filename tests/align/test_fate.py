"""Fates of made-up components whose jobs are known, and of real models whose truth is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxcompress.align import Job, Profile, fate, floors

AXES = np.eye(8)


def made_up(parts: dict[str, tuple[float, np.ndarray]]) -> Profile:
    """Heads with a drop in percent each, and what their removal does to 8 logits of 3 prompts."""
    drops = np.array([[drop] for drop, _ in parts.values()])
    logits = np.stack([mark for _, mark in parts.values()])[:, None].repeat(3, axis=1)
    return Profile(
        names=tuple(parts), heads=len(parts), effects=-drops.repeat(3, axis=1) / 100,
        clean=np.ones(3), patterns=None, rows=None, outputs=None, logits=logits,
    )  # fmt: skip


def joint(profile: Profile):
    """Removes parts that do not interact."""

    def together(groups):
        rows = [[profile.names.index(name) for name in group] for group in groups]
        sums = [(profile.effects[i].sum(0), profile.logits[i].sum(0)) for i in rows]
        return tuple(np.stack(each) for each in zip(*sums, strict=True))

    return together


def job(teacher: Profile, student: Profile, name: str, other: str, floor: float = 0.25) -> Job:
    t, s = teacher.names.index(name), student.names.index(other)
    x, y = teacher.logits[t].ravel(), student.logits[s].ravel()
    alike = float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    drops = [-100 * float(p.effects[i].mean()) for p, i in ((teacher, t), (student, s))]
    return Job(name, (other,), alike, alike, floor, *drops)


TEACHER = made_up({
    "head 0.0": (30, AXES[0]), "head 0.1": (20, AXES[1]), "head 0.2": (25, AXES[2]),
    "head 0.3": (15, AXES[3]), "head 0.4": (12, AXES[4]),
})  # fmt: skip
STUDENT = made_up({
    "head 0.0": (35, AXES[0]), "head 0.1": (95, AXES[1] + AXES[2]), "head 0.2": (1, AXES[3]),
    "head 0.3": (80, AXES[7]),
})  # fmt: skip
JOBS = [
    job(TEACHER, STUDENT, name, other)
    for name, other in (
        ("head 0.0", "head 0.0"), ("head 0.1", "head 0.1"), ("head 0.2", "head 0.1"),
        ("head 0.3", "head 0.2"), ("head 0.4", "head 0.3"),
    )
]  # fmt: skip


def test_fates():
    found = fate(TEACHER, STUDENT, JOBS, joint(TEACHER))
    assert [(k["teachers"], k["student"]) for k in found.kept] == [(["head 0.0"], "head 0.0")]
    (merged,) = found.merged
    assert (merged["teachers"], merged["student"]) == (["head 0.1", "head 0.2"], "head 0.1")
    # Both together cost 45 % and are exactly like the student's one part, each alone is not.
    assert merged["drop_teacher"] == pytest.approx(45)
    assert merged["similarity"] == pytest.approx(1.0)
    assert JOBS[1].similarity == pytest.approx(0.5**0.5)
    # One whose like does not matter, one that nothing is like, though that part does matter.
    assert [d["teachers"] for d in found.discarded] == [["head 0.3"], ["head 0.4"]]
    # 95 % is more than twice the joint 45 %; 80 % stand for nothing, so nothing is said of them.
    assert [b["student"] for b in found.brittle] == ["head 0.1"]
    assert "10 %" in found.rules


def test_parts_whose_joint_removal_is_another_are_not_merged():
    def apart(groups):
        effects, logits = joint(TEACHER)(groups)
        return effects, np.roll(logits, 4, axis=-1)

    found = fate(TEACHER, STUDENT, JOBS, apart)
    assert found.merged == []
    assert [k["student"] for k in found.kept] == ["head 0.0", "head 0.1", "head 0.1"]


def test_below_the_floor_nothing_is_kept():
    high = [dataclasses.replace(one, floor=1.01) for one in JOBS]
    found = fate(TEACHER, STUDENT, high, joint(TEACHER))
    assert not (found.kept or found.merged or found.brittle)
    assert len(found.discarded) == len(JOBS)


def test_without_a_logit_difference_nothing_has_a_fate():
    lost = dataclasses.replace(STUDENT, clean=-STUDENT.clean)
    found = fate(TEACHER, lost, JOBS, joint(TEACHER))
    assert not (found.kept or found.merged or found.discarded or found.brittle)
    assert "without a logit difference" in found.rules


def test_floors_are_what_strangers_and_wrong_prompts_reach():
    # All prompts move these logits alike: being asked another prompt changes nothing.
    np.testing.assert_allclose(floors(TEACHER, STUDENT)[:2], [1, 0.5**0.5])
    rng = np.random.default_rng(0)
    one, other = (
        dataclasses.replace(TEACHER, logits=rng.normal(size=(5, 3, 4000))) for _ in range(2)
    )
    np.testing.assert_array_equal(floors(one, other), 0.25)
    np.testing.assert_allclose(floors(one, other, [one]), 1)
