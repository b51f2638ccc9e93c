"""Losses on activations of whole models: against NumPy, on layers that are paired, and refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.distill import features, relations
from jaxcompress.distill.activations import ActivationsConfig, activations
from tests import families

KEY = jax.random.key(0)
NAMES = ("hidden_mse", "hidden_cosine", "hidden_cka", "attention_transfer", "attention_kl",
         "attention_mse", "minilm", "minilm_v2")  # fmt: skip


def pair(name="gpt2", **changes):
    """A teacher of three layers and a student of two."""
    return families.model(name), families.model(name, layers=2, **changes)


def run(model, taps, mask=None):
    return model.apply(model.params, families.tokens(), attention_mask=mask, taps=taps).taps


def value(teacher, student, config, mask=None):
    made = activations(student.config, teacher.config, config, KEY)
    seen = (run(model, made.taps, mask) for model in (student, teacher))
    return float(made.loss(*seen, made.start, mask))


def test_hidden_states_are_those_after_paired_layers():
    teacher, student = pair()
    ours, theirs = (np.asarray(run(model, ("resid",))["resid"]) for model in (student, teacher))
    for layers, pairs in (
        ("uniform", [(0, 0), (1, 2)]),
        ("strided", [(0, 1), (1, 2)]),
        ("last", [(1, 2)]),
    ):
        expected = np.mean([((ours[i + 1] - theirs[j + 1]) ** 2).mean() for i, j in pairs])
        config = ActivationsConfig(hidden_mse=3.0, layers=layers)
        np.testing.assert_allclose(value(teacher, student, config), 3 * expected, rtol=1e-5)
    config = ActivationsConfig(hidden_mse=1.0, pairs=((1, 0),))
    expected = ((ours[2] - theirs[1]) ** 2).mean()
    np.testing.assert_allclose(value(teacher, student, config), expected, rtol=1e-5)


def test_maps_scores_and_relations_are_of_the_paired_layers():
    teacher, student = pair("llama")
    names = ("keys", "pattern", "queries", "scores", "values")
    ours, theirs = (run(model, names) for model in (student, teacher))
    last = {name: (ours[name][1], theirs[name][2]) for name in names}
    flat = lambda x: x.reshape(*x.shape[:-2], -1)  # noqa: E731
    both = [tuple(last[name][i] for name in ("pattern", "values")) for i in (0, 1)]
    qkv = [tuple(flat(last[name][i]) for name in ("queries", "keys", "values")) for i in (0, 1)]
    expected = {
        "attention_kl": relations.attention_kl(*last["pattern"]),
        "attention_mse": relations.attention_mse(*last["scores"], causal=True),
        "minilm": relations.minilm(*both, causal=True),
        "minilm_v2": relations.minilm_v2(*qkv, heads=2, causal=True),
    }
    for name, (mean, _) in expected.items():
        config = ActivationsConfig(**{name: 1.0}, layers="last")
        np.testing.assert_allclose(value(teacher, student, config), float(mean), rtol=1e-5)


def test_weights_add_up():
    teacher, student = pair()
    alone = [value(teacher, student, ActivationsConfig(**{name: 0.5})) for name in NAMES]
    together = value(teacher, student, ActivationsConfig(**dict.fromkeys(NAMES, 0.5)))
    assert min(alone) > 0
    np.testing.assert_allclose(together, sum(alone), rtol=1e-5)
    assert value(teacher, student, ActivationsConfig()) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_like_itself(name):
    teacher = families.model("bert")
    np.testing.assert_allclose(
        value(teacher, teacher, ActivationsConfig(**{name: 1.0})), 0, atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    teacher, student = pair()
    config = ActivationsConfig(**{name: 1.0})
    mask, tokens = families.mask("right"), families.tokens()
    made = activations(student.config, teacher.config, config, KEY)

    def of(tokens):
        seen = (
            model.apply(model.params, tokens, attention_mask=mask, taps=made.taps).taps
            for model in (student, teacher)
        )
        return float(made.loss(*seen, made.start, mask))

    np.testing.assert_allclose(of(tokens), of(np.where(mask > 0, tokens, 3)), rtol=1e-5)


def test_another_width_gets_a_projection_that_is_trained():
    teacher, student = pair(width=6)
    config = ActivationsConfig(hidden_mse=1.0, hidden_cosine=1.0, hidden_cka=1.0)
    made = activations(student.config, teacher.config, config, KEY)
    assert made.start["projection"].shape == (2, 6, 8)
    ours, theirs = (run(model, made.taps) for model in (student, teacher))
    slope = jax.grad(lambda start: made.loss(ours, theirs, start, None))(made.start)
    wanted = [(1, 1), (2, 3)]  # streams after the paired layers
    expected = jax.grad(
        lambda p: sum(
            features.hidden_mse(ours["resid"][i], theirs["resid"][j], projection=p[n])[0] / 2
            + features.hidden_cosine(ours["resid"][i], theirs["resid"][j], projection=p[n])[0] / 2
            for n, (i, j) in enumerate(wanted)
        )
    )(made.start["projection"])
    np.testing.assert_allclose(slope["projection"], expected, rtol=1e-4, atol=1e-6)
    assert (
        activations(student.config, teacher.config, ActivationsConfig(hidden_cka=1.0), KEY).start
        == {}
    )


def test_the_teacher_gets_no_gradient():
    teacher, student = pair()
    made = activations(
        student.config, teacher.config, ActivationsConfig(**dict.fromkeys(NAMES, 1.0)), KEY
    )
    ours, theirs = (run(model, made.taps) for model in (student, teacher))
    slopes = jax.grad(lambda ours, theirs: made.loss(ours, theirs, {}, None), argnums=(0, 1))(
        ours, theirs
    )
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slopes[1]))
    for name in made.taps:
        assert jnp.isfinite(slopes[0][name]).all() and (slopes[0][name] != 0).any(), name


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({}, {"hidden_mse": -1.0}, "activations.hidden_mse: expected a number of at least 0"),
        ({}, {"minilm": float("nan")}, "activations.minilm: expected a number of at least 0"),
        ({}, {"pairs": ((2, 0),)}, "the student's layer: expected"),
        ({}, {"pairs": ((0, 3),)}, "the teacher's layer: expected"),
        ({"heads": 2, "kv_heads": 2}, {"attention_kl": 1.0}, "teacher's 4 heads, got 2"),
        ({"kv_heads": 2}, {"minilm": 1.0}, "teacher's 4 value heads, got 2"),
        ({"heads": 3, "kv_heads": 3}, {"minilm_v2": 1.0, "relation_heads": 8}, "divisor of 3 x 4"),
        ({}, {"minilm_v2": 1.0, "relation_heads": -1}, "relation_heads: expected a divisor"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, config, message):
    teacher, student = pair(**changes)
    with pytest.raises(ValueError, match=message):
        activations(student.config, teacher.config, ActivationsConfig(**config), KEY)


@pytest.mark.parametrize("name", ["attention_kl", "attention_mse", "minilm", "minilm_v2"])
def test_missing_heads_are_not_compared(name):
    """A tap of an uneven layer is filled up with zeros, which are nobody's attention."""
    uneven = families.config("uneven")
    with pytest.raises(ValueError, match=f"activations.{name}: expected layers of 4 heads"):
        activations(uneven, uneven, ActivationsConfig(**{name: 1.0}), KEY)
    one = ActivationsConfig(**{name: 1.0}, pairs=((0, 0),))  # whose layer is whole
    activations(uneven, uneven, one, KEY)
    activations(uneven, uneven, ActivationsConfig(hidden_cka=1.0), KEY)
