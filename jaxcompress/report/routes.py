"""The route of an adapter's effect: where its directions are, and what carries it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcompress import lora
from jaxcompress.lora import spectra
from jaxcompress.lora.trace import rows as direction_rows
from jaxcompress.report.grids import grids
from jaxcompress.report.numbers import NA, number, percent
from jaxcompress.report.readings import least
from jaxcompress.report.sections import Section
from jaxcompress.tasks.prompts import Prompts

__all__ = ["carried_table", "route_map", "strongest_directions"]


def route_map(model: Any, route: lora.Route, prompts: Prompts) -> bytes:
    """Heat maps: what closing the directions costs, what heads and MLPs carry, how heads change.

    Args:
      model: the base.
      route: of an adapter, from `lora.trace`.
      prompts: to patch on.

    Returns:
      A PNG.

    Example:
      >>> import jax
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> model = create(config, key=jax.random.key(0))
      >>> adapter = lora.init(model.params, ["*/up/kernel"], rank=1, alpha=1, key=jax.random.key(1))
      >>> row = np.ones((1, 2), np.int32)
      >>> prompts = Prompts(row, row, row, row[:, 0], row[:, :1], 2 * row[:, :1])
      >>> route_map(model, lora.trace(model, prompts, adapter, steps=1), prompts)[1:4]
      b'PNG'
    """
    names = {_short(path): np.maximum(loss, 0) for path, loss in route.loss.items()}
    lost = np.stack([value.sum(axis=-1) for value in names.values()], axis=-1)
    carried = [
        lora.carriers(model, prompts, route.adapter, over=over) for over in ("heads", "mlps")
    ]
    heads, mlps = (-np.asarray(one.through).mean(axis=-1) for one in carried)
    changes = lora.head_changes(model, prompts, route.adapter)
    panels = {
        "lost with directions (nats)": lost,
        "carried by heads (nats)": heads,
        "by MLPs (nats)": mlps[:, None],
        "change of QK": changes.qk,
        "change of OV": changes.ov,
    }
    columns = {"lost with directions (nats)": list(names), "by MLPs (nats)": [""]}
    return grids(panels, columns=columns)


def _short(path: str) -> str:
    """`attn/query` for `blocks/attn/query/kernel`."""
    return path.removeprefix("blocks/").removesuffix("/kernel")


def strongest_directions(model: Any, route: lora.Route, *, count: int = 10) -> Section:
    """The directions that cost most when closed, with the tokens they write or read.

    Args:
      model: the base, with a tokenizer.
      route: of an adapter, from `lora.trace`.
      count: rows.

    Example:
      >>> import jax
      >>> from jaxcompress.io.huggingface import load
      >>> model = load("builtin:student")
      >>> adapter = lora.init(model.params, ["*/up/*"], rank=1, alpha=1, key=jax.random.key(0))
      >>> zeros = {path: np.zeros(leaf["b"].shape[:-1]) for path, leaf in adapter.leaves.items()}
      >>> wide = {path: zero[..., None] for path, zero in zeros.items()}
      >>> route = lora.Route(lora.turned(adapter), 0, 0, wide, wide, zeros, zeros, zeros)
      >>> strongest_directions(model, route, count=1).rows[0][0]
      'mlp/up, layer 0, direction 0'
    """
    named = spectra.tokens(model.config, model.params, route.adapter, count=4)
    intruders = lora.intruders(model.params, route.adapter)
    cells = []
    for row in direction_rows(route)[:count]:
        place = (row["layer"], row["direction"])
        ends = [NA, NA]
        if row["path"] in named:
            ends = [model.tokenizer.decode(end) for end in np.asarray(named[row["path"]][place])]
        like = float(intruders[row["path"]].update[place])
        where = f"{_short(row['path'])}, layer {place[0]}, direction {place[1]}"
        numbers = (number(value) for value in (row["removed"], row["kept"], like))
        cells.append((where, *numbers, *ends))
    columns = (
        "direction",
        "closed (nats)",
        "opened (nats)",
        "like the base",
        "one end",
        "other end",
    )
    note = (
        "Tokens that the direction writes (output, down) or looks for (others). 'Like the base' is "
        "the largest cosine with a singular direction of the base matrix."
    )
    return Section(columns, tuple(cells), note)


def carried_table(rows: Sequence[Mapping[str, Any]], *, enough: float) -> Section:
    """The least share of an adapter that carries enough of what it changes, by criterion.

    Args:
      rows: with `criterion`, `share` of the directions, `parameters` (their share), `behaviour`
        (accuracy) and `difference` (logit difference), both as shares of what the whole carries.
      enough: of the behaviour.

    Example:
      >>> one = {"criterion": "random", "share": 0.5, "parameters": 0.4}
      >>> carried_table([one | {"behaviour": 1.0, "difference": 0.5}], enough=0.9).rows
      (('random', '50 %', '40 %', 'n/a', 'n/a'),)
    """
    cells = []
    for name in dict.fromkeys(row["criterion"] for row in rows):
        some = [row for row in rows if row["criterion"] == name]
        shares = []
        for value in ("behaviour", "difference"):
            share = least(some, share="share", value=value, enough=enough)
            there = [row["parameters"] for row in some if row["share"] == share]
            shares += [share, float(np.mean(there)) if there else None]
        cells.append((name, *(percent(None if s is None else 100 * s, 0) for s in shares)))
    columns = ("criterion", "directions", "parameters", "directions (nats)", "parameters (nats)")
    return Section(columns, tuple(cells), "(nats): of the logit difference instead of accuracy.")
