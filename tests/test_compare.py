"""`compare` end to end on small random models: what it writes, and what it refuses."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tokenizers

import jaxcompress as jc
from jaxcompress import files, runs
from jaxcompress.align import Profile
from jaxcompress.compare import CompareConfig, compare, measure_pair
from jaxcompress.data import language, text
from jaxcompress.report.summary import _calibrated, _dependence
from jaxcompress.tasks import Prompts

pytestmark = pytest.mark.slow

TASKS = ("numerals", "induction")
SETTINGS = CompareConfig(count=6, bootstrap=50)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return text.word_level(language.texts())


@pytest.fixture(scope="module")
def teacher(tokenizer: Any) -> jc.Model:
    return random_model(tokenizer, 2, 0, "a <b>teacher</b>")


@pytest.fixture(scope="module")
def student(tokenizer: Any) -> jc.Model:
    return random_model(tokenizer, 1, 1, "student")


def random_model(tokenizer: Any, layers: int, seed: int, name: str) -> jc.Model:
    config = jc.ModelConfig(
        family="gpt2",
        layers=layers,
        heads=2,
        kv_heads=2,
        head_dim=4,
        width=8,
        neurons=16,
        vocab=len(tokenizer),
        context=48,
    )
    return jc.create(config, key=jax.random.key(seed), tokenizer=tokenizer, name=name)


@pytest.fixture(scope="module")
def report(
    teacher: jc.Model, student: jc.Model, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("runs") / "pair"
    return compare(teacher, student, TASKS, out, config=SETTINGS, progress=False), out


def test_writes_a_whole_run_folder(report: tuple[dict[str, Any], Path]):
    found, out = report
    assert {p.name for p in out.iterdir()} == {
        "comparison.json",
        "config.yaml",
        "metrics.jsonl",
        "report.html",
        "run.json",
    }
    assert json.loads((out / "comparison.json").read_text()) == found
    assert [row["task"] for row in runs.rows(out)] == list(TASKS)
    page = (out / "report.html").read_text()
    assert "a &lt;b&gt;teacher&lt;/b&gt;" in page
    assert "a <b>teacher</b>" not in page


def test_says_everything_for_both_models(report: tuple[dict[str, Any], Path]):
    found, _ = report
    for row in found["tasks"]:
        layers = {"teacher": 2, "student": 1}
        for role, depth in layers.items():
            dependence = row["dependence"][role]
            assert np.shape(dependence["heads"]) == (depth, 2)
            assert np.shape(dependence["mlps"]) == (depth,)
            assert row["behaviour"][role]["loss"] > 0
        assert set(row["alignment"]["nulls"]) == {
            "permuted_influences",
            "random_matching",
            "teacher_itself",
            "untrained_student",
        }
    assert found["student"]["cost"]["parameters"] < found["teacher"]["cost"]["parameters"]
    assert found["settings"]["seed"] == 0
    # Cost, behaviour, alignment and one for each task; dependence needs a logit difference to lose.
    assert len(found["summary"]) in (3 + len(TASKS), 4 + len(TASKS))


def test_jobs_interactions_and_shifted_prompts_are_told(
    report: tuple[dict[str, Any], Path], teacher: jc.Model, student: jc.Model
):
    found, out = report
    for row in found["tasks"]:
        plain, *shifts = row["shifted"]
        assert [one["shift"] for one in shifts] == list(jc.tasks.SHIFTS[row["name"]])
        for role in ("teacher", "student"):
            told = plain["models"][role]
            assert told == pytest.approx(row["behaviour"][role], abs=1e-5)
            for pair in row["redundancy"][role]:
                assert len(set(pair["parts"])) == 2 and np.isfinite(pair["extra"])
        for job in row["jobs"]:
            assert 1 <= len(job["students"]) <= 3
            assert job["similarity"] >= job["alone"] - 1e-6
    assert "Asked in another way" in (out / "report.html").read_text()


def test_effects_and_behaviour_are_those_of_the_functions_by_themselves(
    report: tuple[dict[str, Any], Path], teacher: jc.Model, student: jc.Model
):
    found, _ = report
    prompts = jc.tasks.get("numerals", teacher.tokenizer, 6, jax.random.key(0), context=48)
    effects = jc.ablate.sweep(teacher, prompts, "heads")
    row = found["tasks"][0]
    np.testing.assert_allclose(row["dependence"]["teacher"]["heads"], effects.mean, atol=1e-6)
    ours, theirs = (
        jax.nn.log_softmax(
            m.apply(
                m.params,
                prompts.tokens,
                attention_mask=prompts.attention_mask,
                answer_position=prompts.answer_position,
            ).logits
        )
        for m in (teacher, student)
    )
    rows = np.arange(6)
    loss = -np.asarray(theirs)[rows, prompts.correct[:, 0]].mean()
    assert row["behaviour"]["student"]["loss"] == pytest.approx(float(loss), abs=1e-5)
    kl = (np.exp(ours) * (np.asarray(ours) - np.asarray(theirs))).sum(-1).mean()
    assert row["behaviour"]["kl"] == pytest.approx(float(kl), abs=1e-5)


def test_a_model_with_itself(teacher: jc.Model):
    found = measure_pair(teacher, teacher, dataclasses.replace(SETTINGS, tasks=("numerals",)))
    row = found["tasks"][0]
    assert row["behaviour"]["agreement"] == 1.0
    assert row["behaviour"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert row["alignment"]["published"] == pytest.approx(1.0, abs=1e-6)
    assert row["alignment"]["overlap"] == pytest.approx(1.0, abs=1e-6)
    assert not row["fate"]["brittle"]
    assert not row["fate"]["discarded"]


def test_percentages_need_a_clean_value_above_zero(teacher: jc.Model):
    """Of a negative one a loss would be shown as a gain."""
    module = importlib.import_module("jaxcompress.compare")
    one = Profile(
        ("head 0.0", "mlp 0"), 1, np.array([[-1.0], [0.5]]), np.array([2.0]), None, None, None
    )
    config = dataclasses.replace(teacher.config, layers=1, heads=1, kv_heads=1)
    found = module._dependence(config, one, 10)
    assert found["heads_percent"].tolist() == [[-50.0]] and found["mlps_percent"].tolist() == [25.0]
    found = module._dependence(config, dataclasses.replace(one, clean=np.array([-2.0])), 10)
    assert np.isnan(found["heads_percent"]).all() and np.isnan(found["mlps_percent"]).all()
    assert found["heads"].tolist() == [[-1.0]]


def test_a_task_without_a_mechanism_leaves_the_others_their_average():
    module = importlib.import_module("jaxcompress.compare")
    values = {"ioi": 0.2, "months": np.nan, "induction": 0.6}
    rows = [
        {"name": name, "alignment": {"calibrated": {
            "value": value, "null": value / 2, "draws": value + np.array([-0.1, 0.1])}}}
        for name, value in values.items()
    ]  # fmt: skip
    alone = dict(rows[1]["alignment"]["calibrated"])
    assert module._overall([{"name": "months", "alignment": {"calibrated": alone}}]) is None
    found = module._overall(rows)
    assert found == {"value": pytest.approx(0.4), "null": pytest.approx(0.2),
                     "interval": pytest.approx((0.305, 0.495)), "left_out": ["months"]}  # fmt: skip
    plain = files.plain(rows)
    said = _calibrated(plain)
    assert said.startswith("40% of the teacher's mechanism is found in the student")
    assert "1 task without a mechanism to compare left out" in said
    assert _calibrated(plain[1:2]) == ""


def test_figures_of_confident_mistakes_and_of_two_tasks():
    """The loss is the answers' own however improbable; a median of two is their mean."""
    figures = importlib.import_module("jaxcompress.compare")._figures
    one = np.zeros((1, 1), np.int32)
    for right, nats in (([0, -1], 200), ([0, 2], 200 - np.log(2)), ([1, 0], 0)):
        prompts = Prompts(one, one, one, one[:, 0], np.array([right]), one + 1)
        found = figures(np.array([[0.0, 200.0, 0.0]], np.float32), prompts)
        np.testing.assert_allclose(found["loss"], nats, rtol=1e-6)
    drops = ({"teacher": 1.0, "student": 1.0}, {"teacher": 1.0, "student": 3.0})
    tasks = [
        {"name": "ioi", "dependence": {k: {"robustness": {"mean_drop": v}} for k, v in d.items()}}
        for d in drops
    ]
    assert _dependence(tasks).startswith("Removing one component costs the student 2.0 times")


