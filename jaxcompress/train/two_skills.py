"""Networks that know atoms and two composites, and are pruned down to the first composite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.data import parity as data
from jaxcompress.models import MLPConfig
from jaxcompress.train import parity as lab
from jaxcompress.train import population, pulling

__all__ = ["Networks", "TwoSkills"]

_EVERY = 100


@dataclasses.dataclass(frozen=True)
class TwoSkills:
    """How networks are trained and pruned; as published by default.

    Attributes:
      bits: random bits of an example; `size`: of an atom.
      atoms: parts; one half of them makes the skill that is kept, the other half the other.
      widths: neurons of each of two hidden layers.
      tuned_width: which of them is tuned, and pruned by other criteria; left out, the largest.
      steps: of training on all tasks, a multiple of 100; `tuning`: of tuning with a penalty.
      recovery: of training after pruning; `recovery_batch`: examples of its steps.
      batch: examples of each task in a step; `rate`: of Adam.
      tuning_batch: examples of a step of tuning on one task; left out, as many as of all tasks.
      scored: examples that neurons are scored on; `test`: that accuracies are measured on.
      kept: numbers of neurons that stay; `threshold`: accuracy at which a skill is there.
      seeds: networks of each width.
    """

    bits: int = 18
    atoms: int = 6
    size: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    steps: int = 40_000
    tuned_width: int | None = None
    tuning: int = 10_000
    tuning_batch: int | None = None
    recovery: int = 1000
    recovery_batch: int = 5000
    batch: int = 2000
    rate: float = 1e-3
    scored: int = 2000
    test: int = 5000
    kept: tuple[int, ...] = (4, 8, 12, 16, 20, 24, 32, 40, 50, 60, 80, 100, 128)
    threshold: float = 0.98
    seeds: int = 5

    @property
    def wide(self) -> int:
        """The width that is tuned.

        Example:
          >>> TwoSkills().wide, TwoSkills(tuned_width=256).wide
          (1024, 256)
        """
        return max(self.widths) if self.tuned_width is None else self.tuned_width


class Networks:
    """The networks of all widths and seeds; `wide` are the members of the width that is tuned.

    Args:
      config: sizes.
      checkpoints: folder with which an interrupted run of these settings goes on; empty: none.
      progress: whether to show progress bars.

    Raises:
      ValueError: before any training, for whatever of the settings cannot be.

    Example:
      >>> tiny = TwoSkills(bits=4, atoms=2, size=1, widths=(2, 4), kept=(2, 8), seeds=1)
      >>> networks = Networks(tiny)
      >>> networks.parity.names, networks.pair, networks.wide.tolist()
      (('0', '1', '0', '1'), (2, 3), [1])
    """

    def __init__(self, config: TwoSkills, *, checkpoints: str = "", progress: bool = True) -> None:
        for name in ("steps", "tuning"):
            if check.integer(name, getattr(config, name), 0) % _EVERY:
                raise check.fail(name, f"a multiple of {_EVERY}", getattr(config, name))
        for name in ("recovery", "batch", "scored", "test"):
            check.integer(name, getattr(config, name), int(name != "recovery"))
        for name in ("widths", "kept"):
            if not getattr(config, name):
                raise check.fail(name, "at least one", "none")
        for width in config.widths:
            check.integer("widths", width, 1)
        if config.wide not in config.widths:
            raise check.fail("tuned_width", f"one of {config.widths}", config.tuned_width)
        for number in config.kept:
            check.integer("kept", number, 2, 2 * max(config.widths))
        half = check.integer("atoms", config.atoms, 2) // 2
        codes = [[i] for i in range(config.atoms)]
        codes += [list(range(half)), list(range(half, config.atoms))]
        self.parity = data.compositional(config.bits, config.atoms, config.size, codes)
        check.integer("recovery_batch", config.recovery_batch, len(codes))
        if config.tuning_batch is not None:
            check.integer("tuning_batch", config.tuning_batch, len(codes))
        self.config, self.checkpoints, self.progress = config, checkpoints, progress
        self.pair = (len(codes) - 2, len(codes) - 1)
        self.shape = MLPConfig(self.parity.inputs, max(config.widths), 3)
        self.members = population.grid(width=config.widths, seed=range(config.seeds))
        self.keys = jax.random.split(jax.random.key(0), len(self.members["seed"]))
        self.wide = np.flatnonzero(self.members["width"] == config.wide)
        self.start, self.gates = lab.initial(self.shape, self.keys, self.members["width"])

    def learned(self) -> Any:
        """Parameters of all members after training on all tasks."""
        return self._train("train", self.config.steps, slice(None), self.start)

    def tuned(
        self, name: str, params: Any, penalty: Callable[[Any], Any], strength: float, task: Any,
        eps: float = 1e-8,
    ) -> Any:  # fmt: skip
        """Wide members after more training under a penalty, on a task, or on all (`None`)."""
        count = len(self.parity.codes)
        share = jnp.ones(count) if task is None else jax.nn.one_hot(task, count)
        hyper = {"weights": jnp.tile(share[None], (len(self.wide), 1))}
        hyper["penalty"] = jnp.full(len(self.wide), strength)
        options = {"penalty": penalty, "eps": eps, "hyper": hyper, "steps": self.config.tuning}
        if task is not None and self.config.tuning_batch is not None:
            options["batch"] = self.config.tuning_batch
        return self._train(name, which=self.wide, params=params, **options)

    def pruned(
        self, name: str, criterion: str, which: Any, params: Any
    ) -> tuple[list[dict[str, Any]], Any]:
        """Rows of `train.pulling.as_rows` for the first skill, and the gates."""
        config, way = self.config, f"{name}, {criterion.replace('_', ' ')}"
        found = pulling.pull(
            self.parity, self.shape, params, self.gates[which], kept=config.kept,
            task=self.pair[0], measured=self.pair, criterion=criterion, keys=self.keys[which],
            scored=config.scored, test=config.test, recovery=config.recovery,
            batch=config.recovery_batch, rate=config.rate,
            checkpoints=self._folder(way), progress=self.progress,
        )  # fmt: skip
        chosen = {key: values[which] for key, values in self.members.items()}
        return pulling.as_rows(found, chosen, names=("kept", "other"), way=way), found["gates"]

    def located(self, name: str, params: Any) -> list[dict[str, Any]]:
        """Rows of `train.pulling.locality` of both skills in the wide members."""
        found = pulling.locality(
            self.parity, self.shape, params, self.gates[self.wide], tasks=self.pair,
            keys=self.keys[self.wide], threshold=self.config.threshold,
            scored=self.config.scored, test=self.config.test,
        )  # fmt: skip
        return [{"network": name} | row for row in found]

    def _train(self, name: str, steps: int, which: Any, params: Any, **options: Any) -> Any:
        hyper = {"gates": self.gates[which]} | options.pop("hyper", {})
        options.setdefault("batch", self.config.batch * len(self.parity.codes))
        return lab.train(
            self.parity, self.shape, params=params, keys=self.keys[which], hyper=hyper, steps=steps,
            every=_EVERY, rate=self.config.rate, checkpoints=self._folder(name),
            name=name, progress=self.progress, **options,
        )[0]  # fmt: skip

    def _folder(self, name: str) -> Any:
        return population.folder(self.checkpoints, self.config, name)
