"""A teacher and its student side by side: behaviour, cost, dependence, alignment; one report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import ablate, check, files, runs, tasks
from jaxcompress.ablate.forward import run as forward
from jaxcompress.align import (
    Profile,
    align_profiles,
    fate,
    jobs,
    mean_of,
    profile,
    redundancy,
    robustness,
    together,
)
from jaxcompress.carried import carried
from jaxcompress.config import to_dict
from jaxcompress.io.huggingface import load
from jaxcompress.measure import cost
from jaxcompress.models import Model, create
from jaxcompress.report.html import compare_page
from jaxcompress.report.summary import summarise
from jaxcompress.tokenized import refuse_other_tokenizer

__all__ = ["CompareConfig", "compare", "measure_pair"]

_TASKS = ("numerals", "number_words", "months", "ioi", "greater_than", "induction")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """What to compare, on what, and how.

    Attributes:
      teacher: Hugging Face id, directory or `builtin:<name>`.
      student: likewise; it must share the teacher's tokenizer.
      tasks: names from `tasks.NAMES`; left out, numerals, number words, months, ioi, greater than
        and induction, as far as these models can be asked them.
      count: prompts per task.
      seed: of prompts, untrained models and permutations.
      replacement: what stands in for an ablated component: `mean`, `zero` or `resample`.
      across: whether a head may stand for an MLP in the calibrated alignment.
      from_scratch: a model of the student's shape that never saw the teacher, for the null; or
        `null`. Left out if it does not share the tokenizer.
      bootstrap: samples of every bootstrap and permutation.
      faithfulness: find the teacher's circuit of every task, and measure how much of the task its
        image in the student carries.
    """

    teacher: str = "builtin:teacher"
    student: str = "builtin:student"
    tasks: tuple[str, ...] | None = None
    count: int = 64
    seed: int = 0
    replacement: str = "mean"
    across: bool = False
    from_scratch: str | None = None
    bootstrap: int = 10_000
    faithfulness: bool = False


def compare(
    teacher: str | Model,
    student: str | Model,
    tasks: Sequence[str] | Mapping[str, tasks.Prompts] | None = None,
    out: str | Path | None = None,
    *,
    config: CompareConfig | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Compares two models that share a tokenizer, and writes the report.

    Args:
      teacher: a model, or what `load` takes.
      student: likewise.
      tasks: names from `tasks.NAMES`, or `None`: see `CompareConfig`; or prompts of your own by
        name, which need no tokenizer.
      out: run folder for `report.html`, `comparison.json`, `metrics.jsonl` and what was run with;
        `None` writes nothing.
      config: further settings; its models and tasks are ignored.
      overwrite: whether an earlier run in `out` may go.
      progress: see `ablate.sweep`.

    Returns:
      The comparison as plain data, as in `comparison.json`.

    Raises:
      ValueError: for models that cannot be loaded, tokenizers that differ, tasks that cannot be
        asked with this tokenizer, prompts that do not fit, and an `out` that is not empty.

    Example:
      >>> compare("gpt2", "distilgpt2", ["ioi"], "runs/gpt2")  # doctest: +SKIP
    """
    config = dataclasses.replace(
        config or CompareConfig(),
        teacher=_name(teacher),
        student=_name(student),
        tasks=None if tasks is None else check.listed("tasks", tasks),
    )
    if out is not None:
        files.refuse_nonempty(out, overwrite, marker=runs.MARKER)
    models = {"teacher": _loaded(teacher), "student": _loaded(student)}
    own = tasks if isinstance(tasks, Mapping) else None
    comparison = measure_pair(**models, config=config, own=own, progress=progress)
    if out is not None:
        _write(comparison, config, Path(out), overwrite)
    return comparison


