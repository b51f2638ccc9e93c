"""Text tables and numbers: aligned, honest about what is missing, and deaf to terminal escapes."""

from __future__ import annotations

import json
import math

import pytest

from jaxcompress.report import compare_table, fates, sections, table
from jaxcompress.report.numbers import (
    MINUS,
    interval,
    number,
    p_value,
    percent,
    quantity,
    ratio,
)
from tests.report.example import comparison


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1, "1.00"), (0.89541, "0.895"), (99.96, "100"), (12.345, "12.3"),
        (124_439_808, "124,439,808"), (0.000123, "0.000123"), (1e-5, f"1.00e{MINUS}05"),
        (-0.5, f"{MINUS}0.500"), (-0.0, "0"), (math.nan, "n/a"), (math.inf, "n/a"), (None, "n/a"),
        ("text", "n/a"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_or_are_not_there(value, text):
    assert number(value) == text


def test_units_and_signs():
    assert quantity(999_960, "B") == "1.00 MB"
    assert quantity(0, "J") == "0 J"
    assert quantity(3.2e-7, "J") == "320 nJ"
    assert quantity(2e18, "FLOP") == "2,000 PFLOP"
    # What rounds to nothing has no sign.
    assert percent(-0.01) == "0.0 %"
    assert percent(4, sign=True) == "+4.0 %"
    assert ratio(1, 0) == ratio(None, 1) == ratio(1, math.nan) == "n/a"
    assert p_value(0) == "p < 0.001"
    assert interval([0.1, None]) == interval([1]) == "n/a"


def test_columns_are_aligned_for_wide_letters_too():
    text = table(["name", "x"], [["模型", "1"], ["abc", "100"]])
    assert text.splitlines() == ["name    x", "----  ---", "模型    1", "abc   100"]


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"rows\[1\]: expected 2 cells, got 3"):
        table(["a", "b"], [["1", "2"], ["1", "2", "3"]])


def test_a_comparison_is_all_there():
    text = compare_table(comparison())
    assert text.startswith("student distilgpt2 against teacher gpt2\n")
    assert text.endswith("\n")
    for expected in (
        "parameters                124 M     81.9 M",
        "Energy of the student is unavailable: no RAPL domains in /sys/class/powercap.",
        "0.316 ± 0.036 (p = 0.044)",
        "head 1.5, head 4.4 and head 6.6 became head 2.4: removing it costs the student 100.0 %",
        "The clean logit difference of the student is not above 0",
        "no such model was given (trained from scratch, untrained student)",
    ):
        assert expected in text
    assert "nan" not in text
    assert "None" not in text


def test_it_is_the_same_after_a_trip_through_json():
    data = comparison()
    assert compare_table(json.loads(json.dumps(data))) == compare_table(data)


def test_names_cannot_command_the_terminal():
    data = comparison(student="\x1b[2Jgone\nteacher")
    lines = compare_table(data).splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[0] == "student  [2Jgone teacher against teacher gpt2"


def test_little_data_is_enough():
    models = {"teacher": {"name": "a"}, "student": {"name": "b"}}
    text = compare_table(models | {"tasks": [{"name": "ioi"}]})
    assert "Energy of the student is unavailable: not measured." in text
    assert compare_table(models | {"tasks": []}).startswith("student b against teacher a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": {}}, "comparison.student.name: expected a model's name, got None"),
        ({"tasks": None}, "comparison.tasks: expected a list of tasks, got NoneType"),
        ({"tasks": [{}]}, r"comparison.tasks\[0\].name: expected a task's name, got None"),
    ],
)
def test_data_without_its_frame_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        compare_table(comparison() | change)


def test_changes_are_the_student_less_the_teacher():
    rows = {row[0]: row[1:] for row in sections.behaviour(comparison()["tasks"][0]).rows}
    assert rows["loss on the right answer (nats)"] == ("0.310", "0.920", "+0.610")
    assert rows["right answers"][2] == f"{MINUS}8.6 points"


def test_pairs_are_ordered_by_influence():
    task = comparison()["tasks"][0]
    rows = sections.pairs(task).rows
    assert len(rows) == len(task["alignment"]["pairs"])
    strongest = [max(float(row[3]), float(row[4])) for row in rows[:10]]
    assert strongest == sorted(strongest, reverse=True)


def test_fates_are_always_four():
    assert [len(fate.lines) for fate in fates(comparison()["tasks"][0])] == [2, 1, 3, 11]
    assert [fate.kind for fate in fates({})] == ["kept", "merged", "discarded", "brittle"]
    bare = {"merged": [{"teachers": ["mlp 1"], "student": "mlp 0"}]}
    assert fates({"fate": bare})[1].lines == ("mlp 1 became mlp 0.",)
    assert fates({"fate": {"kept": [{}]}})[0].lines[0].startswith("n/a lives on as n/a")
