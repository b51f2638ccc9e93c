"""How fast a narrow model learns again what it was not to know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.narrowing.settings import Narrowing, Network, Texts
from jaxcompress.narrowing.training import fit, folder, held_out, measurements, spaced

__all__ = ["relearn"]


def relearn(
    networks: Iterable[Network],
    config: Narrowing,
    texts: Texts,
    *,
    steps: int,
    rates: tuple[float, ...],
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Trains narrow models on prose, each with every rate, and keeps the best rate of each.

    The rate is chosen on the validation split, at the last step; what is returned is of the test
    split. All networks get the same rates, the untouched one too, and the same rows.

    Args:
      networks: of `narrow`.
      config: as they were made with.
      texts: likewise.
      steps: of each, a multiple of `config.points`.
      rates: that are tried.
      progress: whether to show progress bars.

    Returns:
      For each network rows of `tokens`, `prose` and `code` (test, nats per token), with `method`,
      `size`, `seed`, `rate`, and `edge`, whether the best rate is the lowest or highest tried.

    Raises:
      ValueError: if there are no rates, and for steps that the points do not divide.

    Example:
      >>> relearn([], Narrowing(), Texts({}, None, ""), steps=1, rates=())
      Traceback (most recent call last):
      ...
      ValueError: rates: expected at least one, got none
    """
    if not rates:
        raise check.fail("rates", "at least one", "none")
    networks, found = list(networks), []
    for shape in dict.fromkeys(one.model.config for one in networks):
        group = [one for one in networks if one.model.config == shape]
        measured = held_out(config, texts) | {
            "validation": jnp.asarray(spaced(texts.rows["prose"]["validation"], config.measured))
        }
        names = [(one.method, one.size, one.seed) for one in group]
        identity = _identity([one.model.params for one in group], names, steps, rates, shape)
        members = [(one, rate) for one in group for rate in rates]
        _, history = fit(
            [one.model for one, _ in members], config, [texts.rows["prose"]["train"]],
            rates=[rate for _, rate in members], steps=steps, measured=measured,
            seeds=[one.seed for one, _ in members], name="relearn", progress=progress,
            checkpoints=folder(config, texts) / f"relearn-{identity}",
        )  # fmt: skip
        for i, one in enumerate(group):
            last = history["validation"][-1, i * len(rates) : (i + 1) * len(rates)]
            best = int(np.nanargmin(last))
            edge = rates[best] in (min(rates), max(rates)) and len(rates) > 1
            label = {"method": one.method, "size": list(one.size), "seed": one.seed}
            label |= {"rate": rates[best], "edge": edge}
            first = {k: v for k, v in one.history[-1].items() if k != "tokens"}
            rows = [{"tokens": 0.0, **first}]
            rows += measurements(history, i * len(rates) + best, config, 0.0)
            found += [label | row for row in rows]
    return found


def _identity(params: Any, *settings: Any) -> str:
    """Known again are runs from the same weights only, however these were made."""
    content = hashlib.sha256(repr(settings).encode())
    for leaf in jax.tree.leaves(params):
        content.update(np.asarray(leaf).tobytes())
    return content.hexdigest()[:12]
