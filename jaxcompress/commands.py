"""The commands that write a model: `jaxcompress prune | distill | lora | convert`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxcompress import check, files, runs, tasks
from jaxcompress import config as configs
from jaxcompress import lora as lora_trees
from jaxcompress.circuits import METHODS
from jaxcompress.compare import compare
from jaxcompress.compress import PruneConfig, prune_model
from jaxcompress.finetune import DistillConfig, LoraConfig, adapt, distil
from jaxcompress.io import export, peft, provenance
from jaxcompress.io.huggingface import load, resolve
from jaxcompress.models import Model
from jaxcompress.prune import CRITERIA
from jaxcompress.report.tables import compare_table

__all__ = ["Recipe", "Written", "convert", "distill", "lora", "overrides_of", "prune"]

Positional = tyro.conf.Positional
OmitPrefix = tyro.conf.OmitArgPrefixes


# What docstrings call by a name of Python, for who reads them in a shell.
_SPELT_OUT = {
    "`prune.CRITERIA`": ", ".join(CRITERIA),
    "`circuits.METHODS`": ", ".join(METHODS),
    "`tasks.METRICS`": ", ".join(tasks.METRICS),
    "`tasks.NAMES`": ", ".join(tasks.NAMES),
    "`DistillConfig`": "`jaxcompress distill`",
    "`io.save`": "`jaxcompress convert --help`",
}


def overrides_of(cls: type, examples: str, given: Sequence[str] = ()) -> Any:
    """The help of a command's overrides: some of them, then all settings with their defaults.

    Args:
      cls: of the settings.
      examples: such as `count=32`.
      given: settings that are arguments of the command.

    Example:
      >>> overrides_of(LoraConfig, "rank=4").help.splitlines()[0]
      'settings as key=value, such as rank=4. All there are, with their defaults:'
    """
    told = configs.described(cls).splitlines()
    settings = "\n".join(line for line in told if line.partition("=")[0] not in given)
    for name, spelt in _SPELT_OUT.items():
        settings = settings.replace(name, spelt)
    start = f"settings as key=value, such as {examples}. All there are, with their defaults:"
    return tyro.conf.arg(help=f"{start}\n{settings}\n", help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Where settings come from.

    Attributes:
      config: YAML file of settings, such as configs/prune/default.yaml.
      quick: apply the file's quick overlay.
    """

    config: Path | None = None
    quick: bool = False

    def of(self, cls: type, overrides: Sequence[str], given: Sequence[str] = ()) -> Any:
        """The settings of that kind; `given` are those that are arguments of the command."""
        for override in overrides:
            if (name := override.partition("=")[0]) in given:
                raise check.fail(name, "an argument of the command", f"the setting {override!r}")
        return configs.load(cls, self.config, quick=self.quick, overrides=overrides)


@dataclasses.dataclass(frozen=True)
class Written:
    """What is written beside a model.

    Attributes:
      overwrite: replace a model, and a report, that is there.
      report: run folder for a comparison with the model before, or with the teacher.
      report_tasks: what to compare on; by default data.tasks.
    """

    overwrite: bool = False
    report: Path | None = None
    report_tasks: tuple[str, ...] = ()

    def asked(self, names: Sequence[str] = ()) -> tuple[str, ...]:
        """The tasks of a report; what is wrong with them, or with its folder, is found at once."""
        names = self.report_tasks or names
        if self.report is None:
            return ()
        if not names:
            raise check.fail("--report", "--report-tasks to compare on", "none")
        files.refuse_nonempty(self.report, self.overwrite, marker=runs.MARKER)
        return tuple(check.known("--report-tasks", name, tasks.NAMES) for name in names)

    def compare(self, before: str | Model, after: str | Model, names: Sequence[str]) -> None:
        """Writes the report, if one is asked for."""
        if self.report is not None:
            done = compare(before, after, names, self.report, overwrite=self.overwrite)
            print(compare_table(done))
            print(f"\nReport: {(self.report / 'report.html').resolve()}")


