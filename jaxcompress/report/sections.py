"""The tables of a comparison, as text in rows: what the terminal and the page both show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxcompress import check
from jaxcompress.report.numbers import (
    MINUS,
    NA,
    TIMES,
    count,
    interval,
    number,
    p_value,
    percent,
    quantity,
    ratio,
    real,
)

__all__ = [
    "Section",
    "alignment",
    "behaviour",
    "calibrated",
    "cost",
    "field",
    "overview",
    "pairs",
    "require",
    "robustness",
]

SCORES = (("published", "as published"), ("weighted", "weighted"), ("overlap", "overlap"))
NULLS = (
    ("permuted_influences", "influences permuted"),
    ("random_matching", "matched at random"),
)
REFERENCES = (
    ("from_scratch", "trained from scratch"),
    ("untrained_student", "untrained student"),
    ("teacher_itself", "teacher itself"),
)


class Section(NamedTuple):
    """A table: header, rows of as many cells, the first of which is the row's name, and a note."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def field(data: Any, *keys: str) -> Any:
    """The value under nested keys, or `None` where one is missing.

    Example:
      >>> field({"a": {"b": 1}}, "a", "b"), field({"a": None}, "a", "b")
      (1, None)
    """
    for key in keys:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def require(comparison: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The tasks of a comparison; a `ValueError` for data without the parts that any report needs.

    Example:
      >>> require({"teacher": {"name": "a"}})
      Traceback (most recent call last):
      ...
      ValueError: comparison.student.name: expected a model's name, got None
    """
    for side in ("teacher", "student"):
        if not isinstance(field(comparison, side, "name"), str):
            got = field(comparison, side, "name")
            raise check.fail(f"comparison.{side}.name", "a model's name", got)
    tasks = comparison.get("tasks")
    if not isinstance(tasks, Sequence) or isinstance(tasks, str):
        raise check.fail("comparison.tasks", "a list of tasks", type(tasks).__name__)
    for i, task in enumerate(tasks):
        if not isinstance(field(task, "name"), str):
            raise check.fail(f"comparison.tasks[{i}].name", "a task's name", field(task, "name"))
    return tasks


def overview(comparison: Mapping[str, Any]) -> Section:
    """One row per task: right and same answers, the calibrated score, and the fates counted.

    Example:
      >>> models = {"teacher": {"name": "a"}, "student": {"name": "b"}}
      >>> overview(models | {"tasks": [{"name": "ioi", "fate": {"kept": []}}]}).rows[0][5:]
      ('0', 'n/a', 'n/a', 'n/a')
    """
    columns = ("task", "teacher right", "student right", "same answer", "alignment")
    fates = ("kept", "merged", "discarded", "brittle")
    rows = []
    for task in require(comparison):
        right = (field(task, "behaviour", who, "accuracy") for who in ("teacher", "student"))
        counts = (field(task, "fate", kind) for kind in fates)
        rows.append(
            (
                task["name"],
                *map(_share, right),
                _share(field(task, "behaviour", "agreement")),
                number(field(task, "alignment", "calibrated", "value")),
                *(NA if parts is None else count(len(parts)) for parts in counts),
            )
        )
    return Section(columns + fates, tuple(rows))


def cost(comparison: Mapping[str, Any]) -> Section:
    """Sizes and costs of both models, and how many times the teacher's the student's is.

    Example:
      >>> cost({"teacher": {"layers": 12}, "student": {"layers": 6}}).rows[0][:3]
      ('layers', '12', '6')
    """
    kinds: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("layers", "layers", count),
        ("heads per layer", "heads", count),
        ("width", "width", count),
        ("neurons per layer", "neurons", count),
        ("parameters", "parameters", lambda x: quantity(x, "")),
        ("… without embeddings", "parameters_nonembedding", lambda x: quantity(x, "")),
        ("size in memory", "bytes", lambda x: quantity(x, "B")),
        ("compute per token", "flops_per_token", lambda x: quantity(x, "FLOP")),
        ("time of one forward", "latency_seconds", lambda x: quantity(x, "s")),
        ("… spread (quartiles)", "latency_spread_seconds", lambda x: quantity(x, "s", 2)),
        ("tokens per second", "tokens_per_second", lambda x: quantity(x, "")),
        ("energy per token", "joules_per_token", lambda x: quantity(x, "J")),
    )
    rows = []
    for label, key, form in kinds:
        sizes = key in ("layers", "heads", "width", "neurons")
        path = (key,) if sizes else ("cost", key)
        teacher, student = (field(comparison, side, *path) for side in ("teacher", "student"))
        relative = ratio(student, teacher) if "spread" not in key else ""
        rows.append((label, form(teacher), form(student), relative))
    return Section(
        ("", "teacher", "student", "student ÷ teacher"), tuple(rows), _cost_note(comparison)
    )


def _cost_note(comparison: Mapping[str, Any]) -> str:
    cost = field(comparison, "student", "cost")
    parts = []
    if field(cost, "device"):
        batch, length = field(cost, "batch"), field(cost, "length")
        shape = f", {batch} {TIMES} {length} tokens per forward" if batch and length else ""
        parts.append(f"Measured on {cost['device']}{shape}.")
    for side in ("teacher", "student"):
        if real(field(comparison, side, "cost", "joules_per_token")) is None:
            reason = field(comparison, side, "cost", "joules_source") or "unavailable: not measured"
            parts.append(f"Energy of the {side} is {reason}.")
        else:
            parts.append(f"Energy of the {side}: {comparison[side]['cost']['joules_source']}.")
    return " ".join(parts)


def behaviour(task: Mapping[str, Any]) -> Section:
    """How well both models answer, and how far the student's answers are from the teacher's.

    Example:
      >>> behaviour({"behaviour": {"teacher": {"loss": 1}, "student": {"loss": 1.5}}}).rows[0][1:]
      ('1.00', '1.50', '+0.500')
    """
    data = field(task, "behaviour")
    kinds: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("loss on the right answer (nats)", "loss", number),
        ("right answers", "accuracy", _share),
        ("logit difference (nats)", "logit_difference", number),
        ("probability of the right answer", "probability", number),
    )
    rows = []
    for label, key, form in kinds:
        teacher, student = field(data, "teacher", key), field(data, "student", key)
        rows.append((label, form(teacher), form(student), _change(student, teacher, form)))
    same, kl = _share(field(data, "agreement")), field(data, "kl")
    far = f"{number(kl)} nats" if real(kl) is not None else f"{NA} (no finite number)"
    note = f"Same answer on {same} of the prompts; KL(teacher ‖ student) at the answer {far}."
    return Section(("", "teacher", "student", "change"), tuple(rows), note)


def robustness(task: Mapping[str, Any]) -> Section:
    """How much is lost when one part is removed, in percent of the clean score and in nats.

    Example:
      >>> robustness({"dependence": {"teacher": {"robustness": {"mean_drop": 3.06}}}}).rows[0]
      ('mean drop', '3.1 %', 'n/a', 'n/a')
    """
    sides = [field(task, "dependence", side, "robustness") for side in ("teacher", "student")]
    kinds: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("mean drop", "mean_drop", percent),
        ("… 95 % interval", "interval", lambda x: interval(x, unit="%")),
        ("… of heads", "heads_mean", percent),
        ("… of MLPs", "mlps_mean", percent),
        ("worst 5 % of the parts", "worst5", percent),
        ("all drops added", "summed_drop", lambda x: percent(x, 0)),
        ("severity (0 to 1)", "severity", number),
        ("inequality (Gini, 0 to 1)", "gini", number),
        ("mean drop (nats)", "mean_drop_raw", number),
        ("worst 5 % of the parts (nats)", "worst5_raw", number),
    )
    rows = []
    for label, key, form in kinds:
        teacher, student = (field(side, key) for side in sides)
        relative = "" if key == "interval" else ratio(student, teacher)
        rows.append((label, form(teacher), form(student), relative))
    columns = ("one part removed", "teacher", "student", "student ÷ teacher")
    return Section(columns, tuple(rows), _zero_note(task))


def _zero_note(task: Mapping[str, Any]) -> str:
    """Why percentages are missing, if they are."""
    names = [
        side
        for side in ("teacher", "student")
        if (real(field(task, "dependence", side, "clean")) or 0.0) <= 0
        or real(field(task, "dependence", side, "robustness", "mean_drop")) is None
    ]
    if not names:
        return ""
    who = " and ".join(names)
    return f"The clean logit difference of the {who} is not above 0: no percentage of it is lost."


def alignment(task: Mapping[str, Any]) -> Section:
    """Each score with what it is by chance, for models that share nothing, and for equal ones.

    Example:
      >>> null = {"overlap": {"mean": 0.316, "sd": 0.036, "p": 0.044}}
      >>> found = {"overlap": 0.38, "nulls": {"permuted_influences": null}}
      >>> alignment({"alignment": found}).rows[2][1:3]
      ('0.380', '0.316 ± 0.036 (p = 0.044)')
    """
    data, nulls = field(task, "alignment"), field(task, "alignment", "nulls")
    columns = ("score", "this pair", *(name for _, name in NULLS + REFERENCES))
    rows = []
    for key, label in SCORES:
        chance = (_null(field(nulls, null, key)) for null, _ in NULLS)
        others = (number(_reference(nulls, other, key)) for other, _ in REFERENCES)
        rows.append((label, number(field(data, key)), *chance, *others))
    similarity = (number(_reference(nulls, other, "mean_similarity")) for other, _ in REFERENCES)
    mean = number(field(data, "mean_similarity"))
    rows.append(("mean similarity", mean, "", "", *similarity))
    rows.append(("… influence part", number(field(data, "influence_part"), 2), *[""] * 5))
    bounds = field(data, "interval")
    note = f"95 % interval of the overlap: {interval(bounds)}." if bounds is not None else ""
    missing = [name for key, name in REFERENCES if field(nulls, key) is None]
    if missing:
        note += f" {NA}: no such model was given ({', '.join(missing)})."
    return Section(columns, tuple(rows), note.strip())


def _reference(nulls: Any, name: str, key: str) -> float | None:
    """A reference's score: a number, or the mean of several models'."""
    value = field(nulls, name, key)
    return real(field(value, "mean") if isinstance(value, Mapping) else value)


def _null(null: Any) -> str:
    if real(field(null, "mean")) is None:
        return NA
    spread = number(field(null, "sd"), 2)
    return f"{number(null['mean'])} ± {spread} ({p_value(field(null, 'p'))})"


def calibrated(task: Mapping[str, Any]) -> Section:
    """The score in which 0 is unrelated models and 1 the teacher itself, and what it is made of.

    Example:
      >>> found = {"value": 0.46, "interval": [0.45, 0.47], "raw": 0.5, "null": 0.07}
      >>> calibrated({"alignment": {"calibrated": found}}).rows[0]
      ('alignment, calibrated', '0.460', '[0.450, 0.470]')
    """
    data = field(task, "alignment", "calibrated")
    rows = [("alignment, calibrated", number(field(data, "value")),
             interval(field(data, "interval")))]  # fmt: skip
    rows.append(("… before calibration", number(field(data, "raw")), ""))
    for name, value in (field(data, "nulls") or {}).items():
        rows.append((f"… null: {name.replace('_', ' ')}", number(value), ""))
    for name, value in (field(data, "variants") or {}).items():
        if name != "causal":
            rows.append((f"before calibration, by {name.replace('_', ' ')}", number(value), ""))
    note = (
        "Parts are alike if their removal moves the logits alike on every prompt; 0 is the largest "
        "null, 1 the teacher itself."
    )
    return Section(("", "this pair", "95 % interval"), tuple(rows), note)


def pairs(task: Mapping[str, Any]) -> Section:
    """All matched pairs, the most influential first.

    Example:
      >>> pair = {"student": "mlp 1", "teacher": "mlp 3", "similarity": 0.91}
      >>> pairs({"alignment": {"pairs": [pair]}}).rows
      (('mlp 1', 'mlp 3', '0.910', 'n/a', 'n/a'),)
    """
    columns = ("student", "teacher", "similarity", "influence in student", "influence in teacher")
    found = field(task, "alignment", "pairs") or []
    keys = ("influence_student", "influence_teacher")
    ordered = sorted(found, key=lambda pair: -max(real(field(pair, key)) or 0.0 for key in keys))
    rows = tuple(
        (
            str(field(pair, "student")),
            str(field(pair, "teacher")),
            number(field(pair, "similarity")),
            *(number(field(pair, key)) for key in keys),
        )
        for pair in ordered
    )
    return Section(columns, rows)


def _share(value: Any) -> str:
    value = real(value)
    return percent(None if value is None else 100 * value)


def _change(value: Any, base: Any, form: Callable[[Any], str]) -> str:
    value, base = real(value), real(base)
    if value is None or base is None:
        return NA
    text = form(value - base)
    # The difference of two percentages is in percentage points.
    text = text.replace("%", "points")
    return text if text.startswith(MINUS) else f"+{text}"
