"""The command line: `jaxcompress compare | ablate | inspect`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from jaxcompress import ablate as ablation
from jaxcompress import config as configs
from jaxcompress import files, tasks
from jaxcompress.compare import CompareConfig
from jaxcompress.compare import compare as compare_models
from jaxcompress.io.huggingface import load
from jaxcompress.measure import cost
from jaxcompress.report.tables import compare_table

__all__ = ["ablate", "compare", "inspect", "main"]

Positional = tyro.conf.Positional


def compare(
    teacher: Positional[str],
    student: Positional[str],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    out: Path = Path("runs/compare"),
    overwrite: bool = False,
    config: Path | None = None,
    quick: bool = False,
) -> None:
    """What each of two models can do, costs and depends on, and how alike they work.

    Args:
      teacher: Hugging Face id, directory or builtin:<name>.
      student: likewise; it must share the teacher's tokenizer.
      overrides: settings as key=value, such as count=32 tasks=[ioi,induction].
      out: run folder for report.html, comparison.json and the record of the run.
      overwrite: replace an earlier run in that folder.
      config: YAML file of settings, such as configs/compare/default.yaml.
      quick: apply the file's quick overlay.

    Example:
      >>> main(["compare", "builtin:teacher", "builtin:student", "count=32"])  # doctest: +SKIP
    """
    settings = configs.load(CompareConfig, config, quick=quick, overrides=overrides)
    found = compare_models(
        teacher, student, settings.tasks, out, config=settings, overwrite=overwrite
    )
    print(compare_table(found))
    print(f"\nReport: {(out / 'report.html').resolve()}")


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
      out: JSON file for the effects.

    Example:
      >>> main(["ablate", "builtin:teacher", "--task", "ioi"])  # doctest: +SKIP
    """
    loaded = load(model)
    prompts = tasks.get(
        task, loaded.tokenizer, count, jax.random.key(seed), context=loaded.config.context
    )
    effects = ablation.sweep(loaded, prompts, over, replacement=replacement, metric=metric)
    mean, clean = np.asarray(effects.mean), float(np.mean(effects.clean))
    print(f"{metric} of {model} on {count} {task} prompts: {clean:.3f}")
    flat = [(value, index) for index, value in np.ndenumerate(mean) if np.isfinite(value)]
    for value, index in sorted(flat)[:20]:
        print(f"  without {over.removesuffix('s')} {'.'.join(map(str, index))}: {value:+.3f}")
    if out is not None:
        record = {"model": model, "task": task, "over": over, "replacement": replacement}
        record |= {"metric": metric, "clean": clean, "mean": mean.tolist()}
        files.write_text(out, json.dumps(record, indent=1) + "\n")


def inspect(model: Positional[str], /) -> None:
    """Prints a model's configuration and what it costs on this device.

    Args:
      model: Hugging Face id, directory or builtin:<name>.

    Example:
      >>> main(["inspect", "builtin:teacher"])  # doctest: +SKIP
    """
    loaded = load(model)
    for part in (loaded.config, cost(loaded)):
        for name, value in dataclasses.asdict(part).items():
            print(f"{name:24} {value}")
        print()


def main(args: Annotated[Sequence[str] | None, "by default those of the process"] = None) -> int:
    """Runs a command; a `ValueError` is one line on stderr and exit code 2.

    Returns:
      The exit code.

    Example:
      >>> main(["inspect", "builtin:nothing"])
      2
    """
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"compare": compare, "ablate": ablate, "inspect": inspect},
            prog="jaxcompress",
            args=args,
        )
    except ValueError as error:
        print(f"jaxcompress: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxcompress: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0
