"""The command line: one line for bad input, exit codes, and the commands on a small model."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxcompress as jc
from jaxcompress.cli import main
from jaxcompress.data import language, text
from tests import families


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random model as a Hugging Face directory."""
    tokenizer = text.word_level(language.texts())
    config = jc.ModelConfig(
        family="gpt2",
        layers=1,
        heads=2,
        kv_heads=2,
        head_dim=4,
        width=8,
        neurons=16,
        vocab=len(tokenizer),
        context=48,
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    jc.save(jc.create(config, key=jax.random.key(0), tokenizer=tokenizer), path)
    return str(path)


def test_compare(directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    command = ["compare", directory, directory, "count=4", "tasks=[months]", "bootstrap=20"]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert str(out / "report.html") in printed
    assert "months" in printed.lower()
    assert json.loads((out / "comparison.json").read_text())["tasks"][0]["count"] == 4
    # Once more into the same folder: refused, unless it is said.
    assert main([*command, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    # Its own copy is aligned with itself, but no score is above 1.
    again = [*command, "--out", str(out), "--overwrite", "--require", "agreement=1"]
    assert main([*again, "--require", "retained=1.5"]) == 3
    assert "at least 1.5 required" in capsys.readouterr().err
    assert main([*command, "--out", str(out), "--overwrite", "--require", "faithfulness=0.7"]) == 3
    assert "faithfulness not measured, at least 0.7 required" in capsys.readouterr().err
    found = json.loads((out / "comparison.json").read_text())["tasks"][0]["faithfulness"]
    assert found["refused"] == "the teacher cannot do this task"
    assert "circuit in the student</h3>" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("required", "message"),
    [
        ("overlap", "expected name=number"),
        ("overlap=nan", "expected name=number"),
        ("aligment=0.8", "did you mean 'alignment'"),
        ("alignment=1.8", "alignment of at most 1"),
    ],
)
def test_a_mistyped_requirement_costs_no_comparison(
    required: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    command = ["compare", "builtin:nothing", "builtin:nothing", "--out", str(out)]
    assert main([*command, "--require", required]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "builtin:nothing", "builtin:nothing", "student=builtin:student"],
        ["circuit", "builtin:nothing", "--task", "ioi", "task=induction"],
    ],
)
def test_a_setting_that_an_argument_says_is_refused(command, tmp_path, capsys):
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    name = command[-1].partition("=")[0]
    assert f"{name}: expected an argument of the command" in capsys.readouterr().err


def test_help_names_what_there_is_and_nothing_of_python(capsys):
    with pytest.raises(SystemExit):
        main(["circuit", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "method=eap-ig: one of eap, " in said and "tasks.NAMES" not in said
    assert "task=ioi" not in said


def test_circuit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    command = ["circuit", "builtin:student", "--task", "months", "count=8", "method=eap"]
    assert main([*command, "--out", str(out)]) == 0
    assert "faithfulness" in capsys.readouterr().out
    assert {"circuit.json", "circuit.svg", "report.html"} <= {path.name for path in out.iterdir()}


def test_ablate(directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "effects.json"
    command = ["ablate", directory, "--task", "ioi", "--count", "4", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    shown = [float(line.split(": ")[1]) for line in printed.splitlines() if "without" in line]
    record = json.loads(out.read_text())
    assert shown == pytest.approx(sorted(record["mean"][0], key=lambda x: -abs(x)), abs=1e-3)
    assert (record["count"], record["seed"]) == (4, 0) and "jax" in record["versions"]


def test_ablate_writes_json_of_uneven_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, out = families.model("uneven"), tmp_path / "effects.json"
    tokenizer = text.word_level(language.texts())
    config = dataclasses.replace(model.config, vocab=len(tokenizer), context=48)
    jc.save(
        jc.create(config, key=jax.random.key(0), tokenizer=tokenizer), tmp_path / "m", form="native"
    )
    command = ["ablate", str(tmp_path / "m"), "--task", "ioi", "--count", "4", "--out", str(out)]
    assert main(command) == 0
    rows = json.loads(out.read_text(), parse_constant=pytest.fail)["mean"]
    heads = [size.heads for size in config.layer_sizes]
    assert [sum(value is not None for value in row) for row in rows] == heads
    kept = out.read_text()
    assert main(["ablate", "builtin:nothing", *command[2:]]) == 2  # before the model is loaded
    assert "a new file, got one that is there" in capsys.readouterr().err
    assert out.read_text() == kept and main([*command, "--overwrite"]) == 0


def test_inspect(directory: str, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", directory]) == 0
    printed = capsys.readouterr().out
    assert "parameters" in printed
    assert "head_dim" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "builtin:techer"], "did you mean 'teacher'"),
        (["inspect", "no such/thing/at/all"], "source: expected a directory"),
        (["ablate", "builtin:teacher", "--task", "iio"], "did you mean 'ioi'"),
        (["ablate", "builtin:teacher", "--task", "ioi", "--over", "head"], "did you mean 'heads'"),
        (["compare", "builtin:teacher", "builtin:student", "cuont=3"], "did you mean 'count'"),
        (["compare", "builtin:teacher", "builtin:student", "count=many"], "count: expected"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("jaxcompress: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["prune", "distill", "lora"])
def test_help_has_every_setting(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for setting in ("data.count=", "data.text=null: a text file,", "seed=0"):
        assert setting in words


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/nope/x"])
def test_folders_that_cannot_be_made(
    directory: str, place: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["convert", directory, place]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"jaxcompress: {place}: expected a directory that can be written to")
    assert error.count("\n") == 1


def test_interrupt(
    directory: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxcompress.ablate.sweep", interrupt)
    assert main(["ablate", directory, "--task", "ioi"]) == 130
    assert "interrupted" in capsys.readouterr().err


# What a shell starts in the background ignores interrupts, and so do its children.
SWEEPING = """
import signal
from jaxcompress import ablate
from jaxcompress.__main__ import run

signal.signal(signal.SIGINT, signal.default_int_handler)
sweep = ablate.sweep

def forever(*args, **options):
    while True:
        sweep(*args, **options)
        print("swept", flush=True)

ablate.sweep = forever
run()
"""


@pytest.mark.slow
def test_a_real_interrupt_ends_the_process_with_130(directory: str, tmp_path: Path):
    """In the middle of a sweep: taken down under the threads of XLA the process would crash."""
    out = tmp_path / "effects.json"
    command = [sys.executable, "-c", SWEEPING, "ablate", directory, "--task", "ioi", "--over"]
    with subprocess.Popen(
        [*command, "neurons", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None and running.stdout.readline() == "swept\n"
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode == 130 and "jaxcompress: interrupted" in said
    assert not list(tmp_path.iterdir())
