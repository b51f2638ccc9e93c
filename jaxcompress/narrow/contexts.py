"""Tokens to be explained, in their contexts: those that a language model predicts well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxcompress import check
from jaxcompress.narrow.quanta import token_losses
from jaxcompress.narrow.texts import Texts

__all__ = ["Contexts", "is_repeat", "well_predicted"]


class Contexts(NamedTuple):
    """Chosen tokens.

    Attributes:
      rows: (token, position) the text that each stands in.
      places: (token,) where.
      families: of each; "" where it is unknown.
    """

    rows: np.ndarray
    places: np.ndarray
    families: list[str]


def is_repeat(tokens: Int[Any, "row position"]) -> np.ndarray:
    """Whether a token ends a trigram that stood before in its row, and could be copied from there.

    Returns:
      (row, position) bool.

    Example:
      >>> is_repeat(np.array([[5, 6, 7, 5, 6, 7, 5]])).astype(int).tolist()
      [[0, 0, 0, 0, 0, 1, 1]]
    """
    tokens = np.asarray(tokens)
    found = np.zeros(tokens.shape, bool)
    for row, line in enumerate(tokens.tolist()):
        seen = set()
        for i in range(2, len(line)):
            trigram = tuple(line[i - 2 : i + 1])
            found[row, i] = trigram in seen
            seen.add(trigram)
    return found


def well_predicted(
    apply: Callable[..., Any],
    params: Any,
    texts: Texts,
    *,
    count: int,
    limit: float = 0.1,
    repeats: bool = False,
    seed: int = 0,
) -> Contexts:
    """Tokens with a small loss, equally many of each family, drawn at random.

    Args:
      apply: `apply(params, tokens) -> Output`.
      params: of the model.
      texts: to choose from.
      count: tokens in all.
      limit: largest loss in nats; 0.1 in the paper.
      repeats: whether tokens that end a repeated trigram are kept; they are not in the paper.
      seed: of the choice.

    Raises:
      ValueError: if a family has no such token.

    Example:
      >>> import jax
      >>> class Output:
      ...     def __init__(self, tokens):
      ...         self.logits = 9.0 * jax.nn.one_hot(tokens, 4)
      >>> texts = Texts(np.array([[1, 1, 2, 2]]), np.ones((1, 4), bool), [""])
      >>> found = well_predicted(lambda params, tokens: Output(tokens), {}, texts, count=2)
      >>> sorted(found.places.tolist())
      [1, 3]

    Reference: Michaud et al. 2023 (arXiv 2303.13506), section 5.
    """
    losses = token_losses(apply, params, texts.rows)
    wanted = texts.wanted & (losses < limit)
    if not repeats:
        wanted = wanted & ~is_repeat(texts.rows)
    found, rng = np.argwhere(wanted), np.random.default_rng(seed)
    kinds = sorted(set(texts.families))
    family = np.array(texts.families)[found[:, 0]]
    picked: list[int] = []
    for kind in kinds:
        mine = np.flatnonzero(family == kind)
        if not len(mine):
            got = f"none of {kind or 'the text'} below {limit} nats"
            raise check.fail("limit", "a loss that some tokens of each family have", got)
        picked.extend(rng.permutation(mine)[: max(1, count // len(kinds))].tolist())
    where = found[picked]
    return Contexts(texts.rows[where[:, 0]], where[:, 1], family[picked].tolist())
