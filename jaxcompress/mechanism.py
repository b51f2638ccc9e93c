"""From a model and a task to a circuit in a folder: score, find, evaluate, draw, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxcompress import check, circuits, files, runs, tasks
from jaxcompress import config as configs
from jaxcompress.circuits.scores import helpful
from jaxcompress.io.huggingface import load
from jaxcompress.models import Model
from jaxcompress.report.circuit import circuit_png, circuit_svg, svg_figure
from jaxcompress.report.curves import curves
from jaxcompress.report.grids import grids
from jaxcompress.report.page import experiment_page, figure
from jaxcompress.report.sections import Section

__all__ = ["CircuitConfig", "circuit", "explained"]

_NODES = 16  # rows of the map of positions
_ROLES = {
    "previous": "previous token", "duplicate": "duplicate", "induction": "induction",
    "sink": "first position", "positional": "places only", "copying (weights)": "copies",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CircuitConfig:
    """Which circuit is looked for, and how.

    Attributes:
      task: one of `tasks.NAMES`.
      count: prompts to score edges on, as many others to choose the size on, and as many others to
        evaluate on.
      seed: of the prompts.
      method: one of `circuits.METHODS`.
      steps: of the integrals.
      metric: a name of `tasks.METRICS`.
      replacement: what edges outside the circuit carry: `resample` or `mean`.
      target: faithfulness that the smallest circuit must reach.
      errors: by how many standard errors over the prompts that it is chosen on.
      edges: take this many edges instead.
      how: `top` or `greedy`.
      batch: prompts at a time; left out, chosen by memory.
      memory: MiB that a step may take; left out, 1 GiB or half of what an accelerator has free.
      positions: draw where in the prompt the nodes write what matters, for the largest group of
        prompts that are aligned word by word.
      roles: say what the circuit's heads look at on random tokens, see `circuits.roles`.
    """

    task: str = "ioi"
    count: int = 64
    seed: int = 0
    method: str = "eap-ig"
    steps: int = 5
    metric: str = "logit_difference"
    replacement: Literal["resample", "mean"] = "resample"
    target: float = 0.8
    errors: float = 1.64
    edges: int | None = None
    how: Literal["top", "greedy"] = "top"
    batch: int | None = None
    memory: int | None = None
    positions: bool = True
    roles: bool = True


def circuit(
    source: str | Model, out: str | Path, config: CircuitConfig, *, overwrite: bool = False
) -> dict[str, Any]:
    """Finds a model's circuit for a task, says how faithful it is on other prompts, and draws it.

    Args:
      source: a model, or Hugging Face id, directory, `builtin:<name>`.
      out: run folder for `circuit.json`, `circuit.svg`, `circuit.png` and `report.html`.
      config: how.
      overwrite: replace an earlier run in that folder.

    Returns:
      What was found, as plain data: `edges`, `share` of all edges, `nodes`; on prompts that it was
      neither scored nor chosen on, `faithfulness` with its standard `error`, `cpr`, `cmd` (ranked
      by size, as MIB's), `completeness`, `clean` and `corrupted` metric; `roles` of its heads;
      `warning` where the model cannot do
      the task: then faithfulness is `None` and the circuit the edges that move the metric most.

    Raises:
      ValueError: for bad settings, a model without tokenizer, a graph that does not fit memory.

    Example:
      >>> circuit("builtin:teacher", "runs/ioi", CircuitConfig(task="ioi"))  # doctest: +SKIP
    """
    check.known("task", config.task, tasks.NAMES)
    check.known("method", config.method, circuits.METHODS)
    check.known("metric", config.metric, tasks.METRICS)
    if not 0 < config.target <= 1:
        raise check.fail("target", "a number in (0, 1]", config.target)
    files.refuse_nonempty(out, overwrite, marker=runs.MARKER)
    model = load(source) if isinstance(source, str) else source
    if model.tokenizer is None:
        raise check.fail("model", "one with a tokenizer", "none in its directory")
    if config.edges is not None:
        check.integer("edges", config.edges, 1, int(circuits.Graph.of(model.config).valid.sum()))
    keys = jax.random.split(jax.random.key(config.seed), 3)
    context = model.config.context
    drawn = tuple(
        tasks.get(config.task, model.tokenizer, config.count, key, context=context) for key in keys
    )
    found, record, curve = _find(model, drawn, config)
    name = source if isinstance(source, str) else source.name
    about = {"model": name, "task": config.task, "method": config.method, "metric": config.metric}
    found = dataclasses.replace(found, about=about)
    record = about | record | {"roles": _roles(model, found, config) if config.roles else []}
    folder = runs.start(out, config, config.seed, overwrite=overwrite).directory
    found.save(folder / "circuit.json")
    files.write_json(folder / "result.json", record)
    files.write_bytes(folder / "circuit.svg", circuit_svg(found))
    files.write_bytes(folder / "circuit.png", circuit_png(found))
    where = _where(model, drawn[0], found, config) if config.positions and len(found) else None
    files.write_text(folder / "report.html", _page(found, record, curve, where, config))
    return record


def explained(model: Model, prompts: Sequence[tasks.Prompts], target: float) -> dict[str, Any]:
    """How much there is to explain: circuits of the tasks that a model can do, and what they share.

    Args:
      model: any.
      prompts: of each task.
      target: faithfulness that circuits by EAP-IG must reach, on the prompts that scored them.

    Returns:
      `tasks` that it can do (`circuits.able`), mean `edges` and `edge_share` of their circuits (NaN
      if there are none), `heads` in some circuit, and those in two or more, `shared`.

    Example:
      >>> from jaxcompress.tasks import get
      >>> model = load("builtin:student")
      >>> prompts = get("months", model.tokenizer, 4, jax.random.key(0))
      >>> explained(model, [prompts], 0.8)["tasks"]
      1
    """
    sizes, used = [], np.zeros((model.config.layers, model.config.heads))
    for one in prompts:
        scores = circuits.attribute(model, one, method="eap-ig")
        if circuits.able(scores.clean, scores.corrupted):
            found, _ = circuits.smallest(model, one, scores, target)
            sizes.append((len(found), found.share))
            used += np.asarray(found.gates().heads)
    edges, share = np.mean(sizes, axis=0) if sizes else (np.nan, np.nan)
    return {
        "tasks": len(sizes), "edges": float(edges), "edge_share": float(share),
        "heads": int((used > 0).sum()), "shared": int((used > 1).sum()),
    }  # fmt: skip


def _aligned(prompts: tasks.Prompts) -> np.ndarray:
    """Rows of the largest group with one length, one answer position, one set of changed words."""
    changed = np.asarray(prompts.tokens) != np.asarray(prompts.corrupted)
    kinds = np.column_stack([changed, prompts.attention_mask, prompts.answer_position])
    _, group, size = np.unique(kinds, axis=0, return_inverse=True, return_counts=True)
    return np.flatnonzero(group.reshape(-1) == size.argmax())


def _where(
    model: Model, prompts: tasks.Prompts, found: circuits.Circuit, config: CircuitConfig
) -> Any:
    """A heat map: nodes of the circuit against the words of a prompt."""
    rows = _aligned(prompts)
    same = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], prompts)
    scores = circuits.attribute(
        model, same, level="node", steps=config.steps, per_position=True, **_shared(config)
    )
    length = int(same.attention_mask[0].sum())
    inside = [name for name in scores.graph.senders if name in set(found.nodes)]
    columns = [scores.graph.senders.index(name) for name in inside]
    values = scores.importance[:length, columns].T
    strongest = np.sort(np.argsort(-np.abs(values).max(axis=1))[:_NODES])
    words = [model.tokenizer.decode([int(i)]).strip() for i in same.tokens[0][:length]]
    title = "how much it helps"
    drawn = grids(
        {title: values[strongest]}, columns={title: words},
        rows=[inside[i] for i in strongest], ylabel="",
    )  # fmt: skip
    said = (
        "By EAP-IG, what is lost if what the node writes at that word came from the corrupted "
        f"prompt; mean over {len(rows)} prompts with the same words changed. The words are of the "
        "first."
    )
    return figure(drawn, f"Where in the prompt the {len(strongest)} strongest nodes work.", said)


def _shared(config: CircuitConfig) -> dict[str, Any]:
    """What every measurement of this circuit takes."""
    memory = None if config.memory is None else config.memory << 20
    shared = {"metric": config.metric, "replacement": config.replacement}
    return shared | {"batch": config.batch, "memory": memory}


def _find(model, drawn, config) -> tuple[circuits.Circuit, dict[str, Any], Any]:
    """The circuit, what is known of it, and its faithfulness by size."""
    (seen, second, other), shared = drawn, _shared(config)
    scores = circuits.attribute(model, seen, method=config.method, steps=config.steps, **shared)
    clean, corrupted = float(scores.clean.mean()), float(scores.corrupted.mean())
    record: dict[str, Any] = {"clean": clean, "corrupted": corrupted, "warning": None}
    record |= dict.fromkeys(("faithfulness", "error", "cpr", "cmd", "completeness"))
    curve = circuits.faithfulness(model, other, scores, how=config.how, **shared)
    can = circuits.able(scores.clean, scores.corrupted, config.metric)
    if not can or np.isnan(curve.faithfulness).any():
        curve = None
        record["warning"] = (
            f"The model cannot do this task: {config.metric} is {clean:.3g} on clean prompts and "
            f"{corrupted:.3g} on corrupted ones, so no share of it is carried by any circuit."
        )
        count = config.edges or max(1, round(0.01 * scores.graph.valid.sum()))
        found = circuits.find(scores, edges=count, how=config.how)
    else:
        if config.edges is None:
            sure = {"target": config.target, "errors": config.errors, "how": config.how}
            found, _ = circuits.smallest(model, second, scores, **sure, **shared)
        else:
            found = circuits.find(scores, edges=config.edges, how=config.how)
        by_size = {"how": config.how, "signed": False} | shared
        record |= {"clean": curve.clean, "corrupted": curve.corrupted, "cpr": curve.cpr}
        record["cmd"] = circuits.faithfulness(model, other, scores, **by_size).cmd
        if len(found):
            one = circuits.faithfulness(model, other, found, **shared)
            record |= {"faithfulness": float(one.faithfulness[0]), "error": float(one.error[0])}
            record["completeness"] = circuits.completeness(model, other, found, **shared)
        else:
            record["warning"] = "The circuit is empty: no path reaches the logits; take more edges."
    record |= {
        "edges": len(found), "share": found.share, "possible": int(found.graph.valid.sum()),
        "nodes": list(found.nodes), "top": scores.top(20),
    }  # fmt: skip
    return found, record, curve


def _roles(model: Model, found: circuits.Circuit, config: CircuitConfig) -> list[dict[str, Any]]:
    """A row for each head of the circuit: what it is by its attention on random tokens."""
    inside = set(found.nodes)
    told = circuits.roles(model, key=jax.random.key(config.seed), count=8).rows()
    named = [{"node": f"a{row['layer']}.h{row['head']}"} | row for row in told]
    return [row for row in named if row["node"] in inside]


def _chosen(record, config) -> str:
    """Why the circuit has the size that it has."""
    if record["warning"]:
        return "those that help most"
    if config.edges is not None:
        return f"of the {config.edges} asked for, those on a path"
    goal = f"{config.target:.0%} of the metric, with {config.errors:g} standard errors to spare"
    if record["edges"] == record["possible"]:
        return f"as no smaller circuit keeps {goal}, on prompts only for this choice"
    return f"the smallest size tried that keeps {goal}, on prompts only for this choice"


def _summary(record, config) -> list[str]:
    lines = [record["warning"]] if record["warning"] else []
    lines.append(
        f"{record['edges']} of {record['possible']} edges ({record['share']:.1%}) between "
        f"{len(record['nodes'])} nodes, by {config.method}: {_chosen(record, config)}."
    )
    if record["faithfulness"] is not None:
        lines.append(
            f"On other prompts the circuit alone keeps {record['faithfulness']:.1%} "
            f"(± {1.96 * record['error']:.1%}, 95 % interval) of the "
            f"{config.metric.replace('_', ' ')} ({record['clean']:.2f} clean, "
            f"{record['corrupted']:.2f} corrupted); the model without the circuit keeps "
            f"{record['completeness']['without']:.1%}."
        )
    return lines


def _page(found, record, curve, where, config) -> str:
    svg = circuit_svg(found)
    caption = (
        "An edge is as wide as the metric would change if it carried the corrupted run. Everywhere "
        "on this page, blue or above 0 helps: without it the metric gets worse. Red or below 0 "
        "hurts."
    )
    alt = f"Circuit of {record['model']} for {record['task']}: {record['edges']} edges."
    figures = [svg_figure(svg, alt, caption), *([where] if where else [])]
    tables = {}
    if curve is not None:
        figures.append(_curve(curve, config.target))
        cells = [
            (f"{s:.1%}", str(n), f"{f:.1%}", f"{m:.3f}")
            for s, n, f, m in zip(
                curve.shares, curve.edges, curve.faithfulness, curve.metric, strict=True
            )
        ]
        note = (
            f"The most helpful edges. CPR {record['cpr']:.3f} (higher is better); ranked by size, "
            f"helpful or not, CMD {record['cmd']:.3f} (0 is best)."
        )
        columns = ("share of edges", "edges on a path", "faithfulness", "metric")
        tables["Faithfulness by size"] = Section(columns, tuple(cells), note)
    if record["roles"]:
        cells = [(row["node"], *(f"{row.get(k, np.nan):.2f}" for k in _ROLES))
                 for row in record["roles"]]  # fmt: skip
        note = (
            "Shares of attention on random tokens that come twice: to the token before, to the "
            "first copy, to what followed it, to the first position; how much it looks at places "
            "only; by the weights, the share of tokens that it copies."
        )
        tables["What its heads look at"] = Section(("head", *_ROLES.values()), tuple(cells), note)
    rows = tuple(
        (name, f"{helpful(value, config.metric):+.3f}", "yes" if name in found.edges else "no")
        for name, value in record["top"]
    )
    note = (
        "How much it helps: what is lost if the edge is corrupted. <q>, <k> and <v> are the query, "
        "key and value of a head."
    )
    columns = ("edge", "how much it helps", "in the circuit")
    tables["Strongest edges"] = Section(columns, rows, note)
    return experiment_page(
        f"Circuit of {record['model']} for {record['task']}",
        summary=_summary(record, config), figures=figures, tables=tables,
        config=configs.to_dict(config),
    )  # fmt: skip


def _curve(curve: Any, target: float) -> Any:
    rows = [
        {"share": float(s), "faithfulness": float(f), "by": "circuit"}
        for s, f in zip(curve.shares, curve.faithfulness, strict=True)
    ]
    drawn = curves(
        rows, x="share", y="faithfulness", by="by",
        xlabel="share of edges", ylabel="faithfulness", logx=True, target=target,
    )  # fmt: skip
    said = "Of circuits of the most helpful edges; the line across is the target."
    return figure(drawn, "Faithfulness against the share of edges kept.", said)
