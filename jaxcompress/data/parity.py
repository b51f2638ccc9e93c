"""Sparse parity, many tasks at once: which bits count is said by control bits.

A task is a code: the atoms whose subsets of the bits are put together. Its label is the parity of
all of them. Data are made from a key inside the compiled step: 32 bits for each random number, and
labels by counting bits of words.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from jaxcompress import check

__all__ = [
    "Batch",
    "Parity",
    "choose",
    "compositional",
    "inputs",
    "multitask",
    "recall",
    "sample",
    "zipf",
]

_WORD = 32


@dataclasses.dataclass(frozen=True)
class Parity:
    """A family of tasks on the same random bits; hashable, so it can be a static argument.

    Attributes:
      bits: random bits of an example.
      subsets: for each atom the bits that count.
      codes: for each task its atoms.
    """

    bits: int
    subsets: tuple[tuple[int, ...], ...]
    codes: tuple[tuple[int, ...], ...]

    @property
    def inputs(self) -> int:
        """Numbers a network is given: one control bit for each atom, then the random bits."""
        return len(self.subsets) + self.bits

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks as text: `0`, `1`, `0+1`."""
        return tuple("+".join(map(str, code)) for code in self.codes)

    @functools.cached_property
    def control(self) -> Float[np.ndarray, "task atom"]:
        """Control bits of each task, several of them 1 for a composite."""
        found = np.zeros((len(self.codes), len(self.subsets)), np.float32)
        for row, code in zip(found, self.codes, strict=True):
            row[list(code)] = 1
        return found

    @functools.cached_property
    def counted(self) -> np.ndarray:
        """(task, bit) bool: the bits whose parity is the label."""
        found = np.zeros((len(self.codes), self.bits), bool)
        for row, code in zip(found, self.codes, strict=True):
            for atom in code:
                row[list(self.subsets[atom])] ^= True
        return found

    @property
    def difficulty(self) -> tuple[int, ...]:
        """How many bits count, for each task."""
        return tuple(self.counted.sum(axis=1).tolist())


class Batch(NamedTuple):
    """Examples.

    Attributes:
      bits: (example, bit) float32 of 0 and 1.
      task: (example,) int32.
      label: (example,) int32, 0 or 1.
    """

    bits: Any
    task: Any
    label: Any


def compositional(bits: int, atoms: int, size: int, codes: Sequence[Sequence[int]]) -> Parity:
    """Atoms with disjoint runs of bits, and tasks that put atoms together.

    Args:
      bits: random bits of an example.
      atoms: how many there are; atom i has bits `size * i` to `size * i + size - 1`.
      size: bits of an atom.
      codes: for each task its atoms, `[[0], [1], [0, 1]]`.

    Raises:
      ValueError: if the atoms need more bits than there are, or a code is empty, repeats an atom or
        names one that is absent.

    Example:
      >>> compositional(8, 2, 3, [[0], [1], [0, 1]]).difficulty
      (3, 3, 6)

    Reference: Michaud et al. 2025 (arXiv 2505.15811), section 3.
    """
    check.integer("bits", bits, 1)
    check.integer("atoms", atoms, 1)
    check.integer("size", size, 1)
    if atoms * size > bits:
        raise check.fail("size", f"atoms * size at most {bits} bits", f"{atoms} * {size}")
    if not len(codes):
        raise check.fail("codes", "at least one code", "none")
    for i, code in enumerate(codes):
        absent = sorted(set(code) - set(range(atoms)))
        if not len(code) or absent or len(set(code)) < len(code):
            expected = f"different atoms from 0 to {atoms - 1}"
            raise check.fail(f"codes[{i}]", expected, list(code))
    subsets = tuple(tuple(range(size * i, size * i + size)) for i in range(atoms))
    return Parity(bits, subsets, tuple(tuple(int(atom) for atom in code) for code in codes))


def multitask(bits: int, tasks: int, size: int, seed: int = 0) -> Parity:
    """Tasks with a random subset of the bits each; subsets differ, and may overlap.

    Args:
      bits: random bits of an example.
      tasks: how many.
      size: bits of each.
      seed: of the subsets.

    Raises:
      ValueError: if `size` is more than `bits`, or there are fewer subsets than tasks.

    Example:
      >>> found = multitask(10, 4, 3)
      >>> found.inputs, found.difficulty, len(set(found.subsets))
      (14, (3, 3, 3, 3), 4)

    Reference: Michaud et al. 2023 (arXiv 2303.13506), section 3.
    """
    check.integer("bits", bits, 1)
    check.integer("tasks", tasks, 1)
    check.integer("size", size, 1, bits)
    # Half of all subsets are found soon by drawing; beyond that it would take for ever.
    if tasks > 1 and tasks > _choices(bits, size) / 2:
        raise check.fail("tasks", f"at most half the subsets of {size} of {bits} bits", tasks)
    rng, found = np.random.default_rng(seed), dict[tuple[int, ...], None]()
    while len(found) < tasks:
        found[tuple(sorted(rng.choice(bits, size, replace=False).tolist()))] = None
    return Parity(bits, tuple(found), tuple((i,) for i in range(tasks)))