def test_of_the_default_tasks_those_that_can_be_asked(
    teacher: jc.Model, student: jc.Model, monkeypatch: pytest.MonkeyPatch
):
    """Each refused by default is told; one that was asked for by name is an error."""
    module = importlib.import_module("jaxcompress.compare")
    monkeypatch.setattr(module, "_TASKS", ("ioi", "months"))
    short = []
    for model in (teacher, student):
        embed = model.params["embed"]
        cut = {**model.params, "embed": {**embed, "positions": embed["positions"][:22]}}
        config = dataclasses.replace(model.config, context=22)
        short.append(model.replace(config=config, params=cut))
    found, refused = module._prompts(SETTINGS, teacher.tokenizer, 22)
    assert set(found) == {"ioi"} and set(refused) == {"months"}
    assert "22" in refused["months"]
    told = measure_pair(*short, dataclasses.replace(SETTINGS, tasks=None), progress=False)
    assert [row["name"] for row in told["tasks"]] == ["ioi"] and told["refused"] == refused
    assert any(line.startswith("Not asked: months. ") for line in told["summary"])
    with pytest.raises(ValueError, match="22"):
        module._prompts(dataclasses.replace(SETTINGS, tasks=("months",)), teacher.tokenizer, 22)


def test_refuses_a_folder_with_something_in_it_before_any_work(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="expected a new or empty"):
        compare("builtin:nothing", "builtin:nothing", TASKS, tmp_path)
    with pytest.raises(ValueError, match=r"expected an earlier result with a run\.json"):
        compare("builtin:nothing", "builtin:nothing", TASKS, tmp_path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_refuses_tokenizers_that_differ(teacher: jc.Model, student: jc.Model, tmp_path: Path):
    other = student.replace(tokenizer=text.word_level(["other words"]))
    with pytest.raises(ValueError, match="expected one tokenizer for both.*differing for example"):
        compare(teacher, other, TASKS, tmp_path / "run", config=SETTINGS)
    lower = text.word_level(language.texts())
    lower.backend_tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    with pytest.raises(ValueError, match="expected one tokenizer for both, got 'When Aaron"):
        compare(teacher, student.replace(tokenizer=lower), TASKS, tmp_path / "run")
    with pytest.raises(ValueError, match="student: expected a model with a tokenizer"):
        compare(teacher, student.replace(tokenizer=None), TASKS, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_refuses_unknown_tasks_and_none(teacher: jc.Model, tmp_path: Path):
    with pytest.raises(ValueError, match="did you mean 'numerals'"):
        compare(teacher, teacher, ("numeral",), tmp_path / "run")
    with pytest.raises(ValueError, match="tasks: expected a list of names, got 'numerals'"):
        compare(teacher, teacher, "numerals", tmp_path / "run")
    with pytest.raises(ValueError, match="tasks: expected at least one task"):
        compare(teacher, teacher, (), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replacement": "means"}, "replacement: expected one of .* did you mean 'mean'"),
        ({"bootstrap": 0}, "bootstrap: expected a whole number >= 1"),
        ({"seed": -1}, "seed: expected a whole number >= 0"),
    ],
)
def test_refuses_wrong_settings_before_any_work(teacher: jc.Model, change: Any, message: str):
    with pytest.raises(ValueError, match=message):
        measure_pair(teacher, teacher, dataclasses.replace(SETTINGS, **change, tasks=("none",)))


def test_refuses_numbers_that_are_none(teacher: jc.Model, student: jc.Model):
    broken = jax.tree.map(lambda leaf: leaf * np.nan, student.params)
    with pytest.raises(ValueError, match=r"student student\['blocks'\].*: expected finite"):
        measure_pair(teacher, student.replace(params=broken), SETTINGS)


def test_refuses_prompts_longer_than_the_context(teacher: jc.Model, tokenizer: Any):
    config = dataclasses.replace(teacher.config, context=12)
    short = jc.create(config, key=jax.random.key(0), tokenizer=tokenizer, name="short")
    with pytest.raises(ValueError, match="12"):
        measure_pair(short, short, dataclasses.replace(SETTINGS, tasks=("numerals",)))


def test_interrupted_leaves_nothing(
    teacher: jc.Model, student: jc.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    # By its module: the package re-exports the function under the same name.
    module = importlib.import_module("jaxcompress.compare")
    monkeypatch.setattr(module, "align_profiles", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compare(teacher, student, TASKS, tmp_path / "run", config=SETTINGS)
    assert not list(tmp_path.iterdir())


def test_prompts_of_ones_own_need_no_tokenizer(teacher: jc.Model, student: jc.Model):
    prompts = jc.tasks.get("months", teacher.tokenizer, 6, jax.random.key(1))
    bare = [model.replace(tokenizer=None, name="") for model in (teacher, student)]
    few = CompareConfig(bootstrap=20)
    found = compare(*bare, {"what I ask": prompts}, config=few, progress=False)
    [row] = found["tasks"]
    assert row["name"] == "what I ask" and row["count"] == 6
    assert [shift["shift"] for shift in row["shifted"]] == ["as asked"]
    right = jc.tasks.accuracy(
        student.apply(
            student.params, prompts.tokens, attention_mask=prompts.attention_mask,
            answer_position=prompts.answer_position,
        ).logits,
        prompts,
    )  # fmt: skip
    assert row["behaviour"]["student"]["accuracy"] == pytest.approx(float(right.mean()))
    with pytest.raises(ValueError, match="tasks: expected names of your own for your own prompts"):
        compare(*bare, {"months": prompts})
    with pytest.raises(ValueError, match=r"prompts.tokens: expected token ids below"):
        compare(*bare, {"mine": dataclasses.replace(prompts, tokens=prompts.tokens + 9999)})
