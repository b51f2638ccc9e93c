"""From a model and data to a smaller model in a directory: score, select, shrink, write."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, circuits, files, prune
from jaxcompress import config as configs
from jaxcompress.examples import Data, batches, together
from jaxcompress.gated import each_removed, harm, mean_loss, similarity, under_gates
from jaxcompress.io.export import MARKER, Form, save, settled
from jaxcompress.io.huggingface import load, resolve
from jaxcompress.io.provenance import carried, record_of
from jaxcompress.learned import LearnConfig, learned_scores
from jaxcompress.models import Gates, Model
from jaxcompress.prune.schedule import cubic
from jaxcompress.prune.scores import marked

__all__ = ["PruneConfig", "circuit_heads", "protect", "prune_gates", "prune_model"]


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """How a model is pruned.

    Attributes:
      criterion: one of `prune.CRITERIA`; `ablation`, what the loss rises by without each component
        (exact, one forward for each); or `learned`: gates that are trained, see `learn`.
      over: what is removed: any of heads, neurons, attns, mlps, width.
      sparsity: share of each of these that is removed, in [0, 1).
      scope: rank all layers together, or each by itself.
      at_least: heads and neurons that every layer keeps.
      groups: of heads that share keys and values: remove whole ones, equally many heads of every
        one in a layer, or look at heads alone (none).
      keep_circuit: tasks whose circuits are kept: their heads go last.
      rounds: of scoring and removing; with several the share rises along a cubic.
      data: what the criterion looks at.
      learn: how gates are trained; for `learned`.
      form: of the directory: `stock`, `padded` or `native`, see `io.save`.
    """

    criterion: str = "taylor_token"
    over: tuple[str, ...] = ("heads", "neurons")
    sparsity: float = 0.25
    scope: Literal["global", "layer"] = "global"
    at_least: int = 0
    groups: Literal["none", "whole", "equal"] = "none"
    keep_circuit: tuple[str, ...] = ()
    rounds: int = 1
    data: Data = dataclasses.field(default_factory=Data)
    learn: LearnConfig = dataclasses.field(default_factory=LearnConfig)
    form: Form = "native"


def prune_gates(model: Model, config: PruneConfig, *, progress: bool = True) -> Gates:
    """Gates of the components that stay.

    Raises:
      ValueError: for fields that the criterion says nothing about, and what `select` refuses.

    Example:
      >>> config = PruneConfig(criterion="magnitude", sparsity=0.5, over=("heads",))
      >>> prune_gates(load("builtin:student"), config).heads.sum()
      np.float32(8.0)
    """
    _check(model, config)
    steps = cubic(config.sparsity, config.rounds)
    looked_at = config.criterion not in ("magnitude", "random", "learned")
    found, loss = batches(model, config.data) if looked_at else ([], prune.next_token)
    kept, groups = circuit_heads(model, config), None
    if config.groups != "none":
        groups = [size.kv_heads for size in model.config.layer_sizes]
    gates, gone = Gates(), 0.0
    for step in range(1, config.rounds + 1):
        share = config.sparsity if step == config.rounds else float(np.asarray(steps(step)))
        now = model if step == 1 else prune.shrink(model, gates)
        # Of what is left, the share that brings what is gone to `share`.
        scored = _scored(now, config, found, loss, 1 - (1 - share) / (1 - gone), step, progress)
        if step > 1:
            scored = _placed(model, scored, prune.kept(model, gates))
        if kept is not None:
            scored = protect(scored, kept)
        gates = prune.select(
            scored, share, scope=config.scope, at_least=config.at_least, groups=groups,
            equal=config.groups == "equal", start=gates,
        )  # fmt: skip
        gone = share
    return gates


def _check(model: Model, config: PruneConfig) -> None:
    """Raises for settings that cannot be, whatever the scores."""
    check.integer("rounds", config.rounds, 1)
    check.known("criterion", config.criterion, (*prune.CRITERIA, "ablation", "learned"))
    if not 0 <= config.sparsity < 1:
        raise check.fail("sparsity", "a number in [0, 1)", config.sparsity)
    for name in config.over:
        check.known("over", name, [field.name for field in dataclasses.fields(Gates)])
    if config.keep_circuit and "heads" not in config.over:
        raise check.fail("over", "heads among what is removed, to keep a circuit's", config.over)
    whole = not model.config.post_norm and {"attns", "mlps"} <= set(config.over)
    if config.criterion == "angular_distance" and config.rounds > 1 and not whole:
        # A layer of which something is left would be counted into the next round's runs.
        expected = "1 for angular_distance, unless whole layers go, attns and mlps"
        raise check.fail("rounds", expected, config.rounds)


def _placed(model: Model, scores: Gates, kept: dict[str, Any]) -> Gates:
    """Scores of a shrunk model, each at its component's place in the whole one."""
    found = {}
    for field in dataclasses.fields(scores):
        values = getattr(scores, field.name)
        if values is None:
            continue
        # What went with its block, whose own gate is open, is worth less than all that is there.
        there = np.asarray(values, float)
        lowest = np.min(there, where=np.isfinite(there), initial=0.0) - 1
        whole = np.full(getattr(Gates.ones(model.config), field.name).shape, lowest)
        if field.name in ("heads", "neurons"):
            for i, (layer, own) in enumerate(zip(kept["layers"], kept[field.name], strict=True)):
                whole[layer, own] = np.asarray(values[i])[: len(own)]
        else:
            whole[kept["width" if field.name == "width" else "layers"]] = np.asarray(values)
        found[field.name] = whole
    return marked(model.config, Gates(**found))


