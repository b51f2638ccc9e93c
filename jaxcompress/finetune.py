"""Training from end to end: a student distilled from its teacher, or an adapter on a model."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax

from jaxcompress import check, files, lora, prune, train
from jaxcompress import config as configs
from jaxcompress.data.curriculum import Curriculum, MixtureConfig, mixture
from jaxcompress.distill.activations import ActivationsConfig
from jaxcompress.examples import Data, batches, together
from jaxcompress.fitting import LoggerName, fitted
from jaxcompress.gated import mean_loss
from jaxcompress.io import export, peft
from jaxcompress.io.huggingface import load, resolve
from jaxcompress.io.provenance import carried, record_of
from jaxcompress.lora.adapters import Adapter
from jaxcompress.models import Model
from jaxcompress.objectives import SequencesConfig, adaptation, distillation
from jaxcompress.tokenized import refuse_other_tokenizer

__all__ = [
    "DistillConfig",
    "LoraConfig",
    "adapt",
    "adapted",
    "distil",
    "distilled",
    "every_other_layer",
]


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """How a student is trained.

    Attributes:
      loss: forward_kl, reverse_kl, jsd, total_variation, top_k_kl, or cross_entropy without a
        teacher.
      temperature: of forward_kl and reverse_kl.
      beta: of jsd, the teacher's share of the mixture.
      k: of top_k_kl, how many of the teacher's most likely tokens are told apart.
      alpha: the teacher's share; the rest is cross-entropy with the data.
      activations: losses on what both compute on the way, that are added.
      sequences: updates on what the student (on-policy) or the teacher (sequence-level) says.
      chunk: tokens whose logits exist at once, to save memory; 0 for all. Left out, 64 for
        vocabularies of 16,384 and more.
      steps: updates.
      batch: rows of an update.
      accumulate: parts that a batch is cut into, to save memory.
      precision: float32, or bfloat16 with float32 master weights.
      mesh: devices that the rows of a batch, and those that the parameters are spread over.
      seed: of the choice of rows.
      optimizer: rate, warm-up and the like.
      data: what is trained on; the same tasks or text with other prompts or rows are measured on.
      mixture: in which order its tasks, or texts, are shown, and how often.
      form: of the directory, see `io.save`; left out, `stock` where that is possible.
      checkpoints: folder, from which a run that was stopped goes on.
      run: run folder for the settings, the versions and the metrics of every 50 updates.
      loggers: where else these go: tensorboard (a folder within the run's) or wandb.
    """

    loss: str = "forward_kl"
    temperature: float = 2.0
    beta: float = 0.5
    k: int = 50
    alpha: float = 0.5
    activations: ActivationsConfig = dataclasses.field(default_factory=ActivationsConfig)
    sequences: SequencesConfig = dataclasses.field(default_factory=SequencesConfig)
    chunk: int | None = None
    steps: int = 500
    batch: int = 32
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    mesh: tuple[int, int] = (1, 1)
    seed: int = 0
    optimizer: train.OptimizerConfig = dataclasses.field(
        default_factory=functools.partial(train.OptimizerConfig, warmup=20)
    )
    data: Data = dataclasses.field(default_factory=functools.partial(Data, count=2048))
    mixture: MixtureConfig = dataclasses.field(default_factory=MixtureConfig)
    form: export.Form | None = None
    checkpoints: str | None = None
    run: str | None = None
    loggers: tuple[LoggerName, ...] = ()


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """How an adapter is trained.

    Attributes:
      variant: lora, rslora, dora or pissa.
      targets: globs over parameter paths.
      rank: of every matrix.
      alpha: the edit is multiplied by alpha / rank.
      ratio: how much faster B learns than A (LoRA+); 1 is ordinary.
      chunk: as in `DistillConfig`.
      steps: updates.
      batch: rows of an update.
      mesh: as in `DistillConfig`.
      seed: of the start and the choice of rows.
      optimizer: rate, warm-up and the like.
      data: as in `DistillConfig`.
      mixture: as in `DistillConfig`.
      merged: folder for the model with the adapter merged in; left out, none is written.
      checkpoints: folder, from which a run that was stopped goes on.
      run: run folder for the settings, the versions and the metrics of every 50 updates.
      loggers: where else these go: tensorboard (a folder within the run's) or wandb.
    """

    variant: Literal["lora", "rslora", "dora", "pissa"] = "lora"
    targets: tuple[str, ...] = ("*/attn/query/kernel", "*/attn/value/kernel")
    rank: int = 8
    alpha: float = 16.0
    ratio: float = 1.0
    chunk: int | None = None
    steps: int = 300
    batch: int = 32
    mesh: tuple[int, int] = (1, 1)
    seed: int = 0
    optimizer: train.OptimizerConfig = dataclasses.field(
        default_factory=functools.partial(train.OptimizerConfig, warmup=20, weight_decay=0.0)
    )
    data: Data = dataclasses.field(default_factory=functools.partial(Data, count=2048))
    mixture: MixtureConfig = dataclasses.field(default_factory=MixtureConfig)
    merged: str | None = None
    checkpoints: str | None = None
    run: str | None = None
    loggers: tuple[LoggerName, ...] = ()


def distil(
    teacher: str, student: str, out: str | Path, config: DistillConfig, *, overwrite: bool = False
) -> dict[str, Any]:
    """Trains a student to say what its teacher says, and writes it.

    Args:
      teacher: Hugging Face id, directory or `builtin:<name>`.
      student: likewise, such as a model that `prune` has made smaller.
      out: directory for the trained student.
      config: how.
      overwrite: replace a model that is there.

    Returns:
      `loss`: held-out nats of the teacher, and of the student before and after.

    Raises:
      ValueError: for vocabularies that differ, encoders without a head, bad settings, and a loss
        that is no longer finite; whatever can be known before the training is found before it.

    Example:
      >>> distil("builtin:teacher", "builtin:student", "out", DistillConfig())
      Traceback (most recent call last):
      ...
      ValueError: data: expected either tasks or text, got neither
    """
    files.refuse_nonempty(out, overwrite, marker=export.MARKER)
    train.optimizer(config.optimizer, config.steps)  # refuses what does not fit
    whole, small = load(teacher), load(student)
    form = export.settled(small.config, config.form)
    nats = _held_out(small, config.data)
    done = distilled(whole, small, config)
    models = {"teacher": whole, "before": small, "after": done}
    record = {
        "teacher": teacher,
        "student": student,
        "recipe": configs.to_dict(config),
        "loss": {name: nats(model) for name, model in models.items()},
        **carried(student, record_of(resolve(student))),
    }
    export.save(done, out, form=form, overwrite=overwrite, compression=record)
    return record


def distilled(
    teacher: Model,
    student: Model,
    config: DistillConfig,
    *,
    extra: Callable[[Any, Any], jax.Array] | None = None,
    progress: bool = True,
) -> Model:
    """The student after training; as `distil`, in memory.

    Args:
      teacher: not run if nothing of it is asked for.
      student: of the same vocabulary, with a tokenizer.
      config: how.
      extra: `(params, batch) -> nats`, a loss that is added, such as those of `distill.mechanisms`.
      progress: whether to show a progress bar.

    Raises:
      ValueError: as `distil`.

    Example:
      >>> model = load("builtin:student")
      >>> config = DistillConfig(steps=21, batch=2, data=Data(tasks=("months",), count=2))
      >>> distilled(model, model, config, progress=False).config.layers
      2
    """
    refuse_other_tokenizer(prune.speaking(teacher), prune.speaking(student))
    start, loss = distillation(student, teacher, config, extra)
    order, known = _order(student, config), {"extra": extra is not None}
    found, sizes = together(student, config.data)
    trained = fitted(
        start, loss, found, config, "distil", teacher, known,
        curriculum=order, sizes=sizes, progress=progress,
    )  # fmt: skip
    return student.replace(params=trained["student"])


def every_other_layer(teacher: Model) -> Model:
    """A student to be: layers 0, 2, 4, ... of a teacher, with its embeddings and head.

    Raises:
      ValueError: for a teacher whose layers differ in size.

    Example:
      >>> every_other_layer(load("builtin:teacher")).config.layers
      2

    Reference: Sanh et al. 2019 (arXiv 1910.01108), section 2.
    """
    if not teacher.config.stacked:
        raise check.fail("teacher", "layers of one size", "layers of different sizes")
    blocks = jax.tree.map(lambda leaf: leaf[::2], teacher.params["blocks"])
    shape = dataclasses.replace(teacher.config, layers=-(-teacher.config.layers // 2))
    return teacher.replace(config=shape, params={**teacher.params, "blocks": blocks})


def adapt(
    source: str, out: str | Path, config: LoraConfig, *, overwrite: bool = False
) -> dict[str, Any]:
    """Trains a low-rank adapter on a model and writes it as PEFT does.

    Args:
      source: Hugging Face id, directory or `builtin:<name>`.
      out: directory for the adapter.
      config: how.
      overwrite: replace an adapter, and a merged model, that is there.

    Returns:
      `loss`: held-out nats before and after; `trained`: parameters of the adapter.

    Raises:
      ValueError: for globs that match nothing, encoders without a head, a base that PEFT has no
        names for, bad settings, and a loss that is no longer finite.

    Example:
      >>> adapt("builtin:student", "out", LoraConfig(data=Data(tasks=("ioi",)), targets=("*/x",)))
      Traceback (most recent call last):
      ...
      ValueError: targets: expected globs that match a matrix, got '*/x'...
    """
    files.refuse_nonempty(out, overwrite, marker=peft.MARKER)
    train.optimizer(config.optimizer, config.steps)
    if config.merged is not None:
        files.refuse_nonempty(config.merged, overwrite, marker=export.MARKER)
        if Path(config.merged).resolve() == Path(out).resolve():
            raise check.fail("merged", "another directory than the adapter's", config.merged)
    model = load(source)
    form, nats = export.settled(model.config), _held_out(model, config.data)
    peft.manifest(model, _blank(model, config))
    adapter = adapted(model, config)
    done = model.replace(params=lora.merge(model.params, adapter))
    record = {"teacher": source, "recipe": configs.to_dict(config)}
    record |= {
        "loss": {"before": nats(model), "after": nats(done)},
        **carried(source, record_of(resolve(source))),
    }
    peft.save_adapter(model, adapter, out, overwrite=overwrite, compression=record)
    if config.merged is not None:
        export.save(done, config.merged, form=form, overwrite=overwrite, compression=record)
    trained = jax.tree.leaves(lora.trainable(adapter))
    return record | {"trained": sum(leaf.size for leaf in trained)}


def adapted(model: Model, config: LoraConfig, *, progress: bool = True) -> Adapter:
    """The trained adapter; as `adapt`, in memory.

    Args:
      model: with a tokenizer; its parameters stay as they are.
      config: how.
      progress: whether to show a progress bar.

    Raises:
      ValueError: as `adapt`.

    Example:
      >>> config = LoraConfig(steps=21, batch=2, data=Data(tasks=("months",), count=2))
      >>> adapter = adapted(load("builtin:student"), config, progress=False)
    """
    adapter = _blank(prune.speaking(model), config)
    start, loss = lora.trainable(adapter), adaptation(model, adapter, config.chunk, config.mesh[0])
    order, (found, sizes) = _order(model, config), together(model, config.data)
    trained = fitted(
        start, loss, found, config, "lora", model,
        curriculum=order, sizes=sizes, progress=progress,
    )  # fmt: skip
    return lora.with_trained(adapter, trained)


def _blank(model: Model, config: LoraConfig) -> Adapter:
    """The adapter before it is trained."""
    return lora.init(
        model.params, config.targets, rank=config.rank, alpha=config.alpha,
        variant=config.variant, key=jax.random.key(config.seed),
    )  # fmt: skip


def _order(model: Model, config: DistillConfig | LoraConfig) -> Curriculum | None:
    """In which order tasks or texts are shown; hard is what the model at first loses most on."""
    data = config.data
    kind, names = ("tasks", data.tasks) if data.tasks else ("text", data.texts)

    def nats(name: str) -> float:
        return mean_loss(model, *batches(model, dataclasses.replace(data, **{kind: (name,)})))

    return mixture(config.mixture, names, config.steps, nats)


def _held_out(model: Model, data: Data) -> Callable[[Model], float]:
    """Nats of such a model on prompts or rows that are not trained on; drawn at once."""
    smaller = dataclasses.replace(data, count=min(data.count, 256))
    found, loss = batches(prune.speaking(model), smaller, held_out=True)

    def nats(model: Model) -> float:
        value = mean_loss(model, found, loss)
        if not math.isfinite(value):
            raise check.fail("held-out loss", "a finite number", value)
        return value

    return nats
