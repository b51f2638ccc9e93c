"""The command line: `jaxcompress compare | ablate | circuit | sae | prune | distill | ...`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from jaxcompress import ablate as ablation
from jaxcompress import files, runs, tasks, xla
from jaxcompress.commands import (
    OmitPrefix,
    Positional,
    Recipe,
    convert,
    distill,
    lora,
    overrides_of,
    prune,
)
from jaxcompress.compare import CompareConfig
from jaxcompress.compare import compare as compare_models
from jaxcompress.dictionary import SaeConfig
from jaxcompress.dictionary import learn as learn_dictionary
from jaxcompress.io.huggingface import load
from jaxcompress.measure import cost
from jaxcompress.mechanism import CircuitConfig
from jaxcompress.mechanism import circuit as find_circuit
from jaxcompress.report.tables import compare_table
from jaxcompress.requirements import minima_of, unmet

__all__ = [
    "ablate",
    "circuit",
    "compare",
    "convert",
    "distill",
    "inspect",
    "lora",
    "main",
    "prune",
    "sae",
]


_MODELS = ("teacher", "student")


def compare(
    teacher: Positional[str],
    student: Positional[str],
    overrides: Annotated[
        Positional[tuple[str, ...]],
        overrides_of(CompareConfig, "count=32 tasks=[ioi,induction]", _MODELS),
    ] = (),
    /,
    *,
    out: Path = Path("runs/compare"),
    overwrite: bool = False,
    recipe: OmitPrefix[Recipe] = Recipe(),
    require: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
) -> None:
    """What each of two models can do, costs and depends on, and how alike they work.

    Args:
      teacher: Hugging Face id, directory or builtin:<name>.
      student: likewise; it must share the teacher's tokenizer.
      overrides: see above.
      out: run folder for report.html, comparison.json and the record of the run.
      overwrite: replace an earlier run in that folder.
      recipe: where settings come from.
      require: name=minimum, such as alignment=0.8, agreement=0.95 or faithfulness=0.7; may be given
        several times. The exit code is 3 if one is not met.

    Example:
      >>> main(["compare", "builtin:teacher", "builtin:student", "count=32"])  # doctest: +SKIP
    """
    settings = recipe.of(CompareConfig, overrides, _MODELS)
    minima = minima_of(require)
    measured = settings.faithfulness or "faithfulness" in minima
    settings = dataclasses.replace(settings, faithfulness=measured)
    found = compare_models(
        teacher, student, settings.tasks, out, config=settings, overwrite=overwrite
    )
    print(compare_table(found))
    print(f"\nReport: {(out / 'report.html').resolve()}")
    if minima and found["refused"]:  # a gate must not pass on fewer tasks than it seems to
        raise UnmetError(f"not asked: {', '.join(found['refused'])}. Name the tasks")
    missed = unmet(found, minima)
    if missed:
        raise UnmetError(
            ", ".join(
                f"{name} {'not measured' if value is None else f'{value:.3f}'}, at least "
                f"{minima[name]:g} required"
                for name, value in missed.items()
            )
        )


class UnmetError(Exception):
    """A comparison that was required to come out better."""


def ablate(
    model: Positional[str],
    /,
    *,
    task: str,
    over: str = "heads",
    replacement: str = "mean",
    metric: str = "logit_difference",
    count: int = 64,
    seed: int = 0,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Takes every component out, one at a time, and prints what each removal does.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      task: prompt family, such as ioi.
      over: heads, mlps, attns, layers or neurons.
      replacement: mean, zero or resample.
      metric: logit_difference, probability, probability_difference, accuracy or kl.
      count: prompts.
      seed: of the prompts.
      out: JSON file for the effects, with what they were measured with.
      overwrite: replace a file that is there.

    Example:
      >>> main(["ablate", "builtin:teacher", "--task", "ioi"])  # doctest: +SKIP
    """
    if out is not None:
        files.refuse_existing(out, overwrite)
    loaded = load(model)
    prompts = tasks.get(
        task, loaded.tokenizer, count, jax.random.key(seed), context=loaded.config.context
    )
    effects = ablation.sweep(loaded, prompts, over, replacement=replacement, metric=metric)
    mean, clean = np.asarray(effects.mean), float(np.mean(effects.clean))
    print(f"{metric} of {model} on {count} {task} prompts: {clean:.3f}")
    flat = [(value, index) for index, value in np.ndenumerate(mean) if np.isfinite(value)]
    for value, index in sorted(flat, key=lambda item: -abs(item[0]))[:20]:
        print(f"  without {over.removesuffix('s')} {'.'.join(map(str, index))}: {value:+.3f}")
    if out is not None:
        record = {"model": model, "task": task, "over": over, "replacement": replacement}
        record |= {"metric": metric, "clean": clean, "mean": mean}
        record |= {"count": count, "seed": seed} | runs.environment()
        files.write_json(out, record)


