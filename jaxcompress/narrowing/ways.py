"""Every way from a general model to a narrow one, at equal tokens and equal sizes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxcompress import check, prune
from jaxcompress.data.curriculum import Curriculum, MixtureConfig, mixture
from jaxcompress.io.huggingface import load
from jaxcompress.models import Gates, Model, create
from jaxcompress.models.config import ModelConfig
from jaxcompress.narrowing.settings import METHODS, Narrowing, Network, Texts
from jaxcompress.narrowing.training import fit, folder, held_out, measurements, nats, spaced

__all__ = ["Runs", "narrow"]

# The settings by which training runs of a kind are found again, beside those of all. What the
# names, shapes and rates of a run say is known by them.
_OF_KIND = {
    "plain": ("criterion", "scope", "calibration"),
    "tune": ("lasso",),
    "lasso": ("lasso", "lasso_share", "rate", "criterion", "scope", "calibration"),
    "distil": ("temperature", "alpha"),
}


def narrow(config: Narrowing, texts: Texts, *, progress: bool = True) -> list[Network]:
    """The general model, and narrow ones of every method, size and seed.

    Args:
      config: how.
      texts: of `read`.
      progress: whether to show progress bars.

    Returns:
      Networks: `general` and `full` first, of which nothing was removed.

    Raises:
      ValueError: for unknown methods and criteria, sizes at which nothing is left, and steps that
        the points do not divide, so that fewer would be trained.

    Example:
      >>> narrow(Narrowing(methods=("prune",)), Texts({}, None, ""))
      Traceback (most recent call last):
      ...
      ValueError: methods: expected one of ['attribution', ...], got 'prune'
    """
    _check(config)
    runs = Runs(config, texts, progress)
    general = runs.general()
    found = [Network("general", (0.0, 0.0), 0, general, (runs.before(general),))]
    seeds = range(config.seeds)
    if "full" in config.methods:
        starts = {("full", (0.0, 0.0), seed): general for seed in seeds}
        found += runs.train(starts, "full", config.steps)
    tuned: dict[int, Network] = {}
    if "lasso" in config.methods:
        steps = _penalised(config)
        starts = {("lasso", (0.0, 0.0), seed): general for seed in seeds}
        tuned = {one.seed: one for one in runs.train(starts, "tune", steps, penalty=config.lasso)}
    for size in config.sizes:
        found += _of_size(config, runs, general, tuned, size)
    return found


def _check(config: Narrowing) -> None:
    for name in config.methods:
        check.known("methods", name, METHODS)
    check.integer("points", config.points, 1)
    for name in ("steps",) if config.teacher else ("steps", "teacher_steps"):
        steps = check.integer(name, getattr(config, name), 1)
        check.multiple(name, steps, config.points, "points")
    if "lasso" in config.methods:
        first = _penalised(config)
        if not 0 < first < config.steps or first % config.points:
            expected = f"a share in (0, 1) of {config.steps} steps, a multiple of points"
            got = f"{config.lasso_share}, {first} steps for {config.points} points"
            raise check.fail("lasso_share", expected, got)


def _penalised(config: Narrowing) -> int:
    """Steps of the lasso before the pruning."""
    return round(config.lasso_share * config.steps)


def _of_size(
    config: Narrowing, runs: Runs, general: Model, tuned: Mapping[int, Network], size: Any
) -> list[Network]:
    """Narrow models of one size, by every method."""
    starts: dict[Any, Model] = {}
    cut = runs.pruned(general, size)
    for seed in range(config.seeds):
        key = jax.random.fold_in(jax.random.key(seed), 1)
        starts["attribution", size, seed] = cut
        if "random" in config.methods:
            starts["random", size, seed] = runs.pruned(general, size, key)
        if {"scratch", "distil"} & set(config.methods):
            fresh = _waiting(create(cut.config, key=key, tokenizer=cut.tokenizer))
            starts |= {("scratch", size, seed): fresh, ("distil", size, seed): fresh}
        if seed in tuned:
            starts["lasso", size, seed] = runs.pruned(tuned[seed].model, size)
    found = []
    steps = config.steps - _penalised(config)
    for kind, names in (("plain", {"attribution", "random", "scratch"}), ("distil", {"distil"})):
        chosen = {k: m for k, m in starts.items() if k[0] in names & set(config.methods)}
        teacher = general if kind == "distil" else None
        found += runs.train(chosen, kind, config.steps, teacher=teacher)
    chosen = {k: m for k, m in starts.items() if k[0] == "lasso"}
    return found + runs.train(chosen, "lasso", steps, past=tuned)


class Runs:
    """Training runs on one corpus, each found again where it was left."""

    def __init__(self, config: Narrowing, texts: Texts, progress: bool) -> None:
        self.config, self.texts, self.progress = config, texts, progress
        self.folder, self.measured = folder(config, texts), held_out(config, texts)
        self._sums: dict[int, tuple[Model, Any]] = {}

    def general(self) -> Model:
        """The teacher, loaded or trained on both domains."""
        config = self.config
        if config.teacher is not None:
            if config.mixture != MixtureConfig():
                raise check.fail("mixture", "none with a teacher, which is not trained", "one")
            loaded = load(config.teacher)
            computed = dataclasses.replace(
                loaded.config, dtype=config.precision, remat=config.remat
            )
            return loaded.replace(config=computed)
        model = create(_sizes(config), key=jax.random.key(0), tokenizer=self.texts.tokenizer)
        starts = {("general", (0.0, 0.0), 0): model}
        domains, steps = ("code", "prose"), config.teacher_steps
        order = mixture(
            config.mixture, domains, steps, lambda name: nats(model, self.measured[name])
        )
        return self.train(starts, "general", steps, domains=domains, curriculum=order)[0].model

    def before(self, model: Model) -> dict[str, float]:
        """What is measured of a model before it is trained."""
        rows = {name: nats(model, rows) for name, rows in self.measured.items()}
        return {"tokens": 0.0, **rows}

    def pruned(self, model: Model, size: tuple[float, float], key: Any = None) -> Model:
        """Smaller by attribution, or at random with a key."""
        config = self.config
        if key is not None:
            scores = prune.from_sums(model, {}, "random", key=key)
        else:
            if id(model) not in self._sums:
                rows = spaced(self.texts.rows["code"]["train"], config.calibration)
                cut = np.array_split(
                    rows, max(1, len(rows) // max(config.batch // config.parts, 1))
                )
                batches = [prune.Text(part, np.ones_like(part)) for part in cut]
                wanted = prune.CRITERIA[config.criterion]
                sums = prune.calibrate(model, batches, wanted=wanted, progress=False)
                self._sums[id(model)] = (model, sums)
            scores = prune.from_sums(model, self._sums[id(model)][1], config.criterion)
        neurons = prune.select(
            Gates(neurons=scores.neurons), size[0], scope=config.scope, at_least=1
        )
        width = prune.select(Gates(width=scores.width), size[1])
        return _waiting(prune.shrink(model, Gates(neurons=neurons.neurons, width=width.width)))

    def train(
        self,
        starts: Mapping[Any, Model],
        kind: str,
        steps: int,
        *,
        domains: Iterable[str] = ("code",),
        teacher: Model | None = None,
        penalty: float = 0.0,
        past: Mapping[int, Network] | None = None,
        curriculum: Curriculum | None = None,
    ) -> list[Network]:
        """Trains models, those of one shape together; `past` is what they went through before."""
        found = []
        for shape in dict.fromkeys(model.config for model in starts.values()):
            names = [name for name, model in starts.items() if model.config == shape]
            models = [starts[name] for name in names]
            fast = ("general", "distil", "scratch")
            rates = [
                self.config.teacher_rate if name[0] in fast else self.config.rate for name in names
            ]
            rows = [self.texts.rows[domain]["train"] for domain in domains]
            title = f"{kind}-{'-'.join(f'{share:g}' for share in names[0][1])}"
            settings = [getattr(self.config, name) for name in _OF_KIND.get(kind, ())]
            identity = repr((names, shape, steps, rates, settings)).encode()
            kept = self.folder / f"{title}-{hashlib.sha256(identity).hexdigest()[:8]}"
            params, history = fit(
                models, self.config, rows, rates=rates, steps=steps, measured=self.measured,
                seeds=[name[2] for name in names], teacher=teacher, penalty=penalty,
                curriculum=curriculum, checkpoints=kept, name=title, progress=self.progress,
            )  # fmt: skip
            for i, name in enumerate(names):
                before = past[name[2]].history[-1]["tokens"] if past else 0.0
                first = self.before(models[i]) | {"tokens": before}
                rows_of = [first, *measurements(history, i, self.config, before)]
                model = models[i].replace(params=params[i])
                found.append(Network(name[0], name[1], name[2], model, tuple(rows_of)))
        return found


def _waiting(model: Model) -> Model:
    """With its parameters on the host, until it is its turn."""
    return model.replace(params=jax.device_get(model.params))


def _sizes(config: Narrowing) -> ModelConfig:
    return ModelConfig(
        family="llama", layers=config.layers, heads=config.heads, kv_heads=config.heads,
        head_dim=32, width=config.width, neurons=config.neurons, vocab=config.vocab,
        context=config.context, activation="silu", gated_mlp=True, norm="rmsnorm",
        positions="rope", qkv_bias=False, output_bias=False, mlp_bias=False,
        dtype=config.precision, remat=config.remat,
    )  # fmt: skip
