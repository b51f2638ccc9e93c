"""Exactly so many components are shut, the lowest first, ties by place."""

from __future__ import annotations

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxcompress.models import Gates
from jaxcompress.prune import budget, flops_per_token, parameters, select, shrink
from jaxcompress.prune.scores import marked
from tests import families

CONFIG = families.config("gpt2")


def drawn(seed, *, ties=False):
    rng = np.random.default_rng(seed)
    draw = (lambda *s: rng.integers(0, 3, s)) if ties else (lambda *s: rng.standard_normal(s))
    return Gates(
        heads=draw(3, 4).astype(float),
        neurons=draw(3, 6).astype(float),
        width=draw(8).astype(float),
    )


@hypothesis.given(st.integers(0, 999), st.floats(0, 0.99), st.booleans())
def test_global_counts_and_order(seed, sparsity, ties):
    scores = drawn(seed, ties=ties)
    gates = select(scores, sparsity)
    for name in ("heads", "neurons", "width"):
        gate, values = getattr(gates, name), getattr(scores, name)
        assert set(np.unique(gate)) <= {0.0, 1.0}
        assert (gate == 0).sum() == round(sparsity * gate.size)
        if 0 < gate.sum() < gate.size:
            assert values[gate == 0].max() <= values[gate == 1].min()
    assert gates.attns is None and gates.mlps is None
    again = select(scores, sparsity)
    np.testing.assert_array_equal(again.heads, gates.heads)


def test_of_equals_the_earlier_stays():
    gates = select(Gates(heads=np.zeros((3, 4))), 0.25)
    np.testing.assert_array_equal(gates.heads, [[1] * 4, [1] * 4, [1, 0, 0, 0]])


@hypothesis.given(st.integers(0, 999), st.floats(0, 0.99))
def test_per_layer(seed, sparsity):
    gates = select(drawn(seed), sparsity, scope="layer")
    assert ((gates.heads == 0).sum(axis=1) == round(sparsity * 4)).all()
    assert ((gates.neurons == 0).sum(axis=1) == round(sparsity * 6)).all()


@hypothesis.given(st.integers(0, 999), st.floats(0, 0.7))
def test_at_least(seed, sparsity):
    scores = drawn(seed)
    gates = select(scores, sparsity, at_least=1)
    assert (gates.heads.sum(axis=1) >= 1).all() and (gates.neurons.sum(axis=1) >= 1).all()
    assert (gates.heads == 0).sum() == round(sparsity * 12)
    best = scores.heads.argmax(axis=1)
    assert (gates.heads[np.arange(3), best] == 1).all()


def test_equally_many_heads_of_every_group():
    scores = Gates(heads=np.array([[5.0, 1.0, 2.0, 8.0], [9.0, 9.0, 7.0, 3.0]]))
    # Units: the lower heads of both groups of a layer, means 1.5 and 6; the higher, 6.5 and 8.
    gates = select(scores, 0.25, groups=2, equal=True)
    assert gates.heads.tolist() == [[1, 0, 0, 1], [1, 1, 1, 1]]
    gates = select(scores, 0.5, groups=2, equal=True)
    assert gates.heads.tolist() == [[1, 0, 0, 1], [1, 0, 1, 0]]
    gates = select(scores, 0.5, groups=2, equal=True, at_least=2)
    assert gates.heads.tolist() == [[1, 0, 0, 1], [1, 0, 1, 0]]
    with pytest.raises(ValueError, match="at_least"):
        select(scores, 0.5, groups=2, equal=True, at_least=3)
    with pytest.raises(ValueError, match="groups: expected fewer than heads"):
        select(scores, 0.5, groups=4, equal=True)
    with pytest.raises(ValueError, match="groups: expected how many there are"):
        select(scores, 0.5, equal=True)


def test_equal_groups_keep_sharing_keys():
    """What is left of a grouped model has its key/value heads: stock transformers loads it."""
    model = families.model("llama")
    rng = np.random.default_rng(0)
    gates = select(Gates(heads=rng.random((3, 4))), 0.5, scope="layer", groups=2, equal=True)
    small = shrink(model, gates)
    assert small.config.stacked and (small.config.heads, small.config.kv_heads) == (2, 2)


def test_whole_groups():
    heads = np.array([[9.0, 0.0, 4.0, 4.0], [1.0, 1.0, 5.0, 5.0], [2.0, 2.0, 8.0, 8.0]])
    gates = select(Gates(heads=heads), 0.5, groups=2)
    np.testing.assert_array_equal(gates.heads, [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])


UNEVEN = families.config("uneven")  # (4, 2, 0) heads over (2, 1, 0), (6, 3, 0) neurons


@hypothesis.given(st.integers(0, 999), st.floats(0, 0.99), st.sampled_from(["global", "layer"]))
def test_layers_of_several_sizes_lose_a_share_of_what_they_have(seed, sparsity, scope):
    gates = select(marked(UNEVEN, drawn(seed)), sparsity, scope=scope)
    for name, sizes in (("heads", (4, 2, 0)), ("neurons", (6, 3, 0))):
        shut = (getattr(gates, name) == 0).sum(axis=1)
        if scope == "layer":
            assert shut.tolist() == [round(sparsity * size) for size in sizes]
        else:
            assert shut.sum() == round(sparsity * sum(sizes)) and (shut <= sizes).all()
        # What is shut is there.
        assert all(getattr(gates, name)[i, size:].all() for i, size in enumerate(sizes))