def prune(
    model: Positional[str],
    out: Positional[Path],
    overrides: Annotated[
        Positional[tuple[str, ...]],
        overrides_of(PruneConfig, "criterion=fisher sparsity=0.5 data.tasks=[ioi]"),
    ] = (),
    /,
    *,
    keep_circuit: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    recipe: OmitPrefix[Recipe] = Recipe(),
    written: OmitPrefix[Written] = Written(),
) -> None:
    """Removes the heads, neurons, blocks or channels that matter least; writes a smaller model.

    The arrays are really smaller, and what they compute is exactly what the whole model computes
    with those components gated off. compression.json beside them says what was kept.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      out: directory for the smaller model.
      overrides: see above.
      keep_circuit: task whose circuit is kept, as the setting of that name; may be given several
        times.
      recipe: where settings come from.
      written: what is written besides, and over what.

    Example:
      >>> prune("builtin:teacher", Path("small"), ("data.tasks=[ioi]",))  # doctest: +SKIP
    """
    settings = recipe.of(PruneConfig, overrides)
    if keep_circuit:
        settings = dataclasses.replace(settings, keep_circuit=keep_circuit)
    asked = written.asked(settings.data.tasks)
    record = prune_model(model, out, settings, overwrite=written.overwrite)
    for name, unit in (("parameters", ""), ("loss", "nats")):
        if record[name] is not None:
            before, after = record[name]["before"], record[name]["after"]
            print(f"{name:12} {before:>14,.6g} -> {after:,.6g} {unit}".rstrip())
    if "similarity" in record:
        print(f"{'similarity':12} {record['similarity']:>14.6g} of embeddings before and after")
    print(f"Smaller model: {out.resolve()}")
    written.compare(model, str(out), asked)


def distill(
    teacher: Positional[str],
    student: Positional[str],
    out: Positional[Path],
    overrides: Annotated[
        Positional[tuple[str, ...]],
        overrides_of(DistillConfig, "steps=1000 loss=reverse_kl data.text=corpus.txt"),
    ] = (),
    /,
    *,
    recipe: OmitPrefix[Recipe] = Recipe(),
    written: OmitPrefix[Written] = Written(),
) -> None:
    """Trains a student to say what its teacher says: recovery after pruning, or a smaller model.

    Args:
      teacher: Hugging Face id, directory or builtin:<name>.
      student: likewise, such as what prune has written.
      out: directory for the trained student.
      overrides: see above.
      recipe: where settings come from.
      written: what is written besides, and over what.

    Example:
      >>> distill("builtin:teacher", "small", Path("out"), ("steps=9",))  # doctest: +SKIP
    """
    settings = recipe.of(DistillConfig, overrides)
    asked = written.asked(settings.data.tasks)
    record = distil(teacher, student, out, settings, overwrite=written.overwrite)
    _print_losses(record)
    print(f"Student: {out.resolve()}")
    written.compare(teacher, str(out), asked)


def lora(
    model: Positional[str],
    out: Positional[Path],
    overrides: Annotated[
        Positional[tuple[str, ...]],
        overrides_of(LoraConfig, "variant=dora rank=4 data.tasks=[ioi] merged=directory"),
    ] = (),
    /,
    *,
    recipe: OmitPrefix[Recipe] = Recipe(),
    written: OmitPrefix[Written] = Written(),
) -> None:
    """Trains a low-rank adapter and writes it as PEFT does, so that PEFT loads it.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      out: directory for the adapter.
      overrides: see above.
      recipe: where settings come from.
      written: what is written besides, and over what.

    Example:
      >>> lora("builtin:student", Path("adapter"), ("data.tasks=[ioi]",))  # doctest: +SKIP
    """
    settings = recipe.of(LoraConfig, overrides)
    asked = written.asked(settings.data.tasks)
    record = adapt(model, out, settings, overwrite=written.overwrite)
    _print_losses(record)
    print(f"Trained {record['trained']:,} parameters. Adapter: {out.resolve()}")
    if written.report is not None:
        base = load(model)
        params = lora_trees.merge(base.params, peft.load_adapter(base, out))
        written.compare(base, base.replace(params=params, name=str(out)), asked)


def convert(
    model: Positional[str],
    out: Positional[Path],
    /,
    *,
    form: Literal["stock", "padded", "native"] = "stock",
    dtype: Literal["float32", "float16"] = "float32",
    written: OmitPrefix[Written] = Written(),
) -> None:
    """Writes a model in another form: for stock transformers, padded for it, or as small as it is.

    Args:
      model: Hugging Face id, directory or builtin:<name>.
      out: directory to write.
      form: stock needs layers of one size; padded fills uneven ones up with zeros, which is exact
        and no faster; native takes any shape and is read by jaxcompress only.
      dtype: of the file.
      written: what is written besides, and over what.

    Example:
      >>> convert("small", Path("small-hf"), form="padded")  # doctest: +SKIP
    """
    asked = written.asked()
    store = {"float32": np.float32, "float16": np.float16}[dtype]
    record = provenance.record_of(resolve(model))
    export.save(
        load(model), out, form=form, overwrite=written.overwrite, store=lambda x: x.astype(store),
        compression=record,
    )  # fmt: skip
    print(f"Model: {out.resolve()}")
    written.compare(model, str(out), asked)


def _print_losses(record: dict[str, Any]) -> None:
    for name, nats in record["loss"].items():
        print(f"held-out loss, {name:8} {nats:.5g} nats")