def protect(scores: Gates, kept: np.ndarray) -> Gates:
    """Scores by which some heads go last, in their own order.

    Args:
      scores: of heads, and anything else.
      kept: (layer, head) 1 for these.

    Example:
      >>> protect(Gates(heads=np.array([[3.0, 1.0]])), np.array([[0.0, 1.0]])).heads.tolist()
      [[3.0, 7.0]]
    """
    if scores.heads is None:
        return scores
    heads = np.asarray(scores.heads, np.float64)  # scores far below 1 keep their order
    there = heads[heads < np.inf]  # not the slots that smaller layers lack
    # So far that one of them raises the mean of any group that it is in above all others.
    shift = heads.shape[1] * (there.max() - there.min() + 1)
    return dataclasses.replace(scores, heads=heads + shift * kept)


def circuit_heads(model: Model, config: PruneConfig) -> np.ndarray | None:
    """(layer, head) 1 for the heads in a circuit of `config.keep_circuit`; `None` if it is empty.

    Circuits are the smallest by EAP-IG with 80 % of the logit difference (`circuits.smallest`).

    Raises:
      ValueError: for a task that the model cannot do: there is no circuit to keep.

    Example:
      >>> circuit_heads(load("builtin:student"), PruneConfig()) is None
      True
    """
    if not config.keep_circuit:
        return None
    union = np.zeros((model.config.layers, model.config.heads), np.float32)
    data = dataclasses.replace(config.data, tasks=config.keep_circuit, text=None)
    data = dataclasses.replace(data, batch=data.count)
    for prompts in batches(model, data)[0]:
        scores = circuits.attribute(model, prompts, method="eap-ig")
        found, _ = circuits.smallest(model, prompts, scores)
        union = np.maximum(union, np.asarray(found.gates().heads))
    return union


def _scored(
    model: Model,
    config: PruneConfig,
    found: Any,
    loss: Any,
    share: float,
    step: int,
    progress: bool,
) -> Gates:
    """Scores of the fields that are pruned."""
    if config.criterion == "learned":
        scored = learned_scores(
            model,
            together(model, config.data)[0],
            config.over,
            share,
            config.learn,
            progress=progress,
        )
    elif config.criterion == "ablation":
        scored = each_removed(model, found, harm(loss), config.over, progress=progress)
    else:
        key = jax.random.fold_in(jax.random.key(config.data.seed), step)
        scored = prune.score(
            model, found, config.criterion, loss=loss, key=key,
            layers=max(1, round(share * model.config.layers)), progress=progress,
        )  # fmt: skip
    values = {}
    for name in config.over:
        values[name] = getattr(scored, name)
        if values[name] is None:
            raise check.fail("over", f"what {config.criterion} has scores for", repr(name))
    return Gates(**values)


def prune_model(
    source: str, out: str | Path, config: PruneConfig, *, overwrite: bool = False
) -> dict[str, Any]:
    """Prunes a model and writes the smaller one; held-out loss before and after.

    Args:
      source: Hugging Face id, directory or `builtin:<name>`.
      out: directory for the smaller model, with `compression.json`.
      config: how.
      overwrite: replace a model that is there.

    Returns:
      `parameters` and `loss` of both models (`None` without data); for an encoder without a head,
      whose words have no loss, the mean `similarity` of its embeddings before and after; and what
      was `kept`, see `io.provenance`.

    Raises:
      ValueError: see `load`, `prune_gates` and `io.save`.

    Example:
      >>> import tempfile
      >>> config = PruneConfig(criterion="magnitude", sparsity=0.5)
      >>> record = prune_model("builtin:student", tempfile.mkdtemp(), config)
      >>> record["parameters"]
      {'before': 356864, 'after': 225152}
    """
    files.refuse_nonempty(out, overwrite, marker=MARKER)
    model = load(source)
    _check(model, config)
    found, loss = None, None
    if config.data.tasks or config.data.text:
        found, loss = batches(model, config.data, held_out=True)
    gates = prune_gates(model, config)
    small = prune.shrink(model, gates)
    settled(small.config, config.form)
    record: dict[str, Any] = {
        "teacher": str(source),
        "recipe": configs.to_dict(config),
        **carried(source, record_of(resolve(source)), prune.kept(model, gates)),
        "parameters": {
            "before": prune.parameters(model.config),
            "after": prune.parameters(small.config),
        },
        "loss": None,
    }
    if found is not None and model.config.head == "none":
        stacked = jax.tree.map(lambda gate: jnp.asarray(gate)[None], gates)
        record["similarity"] = float(under_gates(model, found, similarity, stacked)[0])
    elif found is not None:
        losses = {"before": mean_loss(model, found, loss), "after": mean_loss(small, found, loss)}
        if not math.isfinite(losses["after"]):
            raise check.fail("loss after pruning", "a finite number", losses["after"])
        record["loss"] = losses
    save(small, out, form=config.form, overwrite=overwrite, compression=record)
    return record
