"""Gates: off is deleted, one is nothing, batched is looped, and a wrong shape is an error."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tree
from jaxcompress.models import Edits, Gates, create
from jaxcompress.models.gates import controls
from tests import families, plain
from tests.families import BATCH, LENGTH

FIELDS = ("heads", "attns", "mlps", "neurons", "width")
REMOVED = {
    "heads": [(0, 1), (2, 3)],
    "attns": [1],
    "mlps": [0, 2],
    # Half of them, so that not all are silent in a model with ReLU.
    "neurons": [(layer, i) for layer in range(3) for i in range(0, 6, 2)],
    "width": [1, 6],
}


def full(config, **changes) -> Gates:
    """Gates with every field filled in: one compiled program for all tests of a model."""
    return dataclasses.replace(Gates.ones(config), **changes)


def run(model, gates, mask=None, **options):
    return model.apply(
        model.params, families.tokens(), attention_mask=mask, gates=gates, **options
    ).logits


def random_gates(config, lead=(), seed=3) -> Gates:
    rng = np.random.default_rng(seed)
    shapes = jax.tree.map(lambda leaf: (*lead, *leaf.shape), Gates.ones(config))
    draw = {f: rng.uniform(0, 1.5, getattr(shapes, f)).astype(np.float32) for f in FIELDS}
    return Gates(**draw)


def deleted(model, field):
    """The parameters with the weights of the components zeroed by hand."""
    params = jax.tree.map(np.array, model.params)
    attn, mlp = params["blocks"]["attn"], params["blocks"]["mlp"]
    for where in REMOVED[field]:
        if field == "heads":
            attn["output"]["kernel"][where] = 0
        elif field == "neurons":
            mlp["down"]["kernel"][where] = 0
        else:
            part = attn["output"] if field == "attns" else mlp["down"]
            for leaf in part.values():
                leaf[where] = 0
    return params


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "research"])
def test_off_is_deleted(name):
    model = families.model(name)
    whole = run(model, None)
    for field in FIELDS[:-1]:
        off = getattr(Gates.off(model.config, **{field: REMOVED[field]}), field)
        got = run(model, full(model.config, **{field: off}))
        expected = model.apply(deleted(model, field), families.tokens()).logits
        np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=field)
        assert np.abs(got - whole).max() > 1e-3, field


WIDTH_AXES = {
    "embed/tokens": 1, "embed/positions": 1, "embed/types": 1, "query/kernel": 1, "key/kernel": 1,
    "value/kernel": 1, "output/kernel": 3, "output/bias": 1, "up/kernel": 1, "gate/kernel": 1,
    "down/kernel": 2, "down/bias": 1, "attn_norm/scale": 1, "attn_norm/bias": 1,
    "mlp_norm/scale": 1, "mlp_norm/bias": 1, "final_norm/scale": 0, "final_norm/bias": 0,
    "norm/scale": 0, "norm/bias": 0, "transform_norm/scale": 0, "transform_norm/bias": 0,
    "head/kernel": 0, "transform/bias": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_width_off_is_the_narrower_model(name):
    model = families.model(name)
    kept = np.setdiff1d(np.arange(model.config.width), REMOVED["width"])

    def narrow(path, leaf):
        if path.endswith("transform/kernel"):
            return leaf[kept][:, kept]
        axes = [axis for key, axis in WIDTH_AXES.items() if f"/{path}".endswith(f"/{key}")]
        return np.take(leaf, kept, axis=axes[0]) if axes else leaf

    config = dataclasses.replace(model.config, width=len(kept))
    flat = {path: narrow(path, leaf) for path, leaf in tree.paths(model.params).items()}
    params = jax.tree.unflatten(jax.tree.structure(model.params), list(flat.values()))
    off = Gates.off(model.config, width=REMOVED["width"]).width
    got = run(model, full(model.config, width=off))
    small = create(config, params)
    np.testing.assert_allclose(got, run(small, None), atol=1e-5)


@pytest.mark.parametrize("name", families.NAMES)
def test_ones_change_nothing(name):
    model = families.model(name)
    mask = families.mask("right")
    np.testing.assert_allclose(
        run(model, Gates.ones(model.config), mask), run(model, None, mask), atol=1e-5
    )


def test_absent_fields_are_ones():
    model = families.model("gpt2")
    off = Gates.off(model.config, heads=[(1, 2)])
    assert [f for f in FIELDS if getattr(off, f) is not None] == ["heads"]
    np.testing.assert_allclose(
        run(model, off), run(model, full(model.config, heads=off.heads)), atol=1e-6
    )


def test_layers_are_both_blocks():
    config = families.config("gpt2")
    both = Gates.off(config, layers=[1])
    apart = Gates.off(config, attns=[1], mlps=[1])
    np.testing.assert_array_equal(both.attns, apart.attns)
    np.testing.assert_array_equal(both.mlps, [1, 0, 1])


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_per_example_and_per_position_equal_the_loop(name):
    model = families.model(name)
    each = random_gates(model.config, (BATCH,))
    loop = jnp.stack([run(model, tree.index(each, b))[b] for b in range(BATCH)])
    np.testing.assert_allclose(run(model, each), loop, atol=1e-5)
    spread = jax.tree.map(lambda g: np.repeat(g[:, None], LENGTH, axis=1), each)
    np.testing.assert_allclose(run(model, spread), loop, atol=1e-5)


@pytest.mark.parametrize("lead", [(), (BATCH,), (BATCH, LENGTH)], ids=["model", "example", "place"])
def test_gates_and_edits_follow_their_formula(lead):
    """Against `tests/plain.py`, which is written from the formula in the documentation."""
    model = families.model("gpt2")
    gates = dataclasses.replace(random_gates(model.config, lead), width=None)
    rng = np.random.default_rng(5)
    shapes = {"heads": (4, 4), "attns": (8,), "mlps": (8,), "neurons": (6,)}
    leads = {"heads": (BATCH, LENGTH), "attns": (1, 1), "mlps": (BATCH, 1), "neurons": (1, LENGTH)}
    draw = {k: rng.standard_normal((3, *leads[k], *s), np.float32) for k, s in shapes.items()}
    edits = Edits(**{k: jnp.asarray(v) for k, v in draw.items()})
    mask = families.mask("left")
    got = run(model, gates, mask, edits=edits)
    tokens, gates = jnp.asarray(families.tokens()), jax.tree.map(jnp.asarray, gates)
    expected = jax.jit(plain.forward)(
        plain.from_model(model), tokens, attention_mask=jnp.asarray(mask), gates=gates, edits=edits
    ).logits
    np.testing.assert_allclose(got[mask == 1], expected[mask == 1], atol=2e-5)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_gradients_are_finite_differences(name):
    model, gates = families.model(name), random_gates(families.config(name))

    def loss(gates):
        return jnp.tanh(run(model, gates)).sum()

    gradient = jax.grad(loss)(gates)
    step = 3e-3
    for field in FIELDS:
        ray = np.random.default_rng(7).standard_normal(getattr(gates, field).shape)
        ends = [
            loss(dataclasses.replace(gates, **{field: getattr(gates, field) + sign * step * ray}))
            for sign in (1.0, -1.0)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(
            (getattr(gradient, field) * ray).sum(), slope, rtol=2e-2, atol=5e-2, err_msg=field
        )


def test_vmap_over_gates_equals_the_loop():
    model = families.model("llama")
    many = random_gates(model.config, (4,))
    batched = jax.vmap(lambda gates: run(model, gates))(many)
    for i in range(4):
        alone = run(model, tree.index(many, i))
        np.testing.assert_allclose(batched[i], alone, atol=2e-5)


SHAPES = {"heads": (3, 4), "attns": (3,), "mlps": (3,), "neurons": (3, 6), "width": (8,)}


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_shapes_are_errors_not_broadcasts(field):
    model, right = families.model("gpt2"), SHAPES[field]
    wrong = [
        (),
        (1,),
        (*right[:-1], 1),  # one value for all heads of a layer
        (1, *right),  # one example for the whole batch
        (BATCH + 1, *right),
        (BATCH, 1, *right),  # one position for all
        (1, LENGTH, *right),
        (LENGTH, *right),
        (BATCH, LENGTH, 1, *right),
        right[::-1] if len(right) > 1 else (right[0] + 1,),
        (*right, 1),
    ]
    for shape in wrong:
        gates = Gates(**{field: jnp.ones(shape)})
        with pytest.raises(ValueError, match=rf"gates\.{field}: expected shape .*{right[0]}"):
            jax.eval_shape(lambda gates: run(model, gates), gates)
    for shape in (right, (BATCH, *right), (BATCH, LENGTH, *right)):
        gates = Gates(**{field: jnp.ones(shape)})
        assert jax.eval_shape(lambda gates: run(model, gates), gates).shape == (3, LENGTH, 11)


def test_wrong_edits_are_errors():
    config = families.config("gpt2")
    gates = Gates(mlps=jnp.ones(3))
    for shape in ((8,), (3, 8), (1, BATCH, LENGTH, 8), (3, 2, LENGTH, 8), (3, BATCH, LENGTH, 1)):
        with pytest.raises(ValueError, match=r"edits\.mlps: expected shape"):
            controls(config, gates, Edits(mlps=jnp.ones(shape)), BATCH, LENGTH)
    with pytest.raises(ValueError, match=r"edits\.heads: .*together with gates\.heads"):
        controls(config, gates, Edits(heads=jnp.ones((3, 1, 1, 4, 4))), BATCH, LENGTH)


@pytest.mark.parametrize(
    "what", [{"heads": [(0, 4)]}, {"mlps": [3]}, {"layers": [-1]}, {"width": [8]}]
)
def test_components_that_are_not_there(what):
    expected = "attns" if "layers" in what else next(iter(what))
    with pytest.raises(ValueError, match=rf"Gates\.off\({expected}\): expected an index within"):
        Gates.off(families.config("gpt2"), **what)
