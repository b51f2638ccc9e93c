"""What narrowing is asked and what it gives: settings, texts, networks."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import numpy as np

from jaxcompress.data.curriculum import MixtureConfig

__all__ = ["METHODS", "Narrowing", "Network", "Rows", "Texts"]

METHODS = ("full", "attribution", "random", "lasso", "distil", "scratch")

Rows = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Narrowing:
    """How a general model is made, and how it is narrowed.

    Attributes:
      teacher: Hugging Face id or directory; left out, a Llama of the sizes below is trained.
      code: folder of text files to keep; left out, the code of the standard library.
      prose: folder of text files to forget; left out, the prose of the standard library.
      only: modules of the standard library; none is all of it.
      vocab: tokens of the byte pairs, if there is no teacher.
      layers: of the general model, which has heads of 32, if there is no teacher.
      heads: of a layer.
      width: of the residual stream.
      neurons: of a layer.
      context: tokens of a row.
      batch: rows of a step.
      parts: that a step is cut into, to save memory.
      together: networks that are trained, and on the device, at a time; left out, all of a shape.
      precision: of the computation; parameters and optimizer stay in float32.
      remat: compute activations twice instead of keeping them.
      teacher_steps: of the general model, a multiple of `points`.
      mixture: when the general model is shown code and prose, in this order, and how often; left
        out, half of the rows of every step are of each.
      teacher_rate: its learning rate, and that of students and of training from scratch.
      methods: from `METHODS`.
      sizes: (share of neurons, share of residual channels) that are removed.
      steps: of every narrow model, those of `lasso` before the pruning included; both parts are
        multiples of `points`.
      rate: learning rate of models that come from the general one.
      criterion: of attribution, see `prune.CRITERIA`.
      scope: rank the neurons of all layers together, or of each by itself, which leaves one shape.
      calibration: rows of code that attribution looks at.
      lasso: weight of the sum of the neurons' norms.
      lasso_share: of the steps that are spent with the penalty, before the pruning.
      temperature: of distillation.
      alpha: the teacher's share of the distillation loss.
      seeds: repeats, with other rows, draws of `random`, and beginnings; the teacher is one.
      points: measurements of a training run.
      measured: rows of each domain that are measured on, all of them held out.
      work: folder in which training runs are kept.
    """

    teacher: str | None = None
    code: str | None = None
    prose: str | None = None
    only: tuple[str, ...] = ()
    vocab: int = 4096
    layers: int = 4
    heads: int = 4
    width: int = 128
    neurons: int = 512
    context: int = 64
    batch: int = 32
    parts: int = 1
    together: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    teacher_steps: int = 496
    mixture: MixtureConfig = dataclasses.field(default_factory=MixtureConfig)
    teacher_rate: float = 3e-3
    methods: tuple[str, ...] = METHODS
    sizes: tuple[tuple[float, float], ...] = ((0.5, 0.2), (0.8, 0.5), (0.95, 0.5))
    steps: int = 80
    rate: float = 1e-3
    criterion: str = "taylor_batch"
    scope: Literal["global", "layer"] = "layer"
    calibration: int = 256
    lasso: float = 1e-3
    lasso_share: float = 0.5
    temperature: float = 2.0
    alpha: float = 0.5
    seeds: int = 1
    points: int = 8
    measured: int = 128
    work: str = "runs/narrowing"


@dataclasses.dataclass(frozen=True)
class Texts:
    """Rows of tokens by domain (`code`, `prose`) and split, and where they come from.

    Attributes:
      rows: (row, position) integers by domain and split.
      tokenizer: that made them.
      report: what the corpus holds and what was left out.
    """

    rows: Rows
    tokenizer: Any
    report: str


@dataclasses.dataclass(frozen=True)
class Network:
    """A narrow model with its history.

    Attributes:
      method: one of `METHODS`, or `general` for the teacher; `full` is the teacher trained on code
        for as many tokens as the others.
      size: what was removed, (neurons, channels).
      seed: of the repeat.
      model: trained, a `models.Model`.
      history: rows of `tokens` of code seen so far, those before the pruning included, and held-out
        nats per token of `code` and of `prose`.
    """

    method: str
    size: tuple[float, float]
    seed: int
    model: Any
    history: tuple[dict[str, float], ...]

    @property
    def parameters(self) -> tuple[int, int]:
        """How many, without and with the token embedding.

        Example:
          >>> from jaxcompress.io import load
          >>> Network("general", (0.0, 0.0), 0, load("builtin:student"), ()).parameters
          (271360, 356864)
        """
        count = sum(leaf.size for leaf in jax.tree.leaves(self.model.params))
        outside = self.model.params["embed"]["tokens"].size
        outside += 0 if self.model.config.tied else outside
        return count - outside, count
