"""What each attention head does, told by where it looks: one score for each head and role.

| role             | score (per head, mean over prompts and queries)                     |
|------------------|-------------------------------------------------------------------------------|
| `previous`       | attention to the token just before; all queries but the first                 |
| `current`        | attention to the token itself                                                 |
| `duplicate`      | attention to the earlier copy of this token; queries in the second copy       |
| `induction`      | attention to the token after that copy; queries in the second copy            |
| `sink`           | attention to the first position; all queries but the first                    |
| `distance`       | mean attended distance, in positions: long-range heads have a large one       |
| `positional`     | 1 - mean total variation from the head's mean pattern: 1 looks at places only |
| `rare`           | attention to the rarest token in sight, itself included                       |
| `similar_member` | attention from a member of an ordered class to earlier members of that class  |

All but `distance` are in [0, 1]. The first six and `positional` are read off repeated random tokens
`[bos] s_1 ... s_n s_1 ... s_n`, where content says nothing but what repeats. What the weights alone
say is in `role_weights`.

References: previous-token, duplicate-token and induction as in TransformerLens's `head_detector`
(error measure "mul": the share of attention on the pattern) and Olsson et al. 2022 (arXiv
2209.11895), section "Model Analysis Table"; positional and rare-token heads after Voita et al. 2019
(arXiv 1905.09418), section 5; similar-member heads as in Lan et al. 2023 (arXiv 2311.04131),
section 4; attention sinks, Xiao et al. 2023 (arXiv 2309.17453), section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import check
from jaxcompress.circuits.role_patterns import mixed, rarest, read_patterns, repeated
from jaxcompress.circuits.role_weights import weight_roles
from jaxcompress.tasks import sequences
from jaxcompress.tasks.pairs import generator
from jaxcompress.tasks.tokens import ordinary_ids, prompt_ids, reader

__all__ = ["Roles", "attended", "members_of", "roles"]


@dataclasses.dataclass(frozen=True)
class Roles:
    """Scores by role, each (layer, head) NumPy.

    Attributes:
      data: read off attention patterns, see the table of the module.
      no_sink: the same with attention to the first position taken out and the rest made to sum to
        1; the roles for which that means something.
      weights: read off the weights, see `role_weights`.
    """

    data: dict[str, np.ndarray]
    no_sink: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]

    def best(self, role: str) -> tuple[int, int]:
        """(layer, head) of the highest score.

        Raises:
          ValueError: for a role that was not measured.
        """
        every = {**self.weights, **self.data}
        scores = every[check.known("role", role, every)]
        layer, head = np.unravel_index(np.nanargmax(scores), scores.shape)
        return int(layer), int(head)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each head, with all scores by name."""
        named = {**self.data, **{f"{k} (no sink)": v for k, v in self.no_sink.items()}}
        named |= {f"{k} (weights)": v for k, v in self.weights.items()}
        shape = next(iter(named.values())).shape
        return [
            {"layer": layer, "head": head}
            | {name: float(value[layer, head]) for name, value in named.items()}
            for layer, head in np.ndindex(*shape)
        ]


