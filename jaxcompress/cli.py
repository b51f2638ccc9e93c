"""The command line: `jaxcompress compare | ablate | prune | distill | lora | convert | inspect`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

from jaxcompress import ablate as ablation
from jaxcompress import check, files, tasks
from jaxcompress import config as configs
from jaxcompress.compare import CompareConfig
from jaxcompress.compare import compare as compare_models
from jaxcompress.compress import PruneConfig, prune_model
from jaxcompress.finetune import DistillConfig, LoraConfig, adapt, distil
from jaxcompress.io.export import save
from jaxcompress.io.huggingface import load
from jaxcompress.measure import cost
from jaxcompress.report.tables import compare_table

__all__ = ["ablate", "compare", "convert", "distill", "inspect", "lora", "main", "prune"]

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


def prune(
    model: Positional[str],
    out: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    overwrite: bool = False,
    config: Path | None = None,
    quick: bool = False,
    report: Path | None = None,
) -> None:
    """Removes the heads, neurons, blocks or channels that matter least; writes a smaller model.

    The arrays are really smaller, and what they compute is exactly what the whole model computes
    with those components gated off. compression.json beside them says what was kept.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      out: directory for the smaller model.
      overrides: settings as key=value, such as criterion=fisher over=[heads] sparsity=0.5
        data.tasks=[ioi] or data.text=corpus.txt, form=padded for stock transformers.
      overwrite: replace what is there.
      config: YAML file of settings, such as configs/prune/default.yaml.
      quick: apply the file's quick overlay.
      report: run folder for a comparison of the two models on data.tasks.

    Example:
      >>> main(["prune", "builtin:teacher", "small", "data.tasks=[ioi]"])  # doctest: +SKIP
    """
    settings = configs.load(PruneConfig, config, quick=quick, overrides=overrides)
    _check_report(report, settings.data.tasks, overwrite)
    record = prune_model(model, out, settings, overwrite=overwrite)
    for name, unit in (("parameters", ""), ("loss", "nats")):
        if record[name] is not None:
            before, after = record[name]["before"], record[name]["after"]
            print(f"{name:12} {before:>14,.6g} -> {after:,.6g} {unit}".rstrip())
    print(f"Smaller model: {out.resolve()}")
    _write_report(model, out, settings.data.tasks, report, overwrite)


def distill(
    teacher: Positional[str],
    student: Positional[str],
    out: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    overwrite: bool = False,
    config: Path | None = None,
    quick: bool = False,
    report: Path | None = None,
) -> None:
    """Trains a student to say what its teacher says: recovery after pruning, or a smaller model.

    Args:
      teacher: Hugging Face id, directory or builtin:<name>.
      student: likewise, such as what prune has written.
      out: directory for the trained student.
      overrides: settings as key=value, such as steps=1000 loss=reverse_kl data.tasks=[ioi] or
        data.text=corpus.txt.
      overwrite: replace what is there.
      config: YAML file of settings, such as configs/distill/default.yaml.
      quick: apply the file's quick overlay.
      report: run folder for a comparison of teacher and student on data.tasks.

    Example:
      >>> main(["distill", "builtin:teacher", "small", "out", "steps=9"])  # doctest: +SKIP
    """
    settings = configs.load(DistillConfig, config, quick=quick, overrides=overrides)
    _check_report(report, settings.data.tasks, overwrite)
    record = distil(teacher, student, out, settings, overwrite=overwrite)
    _print_losses(record)
    print(f"Student: {out.resolve()}")
    _write_report(teacher, out, settings.data.tasks, report, overwrite)


def lora(
    model: Positional[str],
    out: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    overwrite: bool = False,
    config: Path | None = None,
    quick: bool = False,
) -> None:
    """Trains a low-rank adapter and writes it as PEFT does, so that PEFT loads it.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      out: directory for the adapter.
      overrides: settings as key=value, such as variant=dora rank=4 data.tasks=[ioi]
        merged=directory-for-the-merged-model.
      overwrite: replace what is there.
      config: YAML file of settings, such as configs/lora/default.yaml.
      quick: apply the file's quick overlay.

    Example:
      >>> main(["lora", "builtin:student", "adapter", "data.tasks=[ioi]"])  # doctest: +SKIP
    """
    settings = configs.load(LoraConfig, config, quick=quick, overrides=overrides)
    record = adapt(model, out, settings, overwrite=overwrite)
    _print_losses(record)
    print(f"Trained {record['trained']:,} parameters. Adapter: {out.resolve()}")


def _print_losses(record: dict[str, Any]) -> None:
    for name, nats in record["loss"].items():
        print(f"held-out loss, {name:8} {nats:.5g} nats")


def _check_report(report: Path | None, tasks: Sequence[str], overwrite: bool) -> None:
    if report is not None:
        if not tasks:
            raise check.fail("--report", "data.tasks to compare on", "none")
        files.refuse_nonempty(report, overwrite)


def _write_report(
    model: str, out: Path, tasks: Sequence[str], report: Path | None, overwrite: bool
) -> None:
    if report is not None:
        print(compare_table(compare_models(model, str(out), tasks, report, overwrite=overwrite)))
        print(f"\nReport: {(report / 'report.html').resolve()}")


def convert(
    model: Positional[str],
    out: Positional[Path],
    /,
    *,
    form: Literal["stock", "padded", "native"] = "stock",
    dtype: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
) -> None:
    """Writes a model in another form: for stock transformers, padded for it, or as small as it is.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      out: directory to write.
      form: stock needs layers of one size; padded fills uneven ones up with zeros, which is exact
        and no faster; native takes any shape and is read by jaxcompress only.
      dtype: of the file.
      overwrite: replace what is there.

    Example:
      >>> main(["convert", "small", "small-hf", "--form", "padded"])  # doctest: +SKIP
    """
    store = {"float32": np.float32, "float16": np.float16}[dtype]
    save(load(model), out, form=form, overwrite=overwrite, store=lambda x: x.astype(store))
    print(f"Model: {out.resolve()}")


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
    commands: dict[str, Any] = {
        "compare": compare,
        "ablate": ablate,
        "prune": prune,
        "distill": distill,
        "lora": lora,
        "convert": convert,
        "inspect": inspect,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands,
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
