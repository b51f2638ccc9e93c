"""What a model does on prompts, component by component: patterns, outputs, ablation effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check, tree
from jaxcompress.ablate.forward import Base, run, start
from jaxcompress.ablate.interventions import REPLACEMENTS, components, replacements
from jaxcompress.ablate.sweep import measure
from jaxcompress.align import similarity
from jaxcompress.align.habits import habits
from jaxcompress.align.measured import Profile
from jaxcompress.models.gates import Edits
from jaxcompress.tasks.metrics import logit_difference
from jaxcompress.tasks.prompts import Prompts

__all__ = ["profile", "recorded", "similarities"]

TOKENS = 512  # logits that are kept for every component and prompt


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
    base = start(model, prompts, recorded, taps=("pattern", "mlps", "heads"))
    edits: dict[str, Edits | None] = {"heads": None, "mlps": None}
    if replacement != "zero":  # one run on the corrupted prompts serves both sweeps
        taps = run(model, base.prompts, tokens=base.prompts.corrupted, taps=tuple(edits)).taps
        edits = {k: replacements({k: taps[k]}, replacement, base.prompts) for k in edits}
    heads, mlps = (
        measure(
            model, base, components(model.config, over), edits[over],
            metric=recorded, progress=progress,
        ).per_example
        for over in edits
    )  # fmt: skip
    # NumPy's einsum and eigh have no bfloat16.
    base = base._replace(taps={k: tap.astype(jnp.float32) for k, tap in base.taps.items()})
    mask = base.prompts.attention_mask
    patterns, rows = jax.jit(similarity.mean_pattern)(base.taps["pattern"], mask)
    per_head = np.asarray(heads)
    exists = ~np.isnan(per_head).any(axis=(-2, -1))
    names = [f"head {layer}.{head}" for layer, head in np.argwhere(exists)]
    names += [f"mlp {layer}" for layer in range(model.config.layers)]
    changes = np.concatenate([per_head[exists], np.asarray(mlps)])
    real = np.ones(base.prompts.tokens.size, bool) if mask is None else np.asarray(mask).ravel() > 0
    outputs = np.asarray(base.taps["mlps"])
    outputs = outputs.reshape(len(outputs), -1, outputs.shape[-1])
    written, attention = _at_answer(model, base)
    roles = jax.jit(habits)(base.taps["pattern"], base.prompts.tokens, mask)
    return Profile(
        names=tuple(names),
        heads=int(exists.sum()),
        effects=changes[..., 0],
        clean=np.asarray(base.clean[:, 0]),
        patterns=jnp.asarray(np.asarray(patterns)[exists]),
        rows=rows,
        outputs=jnp.asarray(outputs[:, real]),
        logits=changes[..., 1:],
        written=(written["heads"][exists], written["mlps"]),
        attention=attention[exists],
        roles=np.asarray(roles)[exists],
    )


def recorded(logits: jax.Array, prompts: Prompts, clean_logits: Any = None) -> jax.Array:
    """The metric of a profile: the logit difference, then some logits without their mean.

    Args:
      logits: (batch, vocab) at the answer position.
      prompts: carries the answers.
      clean_logits: not used.

    Returns:
      (batch, 1 + token); the tokens are all, or `TOKENS` of them, the same for every model.

    Example:
      >>> row = jnp.zeros((1, 1), jnp.int32)
      >>> prompts = Prompts(row, row, row + 1, row[:, 0], correct=row, wrong=row + 1)
      >>> recorded(jnp.asarray([[3.0, 1.0]]), prompts).tolist()
      [[2.0, 1.0, -1.0]]
    """
    count = logits.shape[-1]
    tokens = np.arange(count)
    if count > TOKENS:  # the same draw for every model of this vocabulary
        tokens = np.sort(np.random.default_rng(0).choice(count, TOKENS, replace=False))
    some = logits[:, tokens]
    some = some - some.mean(axis=1, keepdims=True)
    difference = logit_difference(logits, prompts, clean_logits)
    return jnp.concatenate([difference[:, None], some], axis=1)


def _at_answer(model: Any, base: Base) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What every head and MLP writes at the answer position, and where the heads look from it."""
    batch = np.arange(len(base.prompts))
    where = np.asarray(base.prompts.answer_position)
    mlps = np.asarray(base.taps["mlps"])[:, batch, where]
    heads = np.asarray(base.taps["heads"])[:, batch, where].transpose(0, 2, 1, 3)
    # A head's inner basis is arbitrary; what leaves its output projection is not. A model whose
    # projection is not where ours is shows its heads as they are.
    flat = tree.paths(model.params) if isinstance(model.params, Mapping) else {}
    kernel = flat.get("blocks/attn/output/kernel")
    if kernel is not None:
        heads = np.einsum("lhbd,lhdm->lhbm", heads, np.asarray(kernel, np.float32))
    elif "blocks/0/attn/output/kernel" in flat:
        kernels = [
            np.asarray(flat[f"blocks/{i}/attn/output/kernel"], np.float32)
            for i in range(len(heads))
        ]
        filled = [np.pad(k, ((0, heads.shape[1] - len(k)), (0, 0), (0, 0))) for k in kernels]
        heads = np.einsum("lhbd,lhdm->lhbm", heads, np.stack(filled))
    pattern = np.asarray(base.taps["pattern"])[:, batch, :, where].transpose(1, 2, 0, 3)
    return {"heads": heads, "mlps": mlps}, pattern


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
