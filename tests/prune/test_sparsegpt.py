"""SparseGPT: golden values, the optimal brain surgeon in float64, and less error than Wanda."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.prune import patterns, sparsegpt, weights


def wave(rows, columns, shift):
    """The matrix M(a, b, s) of reference/compression.md B.9."""
    return np.sin(0.7 * np.arange(rows * columns).reshape(rows, columns) + shift)


def problem(seed=0, *, stack=(), inputs=6, outputs=5, tokens=40):
    """A kernel, and inputs that are strongly correlated."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((inputs, inputs)) * 0.6 ** np.arange(inputs)[:, None]
    x = rng.standard_normal((*stack, tokens, inputs)) @ mixed + 0.3
    kernel = rng.standard_normal((*stack, inputs, outputs))
    return kernel, x, np.swapaxes(x, -1, -2) @ x


def single(*arrays):
    return tuple(jnp.array(array, jnp.float32) for array in arrays)


def surgeon(kernel, moment, choose, *, block, damping=0.01):
    """Optimal brain surgeon on the inputs not yet processed, in float64, by inverting what is left.

    Hassibi and Stork 1993: w_m goes, the others change by -w_m / [H^-1]_mm H^-1[:, m].
    """
    inputs = len(moment)
    moment = moment + damping * np.trace(moment) / inputs * np.eye(inputs)
    kernel, mask = kernel.copy(), np.ones(kernel.shape, bool)
    for j in range(inputs):
        if j % block == 0:
            rows = range(j, min(j + block, inputs))
            scores = [kernel[i] ** 2 / np.linalg.inv(moment[i:, i:])[0, 0] for i in rows]
            mask[rows] = choose(np.array(scores), j // block)
        left = np.linalg.inv(moment[j:, j:])
        gone = np.where(mask[j], 0, kernel[j])
        kernel[j:] -= np.outer(left[:, 0] / left[0, 0], gone)
    return kernel, mask


def error(x, kernel, changed):
    return np.sum((x @ np.float64(changed) - x @ kernel) ** 2)


def test_saliency_golden():
    # B.9 has outputs first; ours has inputs first.
    kernel, inputs = wave(3, 4, 0.1).T, wave(4, 8, 0.5)
    score = sparsegpt.saliency(*single(kernel, inputs @ inputs.T))
    golden = [8.6758e-4, 0.08676051, 1.66525304, 2.56738829]
    np.testing.assert_allclose(score[:, 0], golden, rtol=2e-5)


def test_saliency_of_independent_inputs_is_wanda_squared():
    kernel, norms = np.random.default_rng(0).uniform(0.5, 2, (2, 6, 5)), np.arange(1.0, 13)
    norms = norms.reshape(2, 6)
    moment = np.stack([np.diag(row**2) for row in norms])
    kernel, moment, norms = single(kernel, moment, norms)
    score = sparsegpt.saliency(kernel, moment, damping=0.0)
    np.testing.assert_allclose(score, weights.wanda(kernel, norms) ** 2, rtol=1e-5)


def lowest(count, size):
    """Prunes the `count(block)` lowest of all scores of a block; see `surgeon`."""

    def choose(scores, block):
        threshold = np.sort(scores.ravel())[count[block] - 1] if count[block] else -1
        return scores > threshold

    assert sum(count) <= size
    return choose


@pytest.mark.parametrize(
    ("block", "counts"),
    # 30 weights, 40 % of which is 12: spread over blocks of 4 and 2, or over all 6 inputs.
    [(4, [8, 4]), (6, [12]), (128, [12])],
)
def test_sparsegpt_is_the_surgeon(block, counts):
    kernel, _, moment = problem()
    expected, kept = surgeon(kernel, moment, lowest(counts, 30), block=block)
    got, mask = sparsegpt.sparsegpt(*single(kernel, moment), 0.4, block=block)
    np.testing.assert_array_equal(mask, kept)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    assert not got[~mask].any()


@pytest.mark.parametrize(("keep", "of"), [(1, 3), (2, 3)])
def test_sparsegpt_n_of_m_is_the_surgeon(keep, of):
    kernel, _, moment = problem(1)

    def choose(scores, _):
        return scores >= np.sort(scores, axis=0)[-keep]

    expected, kept = surgeon(kernel, moment, choose, block=of)
    got, mask = sparsegpt.sparsegpt_n_of_m(*single(kernel, moment), keep=keep, of=of)
    np.testing.assert_array_equal(mask, kept)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    assert (mask.reshape(-1, of, 5).sum(axis=1) == keep).all()


def test_the_last_input_makes_up_for_all_others():
    """If only the last input stays, its weights are the least-squares answer."""
    kernel, x, moment = problem(2)
    kernel[:5] *= 0.1  # so that these go
    got, mask = sparsegpt.sparsegpt(*single(kernel, moment), 25 / 30, damping=0.0)
    assert mask.all(axis=1).tolist() == [False] * 5 + [True]
    best = np.linalg.lstsq(x[:, 5:], x @ kernel, rcond=None)[0]
    assert np.abs(best - kernel[5:]).max() > 0.1
    np.testing.assert_allclose(got[5:], best, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_less_error_than_wanda_at_equal_sparsity(seed):
    kernel, x, moment = problem(seed, inputs=12, outputs=8, tokens=60)
    kernel32, moment32 = single(kernel, moment)
    norms = jnp.array(np.linalg.norm(x, axis=0), jnp.float32)
    by_wanda = patterns.per_row(weights.wanda(kernel32, norms), 0.5)
    corrected, mask = sparsegpt.sparsegpt(kernel32, moment32, 0.5)
    assert mask.sum() == by_wanda.sum() == 48
    assert error(x, kernel, corrected) < 0.7 * error(x, kernel, np.where(by_wanda, kernel, 0))
    # The correction is what does it, not only the choice.
    assert error(x, kernel, corrected) < 0.7 * error(x, kernel, np.where(mask, kernel, 0))


STACK = {"stack": (2,), "inputs": 7, "outputs": 3}


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.99])
def test_counts_are_exact(sparsity):
    """Of each matrix of a stack, over a last block that is smaller."""
    kernel, _, moment = problem(3, **STACK)
    got, mask = sparsegpt.sparsegpt(*single(kernel, moment), sparsity, block=3)
    assert ((~mask).sum(axis=(1, 2)) == round(sparsity * 21)).all()
    if sparsity == 0:
        np.testing.assert_array_equal(got, np.float32(kernel))