def zipf(count: int, exponent: float) -> Float[np.ndarray, "task"]:
    """Frequencies i^-exponent, i = 1 to `count`, that add up to 1.

    The quantization model writes the exponent as alpha + 1.

    Example:
      >>> (11 * zipf(3, 1.0)).round().tolist()
      [6.0, 3.0, 2.0]
    """
    check.integer("count", count, 1)
    weights = np.arange(1, count + 1, dtype=float) ** -exponent
    return (weights / weights.sum()).astype(np.float32)


def choose(weights: Any, size: int, key: Any = None) -> Int[Array, "example"]:
    """The task of every example, sorted; safe under jit with traced weights.

    Args:
      weights: (task,) shares that add up to 1.
      size: examples.
      key: draws tasks independently; without it every task gets its share exactly, up to rounding.

    Example:
      >>> choose(jnp.array([0.5, 0.25, 0.25]), 8).tolist()
      [0, 0, 0, 0, 1, 1, 2, 2]
    """
    bounds = jnp.cumsum(jnp.asarray(weights))
    places = (jnp.arange(size) + 0.5) / size
    if key is not None:
        places = jnp.sort(jax.random.uniform(key, (size,)))
    found = jnp.searchsorted(bounds / bounds[-1], places, side="right", method="compare_all")
    # Rounding may leave the last bound below 1; the last task of all may have no share.
    return jnp.minimum(found, len(bounds) - 1).astype(jnp.int32)


def sample(parity: Parity, key: Any, task: Any) -> Batch:
    """Fresh examples of given tasks.

    Args:
      parity: the family of tasks.
      key: typed PRNG key, consumed.
      task: (example,) int32 numbers of tasks, for example from `choose`.

    Example:
      >>> parity = compositional(4, 2, 2, [[0], [0, 1]])
      >>> batch = sample(parity, jax.random.key(0), jnp.array([0, 1, 1]))
      >>> sums = [batch.bits[0, :2].sum(), batch.bits[1].sum(), batch.bits[2].sum()]
      >>> [int(s) % 2 for s in sums] == batch.label.tolist()
      True
    """
    count = -(-parity.bits // _WORD)
    return _batch(parity, jax.random.bits(key, (len(task), count), jnp.uint32), task)


def recall(parity: Parity, key: Any, row: Any, weights: Any) -> Batch:
    """Examples of a fixed data set by their numbers; nothing is stored, a row is drawn anew.

    Args:
      parity: the family of tasks.
      key: typed PRNG key of the data set.
      row: (example,) int32 numbers; the data set has as many examples as numbers are used.
      weights: (task,) shares that tasks are drawn by.

    Example:
      >>> parity, key = multitask(8, 3, 2), jax.random.key(0)
      >>> batch = recall(parity, key, jnp.array([5, 6, 5]), zipf(3, 1.4))
      >>> bool((batch.bits[0] == batch.bits[2]).all()), bool((batch.bits[0] == batch.bits[1]).all())
      (True, False)
    """
    count = -(-parity.bits // _WORD)
    # One word more than the bits need: it draws the task.
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(row)
    words = jax.vmap(lambda key: jax.random.bits(key, (count + 1,), jnp.uint32))(keys)
    bounds = jnp.cumsum(jnp.asarray(weights))
    place = (words[:, 0] >> 8).astype(jnp.float32) * (bounds[-1] / 2**24)
    task = jnp.searchsorted(bounds, place, side="right", method="compare_all")
    task = jnp.minimum(task, len(bounds) - 1).astype(jnp.int32)
    return _batch(parity, words[:, 1:], task)


def _batch(parity: Parity, words: Any, task: Any) -> Batch:
    """Bits and labels from random words (example, word)."""
    count = words.shape[1]
    masks = jnp.asarray(_packed(parity))[task]
    ones = jax.lax.population_count(words & masks).sum(axis=1)
    shifts = jnp.arange(_WORD, dtype=jnp.uint32)
    bits = (words[:, :, None] >> shifts[None, None]) & jnp.uint32(1)
    bits = bits.reshape(len(task), count * _WORD)[:, : parity.bits]
    return Batch(bits.astype(jnp.float32), task, (ones & 1).astype(jnp.int32))


def inputs(parity: Parity, batch: Batch) -> Float[Array, "example input"]:
    """Control bits and random bits side by side, as a network is given them.

    Example:
      >>> parity = compositional(4, 2, 2, [[0], [0, 1]])
      >>> batch = Batch(jnp.zeros((1, 4)), jnp.array([1]), jnp.array([0]))
      >>> inputs(parity, batch).tolist()
      [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    """
    control = jnp.asarray(parity.control)[batch.task]
    return jnp.concatenate([control, batch.bits], axis=1)


def _choices(bits: int, size: int) -> float:
    return float(np.prod([(bits - i) / (i + 1) for i in range(size)]))


def _packed(parity: Parity) -> UInt32[np.ndarray, "task word"]:
    """The counted bits as words, bit j of a word being the j-th of its 32."""
    count = -(-parity.bits // _WORD)
    padded = np.zeros((len(parity.codes), count * _WORD), np.uint64)
    padded[:, : parity.bits] = parity.counted
    powers = np.uint64(1) << np.arange(_WORD, dtype=np.uint64)
    return (padded.reshape(-1, count, _WORD) * powers).sum(axis=-1).astype(np.uint32)
