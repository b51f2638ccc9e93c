"""Tables of parts removed together, and of prompts that are not as in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxcompress.report.numbers import NA, number, percent, real
from jaxcompress.report.sections import Section, field

__all__ = ["image", "jobs", "redundancy", "shifted"]

_MODELS = (
    ("teacher", "teacher"),
    ("student", "student"),
    ("from_scratch", "trained from scratch"),
    ("untrained_student", "untrained student"),
)
_PAIRS = 6  # of each model that are shown


def jobs(task: Mapping[str, Any]) -> Section:
    """For each part that matters in the teacher, the set of the student's that does its job.

    Example:
      >>> job = {"teacher": "mlp 3", "students": ["mlp 1", "head 1.2"], "similarity": 0.8,
      ...        "alone": 0.6, "floor": 0.25, "drop_teacher": 40.0, "drop_student": 70.0}
      >>> jobs({"jobs": [job]}).rows
      (('mlp 3', '40.0 %', 'mlp 1 with head 1.2', '70.0 %', '0.800', '0.600', '0.250'),)
    """
    columns = (
        "teacher's part", "its removal costs", "student's parts for it", "their removal costs",
        "likeness", "… of the best alone", "floor",
    )  # fmt: skip
    rows = tuple(
        (
            str(field(job, "teacher")),
            percent(field(job, "drop_teacher")),
            " with ".join(field(job, "students") or ()),
            percent(field(job, "drop_student")),
            number(field(job, "similarity")),
            number(field(job, "alone")),
            number(field(job, "floor")),
        )
        for job in field(task, "jobs") or ()
    )
    note = (
        "Parts of the student are removed together, up to three; likeness is the cosine of what "
        "the two removals do to the logits. At the floor or below it, it says nothing: unrelated "
        "models and shuffled prompts reach as much."
    )
    return Section(columns, rows, note if rows else "No part of the teacher matters by itself.")


def image(task: Mapping[str, Any]) -> Section:
    """What the parts of the student that are like the teacher's circuit carry, beside chance.

    Example:
      >>> found = {"value": 0.9, "raw": 0.95, "null": 0.5, "circuit": ["mlp 3"], "image": ["mlp 1"]}
      >>> image({"faithfulness": found}).rows[0]
      ('faithfulness beyond chance', '0.900')
    """
    found = field(task, "faithfulness")
    if found is None or field(found, "refused"):
        return Section(("", "this pair"), (), f"Not measured: {field(found, 'refused')}.")
    parts = {key: field(found, key) or [] for key in ("circuit", "image")}
    rows = (
        ("faithfulness beyond chance", number(field(found, "value"))),
        ("carried by the image", number(field(found, "raw"))),
        ("carried by as many random parts", number(field(found, "null"))),
        ("parts in the teacher's circuit", str(len(parts["circuit"]))),
        ("parts in its image", str(len(parts["image"]))),
    )
    named = {key: ", ".join(names) or "none" for key, names in parts.items()}
    note = (
        "The circuit: the fewest parts of the teacher that keep 80 % of the task. Its image: the "
        "student's parts whose likeness with one of them is above its floor. Carried: share of "
        "the student's logit difference when all else is corrupted. "
        f"Circuit: {named['circuit']}. Image: {named['image']}."
    )
    return Section(("", "this pair"), rows, note)


def redundancy(task: Mapping[str, Any]) -> Section:
    """The pairs of parts whose joint removal differs most from both alone.

    Example:
      >>> pairs = [{"parts": ["mlp 0", "head 1.2"], "extra": -0.5}]
      >>> redundancy({"redundancy": {"student": pairs}}).rows[0][3]
      'back each other up'
    """
    rows = []
    for side in ("teacher", "student"):
        for pair in (field(task, "redundancy", side) or ())[:_PAIRS]:
            extra = real(field(pair, "extra"))
            if extra is None:
                said = NA
            else:
                said = "back each other up" if extra < 0 else "work in one chain"
            rows.append((side, " and ".join(field(pair, "parts")), number(extra), said))
    columns = ("model", "parts", "extra effect (nats)", "")
    note = (
        "The logit difference with both removed, less what the two removals do one at a time; "
        f"among the parts that matter, the {_PAIRS} largest of each model."
    )
    return Section(columns, tuple(rows), note if rows else "No two parts matter by themselves.")


def shifted(task: Mapping[str, Any]) -> Section:
    """Right answers and logit differences when the task is asked in another way.

    Example:
      >>> told = {"accuracy": 1.0, "logit_difference": 2.5}
      >>> row = {"shift": "longer", "models": {"teacher": told}}
      >>> shifted({"shifted": [row]}).rows
      (('longer', '100.0 %', '2.50'),)
    """
    found = field(task, "shifted") or ()
    measured = [row for row in found if field(row, "models")]
    present = [(key, who) for key, who in _MODELS if any(key in row["models"] for row in measured)]
    heads = [text for _, who in present for text in (f"{who}: right", "logit difference")]
    rows = tuple(
        (
            str(row["shift"]),
            *(
                text
                for key, _ in present
                for text in (
                    _share(field(row, "models", key, "accuracy")),
                    number(field(row, "models", key, "logit_difference")),
                )
            ),
        )
        for row in measured
    )
    note = "Logit differences in nats. The task is in the words it had, then in others."
    refused = [f"{row['shift']}: {row['refused']}" for row in found if field(row, "refused")]
    if len(measured) < 2:
        note = "This task has no other way to be asked here."
    return Section(("prompts", *heads), rows, " ".join([note, *refused]))


def _share(value: Any) -> str:
    value = real(value)
    return percent(None if value is None else 100 * value)
