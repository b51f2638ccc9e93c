"""Prompts that tell heads apart, and what attention patterns on them say; see `roles`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check

__all__ = ["mixed", "rarest", "read_patterns", "repeated", "without_sink"]

_LONGEST = 10  # tokens of one copy


def repeated(
    rng: np.random.Generator,
    count: int,
    vocabulary: Sequence[int],
    *,
    context: int,
    length: int | None = None,
    start: int | None = None,
) -> tuple[np.ndarray, int]:
    """(count, position) random tokens, twice over, and the length n of one copy.

    Raises:
      ValueError: for a length that does not fit the vocabulary or the context.

    Example:
      >>> tokens, n = repeated(np.random.default_rng(0), 1, range(1, 9), context=9, start=0)
      >>> n, bool((tokens[:, 1:5] == tokens[:, 5:]).all())
      (4, True)
    """
    check.integer("count", count, 1)
    lead = [] if start is None else [start]
    most = min(_LONGEST if length is None else context, (context - len(lead)) // 2, len(vocabulary))
    if most < 2:
        hint = "Two copies of at least 2 different tokens must fit"
        raise check.fail("model", "room for repeated tokens", f"a context of {context}", hint)
    n = check.integer("length", most if length is None else length, 2, most)
    drawn = np.stack([rng.choice(np.asarray(vocabulary), n, replace=False) for _ in range(count)])
    before = np.tile(np.asarray(lead, drawn.dtype), (count, 1))
    return np.concatenate([before, drawn, drawn], axis=1).astype(np.int32), n


def read_patterns(pattern: Any, n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of patterns on repeated tokens, as they are and without the sink.

    Args:
      pattern: (layer, batch, head, query, key) on tokens whose last 2 n are two equal copies.
      n: tokens of one copy.

    Returns:
      Two dicts of (layer, head), see the table of the module.

    Example:
      >>> previous = np.eye(5, k=-1)[None, None, None] + 0.0
      >>> float(read_patterns(previous, 2)[0]["previous"][0, 0])
      1.0
    """
    pattern = jnp.asarray(pattern)
    data = _offsets(pattern, n)
    data["sink"] = pattern[..., 1:, 0].mean(axis=(1, -1))
    return data, _offsets(without_sink(pattern), n)


def _offsets(pattern: jax.Array, n: int) -> dict[str, jax.Array]:
    def at(back: int, first: int) -> jax.Array:
        """Mean attention `back` positions earlier, of the queries from `first` on."""
        line = jnp.diagonal(pattern, -back, axis1=-2, axis2=-1)[..., first - back :]
        return line.mean(axis=(1, -1))

    second = pattern.shape[-1] - n
    places = jnp.arange(pattern.shape[-1])
    far = jnp.abs(places[:, None] - places[None]).astype(pattern.dtype)
    return {
        "previous": at(1, 1),
        "current": at(0, 1),
        "duplicate": at(n, second),
        "induction": at(n - 1, second),
        "distance": jnp.einsum("lbhts,ts->lbht", pattern, far)[..., 1:].mean(axis=(1, -1)),
    }


def without_sink(pattern: jax.Array) -> jax.Array:
    """The pattern with nothing on the first key, each row made to sum to 1 (or 0) again.

    Example:
      >>> without_sink(jnp.array([[0.5, 0.25, 0.25]])).tolist()
      [[0.0, 0.5, 0.5]]
    """
    rest = pattern.at[..., 0].set(0)
    total = rest.sum(axis=-1, keepdims=True)
    return rest / jnp.where(total > 1e-9, total, 1)


def mixed(
    rng: np.random.Generator,
    count: int,
    vocabulary: Sequence[int],
    classes: Sequence[Sequence[int]],
    size: int,
    start: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens with members of one class strewn in, and the earlier members of each.

    Returns:
      (row, position) ids and (row, query, key) booleans.

    Example:
      >>> tokens, same = mixed(np.random.default_rng(0), 1, range(1, 9), [[2, 4]], 6, 0)
      >>> int(same.sum()), int(tokens[0, 0])
      (1, 0)
    """
    members = {token for row in classes for token in row}
    others = np.array([token for token in vocabulary if token not in members] or list(vocabulary))
    lead = 0 if start is None else 1
    tokens = rng.choice(others, (count, size))
    tokens[:, :lead] = start if lead else tokens[:, :lead]
    is_member = np.zeros((count, size), bool)
    for i in range(count):
        names = classes[i % len(classes)]
        few = min(len(names), max((size - lead) // 2, 2))
        places = np.sort(rng.permutation(np.arange(lead, size))[:few])
        tokens[i, places] = rng.choice(names, few, replace=False)
        is_member[i, places] = True
    same = is_member[:, :, None] & is_member[:, None, :] & np.tri(size, k=-1, dtype=bool)
    return tokens.astype(np.int32), same


def rarest(text: np.ndarray, causal: bool) -> np.ndarray:
    """(row, query, key) the least frequent token in sight, by its count in all of the text.

    Example:
      >>> rarest(np.array([[1, 1, 2, 1]]), True)[0].astype(int).tolist()
      [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    """
    counts = np.bincount(text.ravel())[text]
    size = text.shape[1]
    sight = np.tri(size, dtype=bool) if causal else np.ones((size, size), bool)
    seen = np.where(sight[None], counts[:, None, :], np.inf)
    least = seen == seen.min(axis=-1, keepdims=True)
    least[:, : size // 4] = False  # near the start there is little to choose from
    return least
