"""One shot, rounds and the cubic."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress.matrices import Layout, matrices
from jaxcompress.prune import masks, patterns, schedule, weights


def draw(seed, *shape):
    return jnp.array(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


PARAMS = {"a": {"kernel": draw(0, 4, 6), "bias": draw(1, 6)}, "b": {"kernel": draw(2, 6, 2, 2)}}
B = Layout(0, 1)


def by_magnitude(params):
    """Matrix views, so that one of the scores has not the shape of its parameter."""
    b = matrices(params["b"]["kernel"], B)
    return {
        "a/kernel": weights.magnitude(params["a"]["kernel"]),
        "b/kernel": weights.magnitude(b),
    }


def zeros(params):
    return [int((leaf == 0).sum()) for leaf in (params["a"]["kernel"], params["b"]["kernel"])]


def test_one_shot():
    params, kept = schedule.one_shot(PARAMS, by_magnitude, patterns.per_tensor, 0.25)
    assert zeros(params) == [6, 6]
    assert kept["b/kernel"].shape == (6, 2, 2)
    assert (params["a"]["bias"] == PARAMS["a"]["bias"]).all()
    for path in ("a", "b"):
        dense = np.abs(PARAMS[path]["kernel"])
        np.testing.assert_array_equal(kept[f"{path}/kernel"], dense > np.sort(dense, axis=None)[5])


def test_one_shot_takes_any_pattern():
    half = functools.partial(patterns.n_of_m, keep=1, of=2)
    params, _ = schedule.one_shot(PARAMS, by_magnitude, lambda scores, _: half(scores), None)
    assert zeros(params) == [12, 12]
    params, kept = schedule.one_shot(PARAMS, by_magnitude, patterns.global_, 0.3)
    assert sum(zeros(params)) == round(0.3 * 48)
    np.testing.assert_allclose(masks.density(kept), 1 - 14 / 48, rtol=1e-6)


def test_what_an_earlier_round_pruned_stays_so_whatever_the_pattern():
    kernel, earlier = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[False, True]] * 2)
    for pattern in (patterns.per_row, patterns.per_tensor):
        kept = schedule.one_shot(
            {"a": kernel}, lambda params: params, pattern, 0.5, {"a": earlier}
        )[1]["a"]
        assert not (kept & ~earlier).any()
        assert kept.sum() == (1 if pattern is patterns.per_row else 2)


def test_rounds_score_anew_and_never_bring_back():
    """Random scores, new ones each round: what is gone stays gone, and the counts are exact."""
    seen, keys = [], iter(jax.random.split(jax.random.key(0), 3))

    def score(params):
        seen.append(params)
        key = next(keys)
        return {"a/kernel": weights.random(key, params["a"]["kernel"])}

    history = []

    def recover(params, kept):
        history.append(kept["a/kernel"])
        return jax.tree.map(lambda leaf: 2 * leaf, params)

    levels = [0.25, 0.5, 0.75]
    params, kept = schedule.iterative(PARAMS, score, patterns.per_tensor, levels, recover)
    assert [int((~mask).sum()) for mask in history] == [6, 12, 18]
    for before, after in itertools.pairwise(history):
        assert not (after & ~before).any()
    # Each round sees what the one before has left.
    np.testing.assert_allclose(seen[2]["a"]["bias"], 4 * PARAMS["a"]["bias"])
    assert int((seen[2]["a"]["kernel"] == 0).sum()) == 12
    expected = jnp.where(kept["a/kernel"], 8 * PARAMS["a"]["kernel"], 0)
    np.testing.assert_allclose(params["a"]["kernel"], expected, rtol=1e-6)
    assert kept.keys() == {"a/kernel"}


def test_rounds_differ_from_one_shot_when_scores_depend_on_what_is_left():
    """Two weights do the same job too well: once one of them is gone the other one hardly hurts.

    |g w| is 0.81, 0.818 and 0.815; without the first it is 0.19 for the second.
    """

    def score(params):
        def loss(w):
            return ((w[0, 0] + w[0, 1] - 1.2) ** 2 + 0.815 * w[0, 2] ** 2) / 2

        return {"w": weights.magnitude(params["w"] * jax.grad(loss)(params["w"]))}

    params = {"w": jnp.array([[1.0, 1.01, 1.0]])}
    once, _ = schedule.one_shot(params, score, patterns.per_tensor, 2 / 3)
    rounds, _ = schedule.iterative(params, score, patterns.per_tensor, [1 / 3, 2 / 3])
    assert (once["w"][0] != 0).tolist() == [False, True, False]
    assert (rounds["w"][0] != 0).tolist() == [False, False, True]


@pytest.mark.parametrize("levels", [[], [0.5, 0.4]])
def test_rounds_do_not_fall(levels):
    with pytest.raises(ValueError, match="sparsities: expected one or more numbers"):
        schedule.iterative(PARAMS, by_magnitude, patterns.per_tensor, levels)


def test_wrong_scores():
    def one(path, array):
        return lambda params: {path: array}

    with pytest.raises(ValueError, match=r"scores: expected paths among \['a/bias', 'a/kernel'"):
        schedule.one_shot(PARAMS, one("c", jnp.ones((2, 2))), patterns.per_tensor, 0.5)
    with pytest.raises(ValueError, match=r"scores\['a/kernel'\]: expected the size of \(4, 6\)"):
        schedule.one_shot(PARAMS, one("a/kernel", jnp.ones((2, 2))), patterns.per_tensor, 0.5)
    earlier = {"a/bias": jnp.ones(6, bool)}
    with pytest.raises(ValueError, match=r"earlier: expected paths among \['a/kernel'"):
        schedule.one_shot(PARAMS, by_magnitude, patterns.per_tensor, 0.5, earlier)


def test_cubic_golden():
    # reference/compression.md B.3
    sparsity = schedule.cubic(0.9, 40, begin=10)
    golden = [0, 0, 0.5203, 0.7875, 0.8859, 0.9, 0.9]
    steps = [0, 10, 20, 30, 40, 50, 90]
    np.testing.assert_allclose([sparsity(t) for t in steps], golden, atol=5e-5)


def test_cubic_by_definition():
    sparsity = jax.jit(schedule.cubic(0.8, 7, begin=2, initial=0.3))
    for step in range(2, 10):
        expected = 0.8 + (0.3 - 0.8) * (1 - (step - 2) / 7) ** 3
        np.testing.assert_allclose(sparsity(step), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"final": 1.0, "steps": 4}, "final"),
        ({"final": 0.5, "steps": 4, "initial": 0.6}, "initial"),
        ({"final": 0.5, "steps": 0}, "steps"),
        ({"final": 0.5, "steps": 4, "begin": -1}, "begin"),
    ],
)
def test_cubic_is_checked(arguments, name):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        schedule.cubic(**arguments)


def test_gradual_pruning_in_one_compiled_step():
    """The cubic, the selection and `keep_zeros` under one jit: masks that grow as it trains."""
    inputs, truth = draw(4, 30, 8), draw(5, 8, 2)
    targets = inputs @ jnp.where(patterns.per_tensor(jnp.abs(truth), 0.75), truth, 0)
    sparsity = schedule.cubic(0.75, 20, begin=5)
    params = {"kernel": jnp.array(draw(6, 8, 2))}
    everything = {"kernel": jnp.ones((8, 2), bool)}
    optimizer = masks.keep_zeros(optax.adamw(0.05, weight_decay=0.0), everything)

    @jax.jit
    def step(params, state, at):
        params, kept = schedule.one_shot(
            params,
            lambda p: jax.tree.map(jnp.abs, p),
            patterns.per_tensor,
            sparsity(at),
            state.masks,
        )
        state = state._replace(masks=kept)

        def loss(params):
            return jnp.mean((inputs @ params["kernel"] - targets) ** 2)

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for at in range(60):
        params, state = step(params, state, at)
        assert int((params["kernel"] == 0).sum()) == round(float(sparsity(at)) * 16)
    assert step._cache_size() == 1


def test_ascend_is_descent_of_the_negative():
    params, climb = {"m": jnp.array([1.0, -2.0])}, schedule.ascend(optax.adam(0.1))
    down, state, other = optax.adam(0.1), climb.init(params), optax.adam(0.1).init(params)
    for _ in range(3):
        gradient = jax.tree.map(jnp.cos, params)
        updates, state = climb.update(gradient, state, params)
        expected, other = down.update(jax.tree.map(jnp.negative, gradient), other, params)
        np.testing.assert_allclose(updates["m"], expected["m"], rtol=1e-6)
        params = optax.apply_updates(params, updates)