def test_whole_groups_of_layers_of_several_sizes():
    heads = np.array([[4.0, 5, 7, 7], [1, 2, 0, 0], [0, 0, 0, 0]])
    scores, every = marked(UNEVEN, Gates(heads=heads)), [1, 1, 1, 1]
    options = {"sparsity": 1 / 3, "groups": [2, 1, 0]}
    np.testing.assert_array_equal(select(scores, **options).heads, [every, [0, 0, 1, 1], every])
    kept = select(scores, **options, at_least=1).heads
    np.testing.assert_array_equal(kept, [[0, 0, 1, 1], every, every])


def test_what_is_shut_stays_shut():
    first = select(drawn(0), 0.5)
    second = select(drawn(1), 0.75, start=first)
    assert (second.heads <= first.heads).all() and (second.width <= first.width).all()
    assert (second.heads == 0).sum() == 9


@pytest.mark.parametrize(
    ("start", "options"),
    [
        ([[1, 0, 0, 0]], {}),
        ([[1, 1], [0, 0]], {"scope": "layer"}),
        ([[1, 1], [0, 0]], {"at_least": 1}),
        ([[1, 1, 1, 0]], {"groups": 2}),
    ],
)
def test_a_start_that_would_come_back_is_refused(start, options):
    scores = Gates(heads=np.arange(np.size(start), 0.0, -1).reshape(np.shape(start)))
    share = 0.0 if "groups" in options else 0.5
    with pytest.raises(ValueError, match="start.heads: expected nothing shut"):
        select(scores, share, start=Gates(heads=np.array(start, float)), **options)


def test_a_minimum_above_what_a_layer_has_is_all_of_it():
    scores = Gates(heads=np.ones((2, 4)), neurons=np.ones((2, 64)))
    gates = select(scores, 0.05, at_least=8)
    assert gates.heads.all() and (gates.neurons == 0).sum() == 6


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_budgets_are_met_and_not_undercut(name, share):
    config = families.config(name)
    scores = dataclasses.replace(drawn(2), width=None)
    whole, least = parameters(config), parameters(config, Gates(neurons=np.zeros((3, 6))))
    limit = int(least + share * (whole - least))
    gates = budget(config, scores, parameters=limit)
    got = parameters(config, gates)
    # One more neuron or head would not fit: the largest costs a query head and its output.
    largest = 4 * (8 + 1) * 3 + 4 * 8
    assert limit - largest < got <= limit
    limit = int(0.8 * flops_per_token(config, length=6))
    gates = budget(config, scores, flops_per_token=limit, length=6)
    assert flops_per_token(config, gates, length=6) <= limit


@pytest.mark.parametrize("kind", ["parameters", "flops_per_token"])
def test_the_first_that_fits_is_taken_however_costs_rise_on_the_way(kind):
    """Three heads share keys: without one of them none do, and the model is larger."""
    config = families.config("llama", heads=6, kv_heads=2)
    scores = Gates(heads=np.random.default_rng(0).standard_normal((3, 6)))
    cost = {"parameters": parameters, "flops_per_token": flops_per_token}[kind]
    costs, gates = [cost(config)], Gates(heads=np.ones((3, 6)))
    for place in sorted(np.ndindex(3, 6), key=lambda place: scores.heads[place]):
        gates.heads[place] = 0
        costs.append(cost(config, gates))
    assert (np.diff(costs) > 0).any()
    for limit in {*costs[::3], costs[-1]}:
        removed = (budget(config, scores, **{kind: limit}).heads == 0).sum()
        assert removed == next(i for i, one in enumerate(costs) if one <= limit)


def test_a_budget_removes_what_is_worth_least_for_its_cost():
    """Of a head and neurons of score 1 the head goes first, as it costs far more."""
    scores = Gates(heads=np.full((3, 4), 9.0), neurons=np.ones((3, 6)))
    scores.heads[1, 2] = 1.0
    gates = budget(CONFIG, scores, parameters=parameters(CONFIG) - 1)
    assert gates.heads[1, 2] == 0 and gates.heads.sum() == 11 and gates.neurons.all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: select(s, 1.0), "sparsity: expected a number in \\[0, 1\\), got 1.0"),
        (lambda s: select(s, -0.1), "sparsity"),
        (lambda s: select(s, float("nan")), "sparsity"),
        (lambda s: select(Gates(), 0.5), "scores: expected at least one field"),
        (lambda s: select(Gates(heads=np.ones(4)), 0.5), "scores.heads: .* shape"),
        (lambda s: select(s, 0.5, groups=3), "groups: expected a divisor of 4 heads"),
        (lambda s: budget(CONFIG, Gates(heads=np.ones((4, 3))), parameters=9), "scores.heads"),
        (lambda s: select(Gates(heads=np.full((3, 4), np.nan)), 0.5), "NaN"),
        (lambda s: select(s, 0.9, at_least=2), "at_least"),
        (lambda s: budget(CONFIG, s), "parameters or flops_per_token"),
        (lambda s: budget(CONFIG, s, parameters=10), "within reach"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(drawn(0))
