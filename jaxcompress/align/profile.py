"""What a model does on prompts, component by component: patterns, outputs, ablation effects."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.ablate.forward import run, start
from jaxcompress.ablate.interventions import REPLACEMENTS, components, replacements
from jaxcompress.ablate.sweep import measure
from jaxcompress.align import similarity
from jaxcompress.models.gates import Edits
from jaxcompress.tasks.metrics import logit_difference
from jaxcompress.tasks.prompts import Prompts

__all__ = ["Profile", "profile", "similarities"]


@dataclasses.dataclass(frozen=True)
class Profile:
    """Everything about one model that alignment looks at.

    Components are in one axis: heads of layer 0, of layer 1, ..., then the MLPs.

    Attributes:
      names: (component,) such as "head 0.1" and "mlp 3".
      heads: how many of them are heads.
      effects: (component, batch) logit difference with the component removed minus clean, in nats.
      clean: (batch,) logit difference of the whole model, in nats.
      patterns: (head, query, key) attention, averaged over prompts.
      rows: (query,) how many prompts have this query.
      outputs: (layer, token, width) MLP outputs at the real tokens.
    """

    names: tuple[str, ...]
    heads: int
    effects: np.ndarray
    clean: np.ndarray
    patterns: Any
    rows: Any
    outputs: Any


def profile(
    model: Any, prompts: Prompts, *, replacement: str = "mean", progress: bool | None = None
) -> Profile:
    """Measures a model on prompts.

    Args:
      model: with taps `pattern` and `mlps`, as in `ablate.sweep`.
      prompts: clean and corrupted.
      replacement: `mean` (as for number words and numerals in the paper), `zero` (as for IOI) or
        `resample`.
      progress: see `ablate.sweep`.

    Returns:
      The profile.

    Example:
      >>> import jax
      >>> from jaxcompress.models import ModelConfig, create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=5)
      >>> ones = np.ones((3, 5), np.int32)
      >>> prompts = Prompts(ones, 2 * ones, ones, 4 * ones[:, 0], ones[:, :1], 2 * ones[:, :1])
      >>> profile(create(config, key=jax.random.key(0)), prompts).names[-1]
      'mlp 1'
    """
    check.known("replacement", replacement, REPLACEMENTS)
    base = start(model, prompts, logit_difference, taps=("pattern", "mlps"))
    edits: dict[str, Edits | None] = {"heads": None, "mlps": None}
    if replacement != "zero":  # one run on the corrupted prompts serves both sweeps
        taps = run(model, base.prompts, tokens=base.prompts.corrupted, taps=tuple(edits)).taps
        edits = {k: replacements({k: taps[k]}, replacement, base.prompts) for k in edits}
    heads, mlps = (
        measure(
            model,
            base,
            components(model.config, over),
            edits[over],
            metric=logit_difference,
            progress=progress,
        )
        for over in edits
    )
    mask = base.prompts.attention_mask
    patterns, rows = jax.jit(similarity.mean_pattern)(base.taps["pattern"], mask)
    per_head = np.asarray(heads.per_example)
    exists = ~np.isnan(per_head).any(axis=-1)
    names = [f"head {layer}.{head}" for layer, head in np.argwhere(exists)]
    names += [f"mlp {layer}" for layer in range(model.config.layers)]
    real = np.asarray(prompts.attention_mask).astype(bool).reshape(-1)
    outputs = np.asarray(base.taps["mlps"])
    outputs = outputs.reshape(len(outputs), -1, outputs.shape[-1])
    return Profile(
        names=tuple(names),
        heads=int(exists.sum()),
        effects=np.concatenate([per_head[exists], np.asarray(mlps.per_example)]),
        clean=np.asarray(heads.clean),
        patterns=jnp.asarray(np.asarray(patterns)[exists]),
        rows=rows,
        outputs=jnp.asarray(outputs[:, real]),
    )


def similarities(student: Profile, teacher: Profile) -> np.ndarray:
    """(student component, teacher component) similarity; -inf between a head and an MLP.

    Heads by `pattern_cosine`; MLPs by `subspace_cosine`, or by `linear_cka` if the widths differ,
    rescaled to the heads.

    Raises:
      ValueError: if the profiles are not of the same prompts.

    Example:
      >>> similarities(profile(student, prompts), profile(teacher, prompts))  # doctest: +SKIP
    """
    if student.patterns.shape[1:] != teacher.patterns.shape[1:]:
        got = f"{student.patterns.shape[1:]} and {teacher.patterns.shape[1:]} patterns"
        raise check.fail("profiles", "the same prompts for both models", got)
    alike = np.full((len(student.names), len(teacher.names)), -np.inf)
    heads, mlps = _similarities(
        (student.patterns, student.outputs), (teacher.patterns, teacher.outputs), teacher.rows
    )
    alike[: student.heads, : teacher.heads] = np.asarray(heads)
    alike[student.heads :, teacher.heads :] = np.asarray(mlps)
    return alike


@jax.jit
def _similarities(
    student: tuple[jax.Array, jax.Array], teacher: tuple[jax.Array, jax.Array], rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Head and rescaled MLP similarities, from (patterns, outputs) of either."""
    heads = similarity.pattern_cosine(student[0], teacher[0], rows)
    if student[1].shape[-1] == teacher[1].shape[-1]:
        mlps = similarity.subspace_cosine(student[1], teacher[1])
    else:
        one = jax.vmap(similarity.linear_cka, in_axes=(None, 0))
        mlps = jax.vmap(one, in_axes=(0, None))(student[1], teacher[1])
    return heads, similarity.rescale(mlps, heads)