def measure_pair(
    teacher: Model,
    student: Model,
    config: CompareConfig,
    *,
    own: Mapping[str, tasks.Prompts] | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """The comparison of two loaded models as plain data; arguments as in `compare`.

    `own` are prompts by name, of tasks that are not in `tasks.NAMES`.

    Example:
      >>> measure_pair(load("gpt2"), load("distilgpt2"), CompareConfig())  # doctest: +SKIP
    """
    (_refuse_other_tokenizer if own is None else refuse_other_tokenizer)(teacher, student)
    check.known("replacement", config.replacement, ablate.REPLACEMENTS)
    check.integer("bootstrap", config.bootstrap, 1)
    check.integer("seed", config.seed, 0)
    for role, model in (("teacher", teacher), ("student", student)):
        check.finite(f"{role} {model.name}".strip(), model.params)
    settings = to_dict(config) | runs.environment()
    context = min(teacher.config.context, student.config.context)
    if own is None:
        prompts, refused = _prompts(config, teacher.tokenizer, context)
    else:
        prompts, refused = _own(own, teacher, student, context), {}
    others = _others(student, teacher, config)
    costs = {"teacher": cost(teacher), "student": cost(student)}
    rows = [
        _task(name, one, teacher, student, others, config, progress)
        for name, one in prompts.items()
    ]
    comparison: dict[str, Any] = {
        "teacher": _describe(teacher) | {"cost": dataclasses.asdict(costs["teacher"])},
        "student": _describe(student) | {"cost": dataclasses.asdict(costs["student"])},
        "settings": settings,
        "tasks": rows,
        "refused": refused,
    }
    comparison["alignment"] = _overall(rows)
    comparison = files.plain(comparison)
    return comparison | {"summary": summarise(comparison)}


def _prompts(
    config: CompareConfig, tokenizer: Any, context: int
) -> tuple[dict[str, tasks.Prompts], dict[str, str]]:
    """Prompts of one length by task; and why a task of the default cannot be asked."""
    if config.tasks is not None and not config.tasks:
        raise check.fail("tasks", "at least one task", "none")
    found, refused, key = {}, {}, jax.random.key(config.seed)
    for name in _TASKS if config.tasks is None else config.tasks:
        check.known("tasks", name, tasks.NAMES)
        try:
            found[name] = tasks.get(name, tokenizer, config.count, key, context=context)
        except ValueError as error:
            if config.tasks is not None:
                raise
            refused[name] = str(error)
    if not found:
        raise check.fail("tasks", "one that these models can be asked", refused)
    alike = tasks.alike(list(found.values()), context)
    return dict(zip(found, alike, strict=True)), refused


def _own(
    own: Mapping[str, tasks.Prompts], teacher: Model, student: Model, context: int
) -> dict[str, tasks.Prompts]:
    """Prompts of one length that both models can be given."""
    if not own:
        raise check.fail("tasks", "at least one task", "none")
    for name, prompts in own.items():
        if name in tasks.NAMES:
            raise check.fail("tasks", "names of your own for your own prompts", repr(name))
        for model in (teacher, student):
            prompts.validate(model.config.vocab, context, model.config.outputs or None)
    return dict(zip(own, tasks.alike(list(own.values()), context), strict=True))


def _task(
    name: str,
    prompts: tasks.Prompts,
    teacher: Model,
    student: Model,
    others: Mapping[str, Model],
    config: CompareConfig,
    progress: bool | None,
) -> dict[str, Any]:
    """One task: behaviour, dependence, alignment and fate of the components."""
    joint: dict[str, Any] = {"replacement": config.replacement}
    options: dict[str, Any] = joint | {"progress": progress}
    profiles = {
        key: profile(model, prompts, **options)
        for key, model in {"teacher": teacher, "student": student, **others}.items()
    }
    models, both = (profiles.pop("teacher"), profiles.pop("student")), (teacher, student)
    strangers = {key: (measured, others[key]) for key, measured in profiles.items()}
    found = jobs(*models, student, prompts, unrelated=strangers, seed=config.seed, **joint)
    remove = functools.partial(together, teacher, prompts, **joint)
    alignment = align_profiles(
        *models, others=profiles, across=config.across, samples=config.bootstrap, seed=config.seed
    )
    scale = alignment.calibrated
    told = dataclasses.asdict(dataclasses.replace(alignment, calibrated=None))
    told["influence_part"] = alignment.influence_part
    nulls, seed = profiles.values(), config.seed
    image = (
        carried(models, both, prompts, unrelated=nulls, seed=seed) if config.faithfulness else None
    )
    return {
        "name": name,
        "count": len(prompts),
        "behaviour": _behaviour(teacher, student, prompts),
        "dependence": {
            role: _dependence(model.config, measured, config.bootstrap)
            for role, model, measured in zip(("teacher", "student"), both, models, strict=True)
        },
        "alignment": told | {"calibrated": scale and scale.summary() | {"draws": scale.draws}},
        "faithfulness": image and dataclasses.asdict(image),
        "fate": dataclasses.asdict(fate(*models, found, remove)),
        "jobs": [dataclasses.asdict(job) for job in found],
        "redundancy": {
            role: _redundancy(*redundancy(measured, model, prompts, **joint))
            for role, measured, model in zip(("teacher", "student"), models, both, strict=True)
        },
        "shifted": _shifted(
            name, {"teacher": teacher, "student": student, **others}, prompts, config
        ),
    }


def _redundancy(names: Sequence[str], extra: np.ndarray) -> list[dict[str, Any]]:
    """Pairs of parts, the largest interaction first, in nats of the logit difference."""
    pairs = [
        {"parts": [names[j], names[i]], "extra": float(extra[i, j])}
        for i in range(len(names))
        for j in range(i)
    ]
    return sorted(pairs, key=lambda pair: -abs(pair["extra"]))


def _shifted(
    name: str, models: Mapping[str, Model], plain: tasks.Prompts, config: CompareConfig
) -> list[dict[str, Any]]:
    """What every model can still do when the task is asked in another way."""
    context = min(model.config.context for model in models.values())
    tokenizer, key = models["teacher"].tokenizer, jax.random.key(config.seed)
    found, refused = {}, {}
    if name in tasks.NAMES:
        found, refused = tasks.shifted(name, tokenizer, config.count, key, context=context)
    batches = tasks.alike([plain, *found.values()], context)
    rows = []
    for shift, prompts in zip(("as asked", *found), batches, strict=True):
        told = {who: _figures(forward(m, prompts).logits, prompts) for who, m in models.items()}
        rows.append({"shift": shift, "models": told})
    return rows + [{"shift": shift, "refused": why} for shift, why in refused.items()]


def _overall(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The calibrated score over the tasks that have one; takes the draws out of their rows."""
    found = [row["alignment"]["calibrated"] for row in rows]
    if not all(found):
        return None
    draws = [one.pop("draws") for one in found]
    # NaN where no removal changes the teacher: there is no mechanism to compare.
    there = [i for i, one in enumerate(found) if np.isfinite(one["value"])]
    if not there:
        return None
    value, interval = mean_of([(found[i]["value"], draws[i]) for i in there])
    null = np.mean([found[i]["null"] for i in there])
    left = [row["name"] for i, row in enumerate(rows) if i not in there]
    return {"value": value, "interval": interval, "null": null, "left_out": left}


def _behaviour(teacher: Model, student: Model, prompts: tasks.Prompts) -> dict[str, Any]:
    """What each model answers, and how far the two agree."""
    logits = {m: forward(model, prompts).logits for m, model in (("t", teacher), ("s", student))}

    return {
        "teacher": _figures(logits["t"], prompts),
        "student": _figures(logits["s"], prompts),
        "agreement": (logits["t"].argmax(-1) == logits["s"].argmax(-1)).mean(),
        "kl": tasks.METRICS["kl"](logits["s"], prompts, logits["t"]).mean(),
    }


@jax.jit
def _figures(logits: jax.Array, prompts: tasks.Prompts) -> dict[str, jax.Array]:
    # From logits: a probability is 0 beyond a hundred nats.
    right = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(prompts.correct, 0), axis=1)
    return {
        "loss": -jax.nn.logsumexp(right, axis=1, where=prompts.correct >= 0).mean(),
        "accuracy": tasks.accuracy(logits, prompts).mean(),
        "logit_difference": tasks.logit_difference(logits, prompts).mean(),
        "probability": tasks.probability(logits, prompts).mean(),
    }


def _dependence(config: Any, measured: Profile, samples: int) -> dict[str, Any]:
    """Ablation effects of one model, raw and in percent of its clean logit difference."""
    effects, clean = measured.effects.mean(axis=1), float(measured.clean.mean())
    heads = np.full((config.layers, config.heads), np.nan)
    for name, effect in zip(measured.names[: measured.heads], effects, strict=False):
        layer, head = name.removeprefix("head ").split(".")
        heads[int(layer), int(head)] = effect
    mlps = effects[measured.heads :]
    scale = 100.0 / clean if clean > 0 else np.nan  # of a negative one a loss would be a gain
    return {
        "clean": clean,
        "heads": heads,
        "mlps": mlps,
        "heads_percent": heads * scale,
        "mlps_percent": mlps * scale,
        "robustness": dataclasses.asdict(robustness(heads, mlps, clean, samples=samples)),
    }


def _others(student: Model, teacher: Model, config: CompareConfig) -> dict[str, Model]:
    """Models to put in the student's place: the nulls of the alignment scores."""
    key = jax.random.key(config.seed + 1)
    untrained = create(student.config, key=key, tokenizer=student.tokenizer, name="untrained")
    others = {"untrained_student": untrained}
    source = config.from_scratch
    if source is None and student.name.startswith("builtin:"):
        source = "builtin:from-scratch"
    if source is not None:
        scratch = load(source)
        refuse_other_tokenizer(teacher, scratch)
        others["from_scratch"] = scratch
    return others


def _refuse_other_tokenizer(teacher: Model, other: Model) -> None:
    for model in (teacher, other):
        if model.tokenizer is None:
            raise check.fail(model.name or "model", "a model with a tokenizer", "none in its files")
    refuse_other_tokenizer(teacher, other)


def _loaded(model: str | Model) -> Model:
    return model if isinstance(model, Model) else load(model)


def _name(model: str | Model) -> str:
    return (model.name or "model") if isinstance(model, Model) else model


def _describe(model: Model) -> dict[str, Any]:
    config = model.config
    names = ("family", "layers", "heads", "width", "neurons")
    return {"name": model.name} | {name: getattr(config, name) for name in names}


def _write(comparison: dict[str, Any], config: CompareConfig, out: Path, overwrite: bool) -> None:
    page = compare_page(comparison)  # before anything is written
    started = comparison["settings"]["started"]
    run = runs.start(out, config, config.seed, overwrite=overwrite, started=started)
    for row in comparison["tasks"]:
        scores = {k: v for k, v in row["alignment"].items() if isinstance(v, float)}
        runs.log(run, task=row["name"], **row["behaviour"], **scores)
    files.write_json(out / "comparison.json", comparison)
    files.write_text(out / "report.html", page)