def circuit(
    model: Positional[str],
    overrides: Annotated[
        Positional[tuple[str, ...]],
        overrides_of(CircuitConfig, "target=0.9 method=eap replacement=mean", ("task",)),
    ] = (),
    /,
    *,
    task: str,
    out: Path = Path("runs/circuit"),
    overwrite: bool = False,
    recipe: OmitPrefix[Recipe] = Recipe(),
) -> None:
    """Finds the circuit of a task, draws it, and says how faithful it is on other prompts.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      overrides: see above.
      task: prompt family, such as ioi.
      out: run folder for report.html, circuit.json, circuit.svg and circuit.png.
      overwrite: replace an earlier run in that folder.
      recipe: where settings come from.

    Example:
      >>> main(["circuit", "builtin:teacher", "--task", "ioi"])  # doctest: +SKIP
    """
    settings = recipe.of(CircuitConfig, overrides, ("task",))
    settings = dataclasses.replace(settings, task=task)
    found = find_circuit(model, out, settings, overwrite=overwrite)
    if found["warning"]:
        print(found["warning"])
    print(f"{task} of {model}: {found['edges']} edges, {found['share']:.1%} of all")
    for name in ("faithfulness", "cpr", "cmd"):
        if found[name] is not None:
            print(f"  {name:14} {found[name]:.3f}")
    print(f"\nReport: {(out / 'report.html').resolve()}")


def sae(
    model: Positional[str],
    overrides: Annotated[
        Positional[tuple[str, ...]],
        overrides_of(SaeConfig, "data.text=corpus.txt layer=6 dictionary.features=4096"),
    ] = (),
    /,
    *,
    out: Path = Path("runs/sae"),
    overwrite: bool = False,
    recipe: OmitPrefix[Recipe] = Recipe(),
) -> None:
    """Learns a dictionary of a model's features (a sparse autoencoder), and shows them.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      overrides: see above.
      out: run folder for report.html, result.json and dictionary, which SAELens loads.
      overwrite: replace an earlier run in that folder.
      recipe: where settings come from.

    Example:
      >>> main(["sae", "builtin:teacher", "data.tasks=[ioi]"])  # doctest: +SKIP
    """
    learn_dictionary(model, out, recipe.of(SaeConfig, overrides), overwrite=overwrite)


def inspect(model: Positional[str], /) -> None:
    """Prints a model's configuration and what it costs on this device.

    Args:
      model: Hugging Face id, directory or builtin:<name>.

    Example:
      >>> main(["inspect", "builtin:teacher"])  # doctest: +SKIP
    """
    loaded = load(model)
    record = Path(model) / "compression.json"
    if record.is_file():  # what prune and distill leave beside the model
        for name, value in json.loads(record.read_text(encoding="utf-8")).items():
            print(f"{name:24} {value}")
        print()
    for part in (loaded.config, cost(loaded)):
        for name, value in dataclasses.asdict(part).items():
            print(f"{name:24} {value}")
        print()


def main(args: Annotated[Sequence[str] | None, "by default those of the process"] = None) -> int:
    """Runs a command; what goes wrong is one line on stderr.

    Returns:
      The exit code: 2 for bad input and for files that cannot be read or written, 3 for a
      requirement that is not met.

    Example:
      >>> main(["inspect", "builtin:nothing"])
      2
    """
    given = list(sys.argv[1:] if args is None else args)
    # That PyTorch is not there is as it should be, and no advice for who types a command.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    xla.set_flags(training=given[:1] in (["distill"], ["lora"], ["sae"]))
    commands: dict[str, Any] = {
        "compare": compare,
        "ablate": ablate,
        "circuit": circuit,
        "sae": sae,
        "prune": prune,
        "distill": distill,
        "lora": lora,
        "convert": convert,
        "inspect": inspect,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="jaxcompress", args=given)
    except (ValueError, OSError) as error:
        print(f"jaxcompress: {error}", file=sys.stderr)
        return 2
    except UnmetError as missed:
        print(f"jaxcompress: {missed}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("jaxcompress: interrupted", file=sys.stderr)
        return 130
    return 0