def roles(
    model: Any,
    *,
    key: jax.Array,
    count: int = 32,
    length: int | None = None,
    vocabulary: Sequence[int] | None = None,
    start: int | None = None,
    members: Sequence[Sequence[int]] | None = None,
    text: Any = None,
    batch: int = 16,
) -> Roles:
    """Scores every head by every role.

    Args:
      model: with `config`, `params` and an `apply` with the tap `pattern`; a causal or a
        bidirectional one, with any number of key/value heads. A tokenizer, if it has one, tells
        the ordinary tokens, the start token and the members.
      key: typed PRNG key, consumed.
      count: random prompts.
      length: n, different tokens of one copy; as many as fit, at most 10, by default.
      vocabulary: ids to draw from; by default the tokenizer's, or all but `start`.
      start: id put first; by default the tokenizer's start token, else none.
      members: classes of ids in order, for `similar_member` and `successor`; by default those of
        `tasks.sequences` that are single tokens.
      text: (row, position) ids of natural text, unpadded, for `rare`; left out without it.
      batch: prompts that are run together: memory is (layer, batch, head, position, position).

    Returns:
      `Roles`. Heads that an unevenly shrunk layer lacks score 0 by data and NaN by weights.

    Raises:
      ValueError: for a context or vocabulary too small for two copies of 2 tokens.

    Example:
      >>> from jaxcompress.models.config import ModelConfig
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=9)
      >>> found = roles(create(config, key=jax.random.key(0)), key=jax.random.key(1), count=2)
      >>> found.data["induction"].shape, found.best("induction")[0] in (0, 1)
      ((2, 2), True)

    Reference: see the module.
    """
    config, tokenizer = model.config, getattr(model, "tokenizer", None)
    if start is None and tokenizer is not None:
        first = [getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "cls")]
        start = next((token for token in first if token is not None), None)
    if vocabulary is None:
        known = range(config.vocab) if tokenizer is None else ordinary_ids(tokenizer)
        vocabulary = [token for token in known if token != start]
    if members is None:
        members = [] if tokenizer is None else members_of(tokenizer)
    rng = generator(key)
    tokens, n = repeated(rng, count, vocabulary, context=config.context, length=length, start=start)
    parts = [read_patterns(p, n) for p in _patterns(model, tokens, batch)]
    data = _mean([one for one, _ in parts])
    bare = _mean([one for _, one in parts])
    data["positional"] = _positional(_patterns(model, tokens, batch))
    classes = [row for row in members if len(row) > 2]
    if classes:
        strewn, same = mixed(rng, count, vocabulary, classes, tokens.shape[1], start)
        data["similar_member"] = attended(model, strewn, same, batch=batch)
    if text is not None:
        text = np.asarray(text)
        data["rare"] = attended(model, text, rarest(text, config.causal), batch=batch)
    return Roles(data, bare, weight_roles(model, members=classes))


def members_of(tokenizer: Any) -> list[list[int]]:
    """Ordered classes (numerals, number words, months) as ids, those that are single tokens.

    Example:
      >>> words = {name: i for i, name in enumerate(sequences.MEMBERS["months"])}
      >>> found = members_of(lambda text: {"input_ids": [words[text.strip()]]
      ...                                  if text.strip() in words else []})
      >>> len(found), found[0][:3]
      (1, [0, 1, 2])
    """
    read, found = reader(tokenizer), []
    empty = len(prompt_ids(read, ""))
    for names in sequences.MEMBERS.values():
        ids = [prompt_ids(read, f" {name}")[empty:] for name in names]
        if all(len(row) == 1 and row[0] != read.unknown for row in ids):
            found.append([row[0] for row in ids])
    return found


def _patterns(model: Any, tokens: np.ndarray, batch: int) -> Any:
    """(layer, batch, head, query, key) of one part of the prompts after the other."""
    for i in range(0, len(tokens), batch):
        rows = jnp.asarray(tokens[i : i + batch])
        yield model.apply(model.params, rows, taps=("pattern",)).taps["pattern"]


def _mean(parts: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.mean([np.asarray(part[name]) for part in parts], axis=0) for name in parts[0]}


def _positional(patterns: Any) -> np.ndarray:
    every = np.concatenate([np.asarray(part) for part in patterns], axis=1)
    apart = 0.5 * np.abs(every - every.mean(axis=1, keepdims=True)).sum(axis=-1)
    return 1 - apart[..., 1:].mean(axis=(1, -1))


def attended(model: Any, tokens: np.ndarray, where: np.ndarray, *, batch: int = 16) -> np.ndarray:
    """(layer, head) mean attention to chosen keys, over the queries that have some.

    Args:
      model: as in `roles`.
      tokens: (row, position), unpadded.
      where: (row, query, key) booleans.
      batch: rows that are run together.

    Example:
      >>> from jaxcompress.models.config import ModelConfig
      >>> from jaxcompress.models import create
      >>> config = ModelConfig(family="gpt2", layers=2, heads=2, kv_heads=2, head_dim=4, width=8,
      ...                      neurons=16, vocab=11, context=9)
      >>> model = create(config, key=jax.random.key(0))
      >>> attended(model, np.ones((1, 3), int), np.ones((1, 3, 3), bool)).round(3).tolist()
      [[1.0, 1.0], [1.0, 1.0]]
    """
    total, queries = 0.0, where.any(axis=-1).sum()
    for i, pattern in enumerate(_patterns(model, tokens, batch)):
        some = where[i * batch : (i + 1) * batch].astype(np.float32)
        total = total + np.einsum("lbhts,bts->lh", np.asarray(pattern), some)
    return np.asarray(total) / max(queries, 1)
