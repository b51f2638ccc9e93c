"""Learning dictionaries of activations, several at once; resumable to the bit, as all training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcompress import check, runs
from jaxcompress.models.autoencoder import KINDS, Autoencoder, create_autoencoder
from jaxcompress.sae import activations, losses
from jaxcompress.train.loop import fit
from jaxcompress.train.state import State
from jaxcompress.train.step import Step

__all__ = ["Dictionary", "fit_dictionaries"]


@dataclasses.dataclass(frozen=True)
class Dictionary:
    """How dictionaries are learned.

    Attributes:
      features: directions of each.
      kind: `topk`, `relu` or `jumprelu`.
      k: active features of a token, of `topk`.
      coefficient: of sparsity, of the other kinds; it rises from 0 at the start.
      steps: updates.
      batch: tokens of an update.
      rate: of Adam; it falls to 0 over the last fifth of the steps.
      clip: norm that the gradient of a dictionary is cut to.
      warmup: share of the steps over which `coefficient` rises.
      patience: tokens without activity after which a feature counts as silent.
    """

    features: int = 1024
    kind: str = "topk"
    k: int = 16
    coefficient: float = 5.0
    steps: int = 2000
    batch: int = 1024
    rate: float = 1e-3
    clip: float = 1.0
    warmup: float = 0.05
    patience: int = 100_000

    def __post_init__(self) -> None:
        for name in ("features", "k", "steps", "batch", "patience"):
            check.integer(name, getattr(self, name), 1)
        check.known("kind", self.kind, KINDS)
        if self.kind == "topk":
            check.integer("k", self.k, 1, self.features)
        if not 0 <= self.coefficient < np.inf:
            raise check.fail("coefficient", "a number that is not negative", self.coefficient)
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < np.inf:
                raise check.fail(name, "a positive number", getattr(self, name))
        if not 0 <= self.warmup <= 1:
            raise check.fail("warmup", "a share of the steps, in [0, 1]", self.warmup)


def fit_dictionaries(
    x: Any,
    settings: Dictionary,
    keys: Any,
    *,
    checkpoints: str | Path | None = None,
    run: runs.Run | None = None,
    name: str = "dictionaries",
    progress: bool = True,
) -> Autoencoder:
    """Dictionaries of the same activations from different starts, in one program.

    All see the same tokens in the same order, drawn by the first key. Activations are scaled to a
    mean |x|^2 of the width while they are learned, and the scale is in the result.

    Args:
      x: (token, width) activations, see `sae.activations.stream`.
      settings: how.
      keys: (member,) typed PRNG keys.
      checkpoints: as in `fit`.
      run: as in `fit`.
      name: as in `fit`.
      progress: as in `fit`.

    Returns:
      An `Autoencoder` whose arrays have a leading member axis; `tree.unstack` takes it apart.

    Raises:
      ValueError: for activations that are not finite or not (token, width), keys that are not
        (member,), and as `fit`.

    Reference:
      Gao et al. 2024 (arXiv 2406.04093); Conerly et al. 2024, Update on how we train SAEs.

    Example:
      >>> x = np.eye(4, dtype=np.float32)[np.arange(64) % 4]
      >>> found = fit_dictionaries(x, Dictionary(features=8, k=1, steps=4, batch=8),
      ...                          jax.random.split(jax.random.key(0), 2), progress=False)
      >>> found.decoder.shape
      (2, 8, 4)
    """
    x = np.asarray(x, np.float32)
    if x.ndim != 2:
        raise check.fail("x", "activations (token, width)", x.shape)
    if np.ndim(keys) != 1 or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        hint = "Make some with jax.random.split(jax.random.key(seed), members)"
        raise check.fail("keys", "typed PRNG keys (member,)", np.shape(keys), hint)
    scale = activations.scale(x)
    x = x * np.float32(scale)
    width, mean = x.shape[1], x.mean(axis=0)
    k = settings.k if settings.kind == "topk" else None

    def start(key: Any) -> Autoencoder:
        kind, features = settings.kind, settings.features
        return create_autoencoder(width, features, key, kind=kind, k=k, mean=mean)

    optimizer = _optimizer(settings)
    state = _start(jax.vmap(start)(keys), optimizer, keys[0])
    about = dataclasses.asdict(settings)
    state = fit(
        state, _step(settings, optimizer, width), x, settings.steps, batch=settings.batch,
        checkpoints=checkpoints, about=about, run=run, name=name, progress=progress,
    )  # fmt: skip
    return state.params["dictionary"].rescaled(scale)


def _optimizer(settings: Dictionary) -> optax.GradientTransformation:
    """Adam, its rate falling to 0 over the last fifth of the steps, behind a clipped gradient."""
    last = max(settings.steps // 5, 1)
    rate = optax.linear_schedule(settings.rate, 0.0, last, settings.steps - last)
    return optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(rate))


def _start(members: Autoencoder, optimizer: optax.GradientTransformation, key: Any) -> State:
    """Dictionaries that nobody has learned, and for each feature tokens since it was active."""
    silent = jnp.zeros(members.encoder_bias.shape, jnp.int32)
    params = {"dictionary": members, "silent": silent}
    begin: Any = optimizer.init
    return State(params, jax.vmap(begin)(members), jnp.zeros((), jnp.int32), key)


def _step(settings: Dictionary, optimizer: optax.GradientTransformation, width: int) -> Step:
    """The update of all members; each has its own gradient norm and its own silent features."""
    loss = _loss(settings, width)

    def member(dictionary: Any, opt_state: Any, silent: Any, x: Any, step: Any, revive: Any) -> Any:
        of = jax.value_and_grad(loss, has_aux=True)
        long = silent >= settings.patience
        (value, metrics), slope = of(dictionary, x, long, step, revive)
        active = metrics.pop("active")
        updates, opt_state = optimizer.update(slope, opt_state, dictionary)
        silent = jnp.where(active, 0, jnp.minimum(silent + len(x), settings.patience))
        metrics = metrics | {"loss": value, "silent": (silent >= settings.patience).mean()}
        return optax.apply_updates(dictionary, updates), opt_state, silent, metrics

    def step(state: State, x: Any) -> tuple[State, dict[str, Any]]:
        dictionary, silent = state.params["dictionary"], state.params["silent"]
        revive = (silent >= settings.patience).any()
        every = jax.vmap(member, in_axes=(0, 0, 0, None, None, None))
        dictionary, opt_state, silent, metrics = every(
            dictionary, state.opt_state, silent, x, state.step, revive
        )
        params = {"dictionary": dictionary, "silent": silent}
        state = dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1)
        return state, jax.tree.map(jnp.mean, metrics)

    return step


def _loss(settings: Dictionary, width: int) -> Callable[..., Any]:
    """`(dictionary, x, silent, step, revive) -> (scalar, metrics)`."""
    aux_k = min(max(width // 2, 1), settings.features)
    rise = max(settings.warmup * settings.steps, 1.0)

    def loss(dictionary: Any, x: Any, silent: Any, step: Any, revive: Any) -> Any:
        if settings.kind == "topk":
            return losses.topk(dictionary, x, silent=silent, aux_k=aux_k, revive=revive)
        now = settings.coefficient * jnp.minimum((step + 1) / rise, 1.0)
        of = losses.l1 if settings.kind == "relu" else losses.jumprelu
        return of(dictionary, x, coefficient=now)

    return loss
