"""From a model and some data to a dictionary of its features in a folder: learn, measure, show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcompress import check, examples, files, io, runs, sae, tree
from jaxcompress import config as configs
from jaxcompress.models import Model
from jaxcompress.narrow.texts import decoder
from jaxcompress.report.lines import Line, Panel, lines
from jaxcompress.report.numbers import number, percent
from jaxcompress.report.page import Passage, publish
from jaxcompress.report.sections import Section
from jaxcompress.train.dictionaries import Dictionary, fit_dictionaries

__all__ = ["SaeConfig", "learn"]

_BEFORE, _AFTER = 24, 8  # tokens shown around one at which a feature is active
_PROMOTED = 4  # tokens that are named


@dataclasses.dataclass(frozen=True)
class SaeConfig:
    """Which stream is taken apart, and how.

    Attributes:
      layer: the residual stream that enters this layer; left out, the middle one.
      dictionary: how the dictionary is learned.
      data: prompts or text to learn on; it is measured on others, held out.
      shown: features on the page, those that write most.
      contexts: of each of them, the tokens at which it is most active.
      seed: where the dictionary starts.
      checkpoints: folder, from which a run that was stopped goes on when it is started again.
    """

    layer: int | None = None
    dictionary: Dictionary = dataclasses.field(default_factory=Dictionary)
    data: examples.Data = dataclasses.field(default_factory=examples.Data)
    shown: int = 24
    contexts: int = 5
    seed: int = 0
    checkpoints: str | None = None


class _Seen(NamedTuple):
    """Held-out tokens: their stream (token, width), their rows, and where in them they stand."""

    x: np.ndarray
    rows: list[np.ndarray]
    places: list[tuple[int, int]]


def learn(
    source: str | Model, out: str | Path, config: SaeConfig, *, overwrite: bool = False
) -> dict[str, Any]:
    """Learns a dictionary of a model's residual stream, says how good it is, and shows features.

    Args:
      source: a model, or Hugging Face id, directory, `builtin:<name>`.
      out: run folder for `dictionary/`, which SAELens loads, `result.json` and `report.html`.
      config: how.
      overwrite: replace an earlier run in that folder.

    Returns:
      What was found on held-out tokens, as plain data: `explained` variance, `l0`, `dead` share;
      `clean`, `spliced` and `removed` loss and the `recovered` share (see `sae.recovery.Recovery`;
      the stream is removed to its mean, and all four are NaN for encoders without a head, which
      have no loss); how many `tokens` it was learned on.

    Raises:
      ValueError: for bad settings, and as `examples.batches` and `fit_dictionaries`.

    Example:
      >>> learn("builtin:teacher", "runs/features", SaeConfig())  # doctest: +SKIP
    """
    check.integer("shown", config.shown, 1)
    check.integer("contexts", config.contexts, 1)
    if config.checkpoints is None or (Path(out) / runs.LAST).exists():  # no run to go on with
        files.refuse_nonempty(out, overwrite, marker=runs.MARKER)
    model = io.load(source) if isinstance(source, str) else source
    layer = model.config.layers // 2 if config.layer is None else config.layer
    check.integer("layer", layer, 0, model.config.layers)
    batches, loss = examples.batches(model, config.data)
    held, _ = examples.batches(model, config.data, held_out=True)
    x, other = (sae.activations.stream(model, some, layer) for some in (batches, held))
    resume = config.checkpoints is not None
    run = runs.start(out, config, config.seed, overwrite=overwrite, resume=resume)
    key = jax.random.split(jax.random.key(config.seed), 1)
    several = fit_dictionaries(
        x, config.dictionary, key, checkpoints=config.checkpoints, run=run, name="dictionary"
    )
    (found,) = tree.unstack(several)
    name = source if isinstance(source, str) else source.name
    folder = run.directory / "dictionary"
    io.save_dictionary(found, folder, model=name, layer=layer, overwrite=resume)
    quality = sae.quality.quality(found, other)
    left = sae.recovery.Recovery(np.nan, np.nan, np.nan)
    if model.config.head != "none":
        left = sae.recovery.recovered(model, found, layer, held, loss, mean=x.mean(axis=0))
    record = {"model": name, "layer": layer, "tokens": len(x), "explained": quality.explained}
    record |= {"l0": quality.l0, "dead": quality.dead, "recovered": left.share}
    record |= dataclasses.asdict(left)
    files.write_json(run.directory / "result.json", record)
    _publish(run, model, found, quality, _seen(held, other), record, config)
    return record


def _seen(batches: Sequence[Any], x: np.ndarray) -> _Seen:
    rows, places = [], []
    for batch in batches:
        real = np.asarray(batch.attention_mask) > 0
        for tokens, mask in zip(np.asarray(batch.tokens), real, strict=True):
            places += [(len(rows), i) for i in range(mask.sum())]
            rows.append(tokens[mask])
    return _Seen(x, rows, places)


def _publish(run, model, found, quality, seen, record, config) -> None:
    """The page: how good, how it was learned, and the features that write most."""
    history = [row for row in runs.rows(run.directory) if row.get("name") == "dictionary"]
    steps = [row["step"] for row in history]
    error = [row["squared_error"] / found.decoder.shape[1] for row in history]
    alive = np.sort(quality.density[quality.density > 0])[::-1]
    order = Line("", np.arange(1, len(alive) + 1), 100 * alive)
    png = lines([
        Panel("Learning", "step", "squared error / mean square", [Line("", steps, error)], "y"),
        Panel("Activity", "feature, the most active first", "% of tokens", [order], "xy"),
    ])  # fmt: skip
    total = sae.reading.written(found, seen.x)
    shown = [int(i) for i in np.argsort(-total)[: config.shown] if total[i] > 0]
    columns = ("", "measured")
    rows = (
        ("variance explained", percent(100 * record["explained"])),
        ("active features of a token", number(record["l0"])),
        ("features never active", percent(100 * record["dead"])),
        ("loss as it is (nats)", number(record["clean"])),
        ("… with the stream reconstructed", number(record["spliced"])),
        ("… with its mean everywhere", number(record["removed"])),
        ("loss recovered", percent(100 * record["recovered"])),
    )
    note = f"On {quality.tokens:,} held-out tokens; learned on {record['tokens']:,}."
    note += " Losses are summed over a row, mean over rows."
    told = (
        f"{number(quality.l0)} of {len(found.decoder):,} features at a token explain "
        f"{percent(100 * quality.explained)} of the variance of the stream that enters layer "
        f"{record['layer']}."
    )
    if np.isfinite(record["recovered"]):
        kept = percent(100 * record["recovered"])
        told += f" Read instead of it, they keep {kept} of what it does for the loss."
    print(publish(
        run.directory, f"Features of {record['model']}, layer {record['layer']}",
        figures={"learning": (png, "How the dictionary was learned", "Features never active are "
                              "left out on the right.")},
        summary=[told],
        tables={"Quality of the dictionary": Section(columns, rows, note)},
        passages=_passages(model, found, quality, seen, shown, config.contexts),
        config=configs.to_dict(config),
    ))  # fmt: skip


def _passages(model, found, quality, seen, shown, contexts) -> dict[str, Any]:
    """For each feature what it is, and the contexts in which it is most active."""
    words, says = decoder(model.tokenizer), {}
    places = sae.reading.strongest(found, seen.x, shown, contexts)
    speaks = model.config.head != "none"
    promoted = sae.reading.promoted(model, found, shown, _PROMOTED) if speaks else None
    for column, feature in enumerate(shown):
        density = number(100 * quality.density[feature], 2)
        said = f"Feature {feature}: active at {density} % of the tokens"
        if count := min(3, len(found.decoder) - 1):
            near = zip(*sae.geometry.neighbours(found, feature, count), strict=True)
            said += "; beside " + ", ".join(f"{i} ({c:.2f})" for i, c in near)
        if promoted is not None:
            said += "; promotes " + ", ".join(words([int(i)]).strip() for i in promoted[column])
        says[said] = [_around(words, seen, int(token)) for token in places[column] if token >= 0]
    return says


def _around(words: Any, seen: _Seen, token: int) -> Passage:
    row, place = seen.places[token]
    tokens = seen.rows[row]
    start = max(place - _BEFORE, 0)
    after = tokens[place + 1 : place + 1 + _AFTER]
    return Passage(words(tokens[start:place]), words(tokens[place : place + 1]), words(after))
