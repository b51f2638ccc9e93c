"""AUC by its definition, groups in the bootstrap, nested gates, requirements of a comparison."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from jaxcompress import tasks
from jaxcompress.align.jobs import important
from jaxcompress.align.separation import VARIANTS, area, areas, auc, nested, recovered, variants
from jaxcompress.requirements import unmet
from tests.align.made_up import made_up


def test_area_counts_pairs():
    assert area([0.9, 0.5], [0.5, 0.1]) == pytest.approx(3.5 / 4)
    rng = np.random.default_rng(0)
    assert area(rng.random(400), rng.random(400)) == pytest.approx(0.5, abs=0.05)


def test_auc_resamples_whole_groups_and_passes_over_what_is_not_defined():
    rows = [
        {"truth": truth, "pair": f"{truth} {i}", "s": value}
        for truth, values in (("same", (0.9, 0.2)), ("different", (0.3, 0.1)))
        for i, value in enumerate(values)
    ]
    rows += [
        {"truth": "graded", "pair": "x", "s": 0.0},
        {"truth": "same", "pair": "y", "s": np.nan},
    ]
    found = auc(rows, "s", samples=200)
    assert found["auc"] == 0.75
    assert (found["same"], found["different"]) == (2, 2)
    assert (found["low"], found["high"]) == (0.0, 1.0)
    # The same rows ten times are no more evidence.
    again = auc(rows * 10, "s", samples=200)
    assert (again["low"], again["high"]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="whose truth is 'same'"):
        auc([row for row in rows if row["truth"] != "same"], "s")


def test_variants_of_a_model_with_itself_and_with_another():
    own, other = variants(made_up(0), made_up(0)), variants(made_up(0), made_up(1))
    assert set(own) == set(VARIANTS)
    for name in ("causal", "alignment", "mechanism", "functional"):
        assert own[name] == pytest.approx(1.0, abs=1e-4)
        assert other[name] < 0.6
    assert np.isnan(own["algorithm"])
    rows = [{"truth": t, "pair": t} | v for t, v in (("same", own), ("different", other))]
    assert areas(rows, samples=5)["mechanism"]["auc"] == 1.0
    assert "algorithm" not in areas(rows, samples=5)


def test_an_initialisation_is_recovered_from_copies():
    found = recovered([(made_up(0), made_up(0))], (0, 1))
    for name in ("causal", "functional", "effects"):
        assert found[name] == {"heads": 1.0, "layers": 1.0, "mlps": 1.0}


def test_nested_gates_only_lose():
    gates = list(nested(SimpleNamespace(layers=3, heads=4), (0.25, 0.5, 0.75), 0).values())
    assert [int(one.sum()) for one in gates] == [9, 6, 3]
    assert all((a >= b).all() for a, b in itertools.pairwise(gates))


def test_important_components_are_the_costliest():
    assert important(made_up(0), 10.0, 2) == [5, 4]


def test_prompts_of_addition_and_programs():
    batch = tasks.addition.prompts(7)
    assert (batch.tokens[:, 2] == 7).all() and len(batch) == 49
    assert (batch.correct[:, 0] == batch.tokens[:, :2].sum(axis=1) % 7).all()
    assert all(
        set(w) | {c} == set(range(7)) for w, (c,) in zip(batch.wrong, batch.correct, strict=True)
    )
    told = tasks.addition.variables(batch, 7)
    np.testing.assert_array_equal((told["a + b"] + told["a - b"]) % 7, 2 * told["a"] % 7)
    found = tasks.programs.prompts(lambda tokens: np.eye(4)[tokens], 3, 2)
    assert len({tuple(row) for row in found.tokens.tolist()}) == 9
    assert (found.correct[:, 0] == found.tokens[:, -1]).all()
    for one in (batch, found):  # every row corrupts another one
        assert (one.tokens != one.corrupted).any(axis=1).all()
        assert {*map(tuple, one.corrupted.tolist())} == {*map(tuple, one.tokens.tolist())}


def test_unmet_requirements():
    row = {
        "alignment": {"published": 0.9},
        "behaviour": {"agreement": 0.8, "teacher": {"accuracy": 1.0}, "student": {"accuracy": 0.5}},
    }
    comparison = {"tasks": [row, row], "alignment": {"value": 0.4}}
    assert unmet(comparison, {"alignment": 0.4, "published": 0.9, "retained": 0.5}) == {}
    wanted = {"alignment": 0.5, "agreement": 0.9, "retained": 0.6, "faithfulness": 0.1}
    expected = {"alignment": 0.4, "agreement": 0.8, "retained": 0.5, "faithfulness": None}
    assert unmet(comparison, wanted) == expected
    with pytest.raises(ValueError, match="did you mean 'alignment'"):
        unmet(comparison, {"alignmnt": 0.5})
    nan = {"alignment": {"published": np.nan}, "faithfulness": {"value": np.nan}}
    one = {"alignment": {"published": 0.9}, "faithfulness": {"value": 0.5}}
    for rows in ([nan, one], [one, nan]):
        nothing = {"published": None, "faithfulness": None}
        assert unmet({"tasks": rows}, dict.fromkeys(nothing, 0.4)) == nothing