def test_stacks_scales_and_types():
    """A stack is its matrices one by one; a mean does as well as a sum; halves stay halves."""
    kernel, _, moment = problem(4, **STACK)
    stacked = sparsegpt.sparsegpt(*single(kernel, moment), 0.4, block=3)
    for i in range(2):
        alone = sparsegpt.sparsegpt(*single(kernel[i], moment[i]), 0.4, block=3)
        np.testing.assert_allclose(alone[0], stacked[0][i], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(alone[1], stacked[1][i])
    mean = sparsegpt.sparsegpt(*single(kernel, moment / 40), 0.4, block=3)
    np.testing.assert_allclose(mean[0], stacked[0], rtol=1e-3, atol=1e-4)
    half = single(kernel)[0].astype(jnp.bfloat16)
    rounded, mask = sparsegpt.sparsegpt(half, *single(moment), 0.4, block=3)
    exact, same = sparsegpt.sparsegpt(half.astype(jnp.float32), *single(moment), 0.4, block=3)
    assert rounded.dtype == jnp.bfloat16 and (mask == same).all()
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))


def test_inputs_that_are_never_active():
    """Their weights go first; a matrix without any active input is pruned by magnitude."""
    kernel, x, _ = problem(5)
    kernel = np.sign(kernel)
    x[:, [1, 4]] = 0
    _, mask = sparsegpt.sparsegpt(*single(kernel, x.T @ x), 1 / 3)
    assert mask.all(axis=1).tolist() == [True, False, True, True, False, True]
    dead = single(np.arange(1.0, 31).reshape(6, 5), np.zeros((6, 6)))
    corrected, mask = sparsegpt.sparsegpt(*dead, 0.5)
    np.testing.assert_array_equal(corrected, jnp.where(dead[0] > 15, dead[0], 0))
    empty = sparsegpt.sparsegpt(jnp.zeros((0, 8)), jnp.zeros((0, 0)), 0.5)
    assert empty[0].shape == empty[1].shape == (0, 8)


def test_sparsegpt_under_jit_with_a_traced_sparsity():
    kernel, _, moment = problem()
    arrays = single(kernel, moment)
    expected = sparsegpt.sparsegpt(*arrays, 0.4, block=4)
    traced = jax.jit(lambda sparsity: sparsegpt.sparsegpt(*arrays, sparsity, block=4))(0.4)
    np.testing.assert_allclose(traced[0], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(traced[1], expected[1])


def test_wrong_arguments():
    kernel, moment = jnp.ones((6, 5)), jnp.eye(6)
    with pytest.raises(ValueError, match=r"sparsity: expected a number in \[0, 1\)"):
        sparsegpt.sparsegpt(kernel, moment, 1.0)
    with pytest.raises(ValueError, match="block: expected a whole number >= 1"):
        sparsegpt.sparsegpt(kernel, moment, 0.5, block=0)
    with pytest.raises(ValueError, match="multiple of 4 inputs"):
        sparsegpt.sparsegpt_n_of_m(kernel, moment, keep=2, of=4)
