"""What a model does on prompts, component by component: patterns, outputs, ablation effects."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.ablate.sweep import checked, run, sweep
from jaxcompress.align import similarity
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
    options: dict[str, Any] = {"replacement": replacement, "progress": progress}
    heads, mlps = (sweep(model, prompts, over, **options) for over in ("heads", "mlps"))
    ready = checked(model.config, prompts)
    taps = run(model, ready, taps=("pattern", "mlps")).taps
    patterns, rows = similarity.mean_pattern(taps["pattern"], ready.attention_mask)
    per_head = np.asarray(heads.per_example)
    exists = ~np.isnan(per_head).any(axis=-1)
    names = [f"head {layer}.{head}" for layer, head in np.argwhere(exists)]
    names += [f"mlp {layer}" for layer in range(model.config.layers)]
    real = np.asarray(prompts.attention_mask).astype(bool).reshape(-1)
    outputs = taps["mlps"].reshape(len(taps["mlps"]), -1, taps["mlps"].shape[-1])
    return Profile(
        names=tuple(names),
        heads=int(exists.sum()),
        effects=np.concatenate([per_head[exists], np.asarray(mlps.per_example)]),
        clean=np.asarray(heads.clean),
        patterns=patterns.reshape(-1, *patterns.shape[2:])[exists.reshape(-1)],
        rows=rows,
        outputs=outputs[:, real],
    )


def similarities(student: Profile, teacher: Profile) -> np.ndarray:
    """(student component, teacher component) similarity; -inf between a head and an MLP.

    Heads by `pattern_cosine`; MLPs by `subspace_cosine`, or by `linear_cka` if the widths differ,
    rescaled to the heads.

    Raises:
      ValueError: if the profiles are not of the same prompts.
    """
    if student.patterns.shape[1:] != teacher.patterns.shape[1:]:
        got = f"{student.patterns.shape[1:]} and {teacher.patterns.shape[1:]} patterns"
        raise check.fail("profiles", "the same prompts for both models", got)
    heads = similarity.pattern_cosine(student.patterns, teacher.patterns, teacher.rows)
    if student.outputs.shape[-1] == teacher.outputs.shape[-1]:
        mlps = similarity.subspace_cosine(student.outputs, teacher.outputs)
    else:
        pairs = [[similarity.linear_cka(s, t) for t in teacher.outputs] for s in student.outputs]
        mlps = jnp.array(pairs)
    out = np.full((len(student.names), len(teacher.names)), -np.inf)
    out[: student.heads, : teacher.heads] = np.asarray(heads)
    out[student.heads :, teacher.heads :] = np.asarray(similarity.rescale(mlps, heads))
    return out
