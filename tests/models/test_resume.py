"""Starting in the middle equals starting at the beginning, for a fixed and for a traced layer."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.models import Gates, resume
from tests import families
from tests.families import BATCH, LENGTH

LAYERS = 3
WHERE = np.array([LENGTH - 1, 2, 1])


def traced(layer):
    return jnp.asarray(layer)


@functools.cache
def reference(name, gated):
    """The whole run, its stream, and gates that keep the layers before the last two."""
    model, mask = families.model(name), families.mask("right")
    gates = None
    if gated:
        values = np.random.default_rng(4).uniform(0, 1, (LAYERS, 4)).astype(np.float32)
        values[0] = 1
        gates = Gates(heads=jnp.asarray(values))
    out = model.apply(
        model.params, families.tokens(), attention_mask=mask, gates=gates, taps=("resid",)
    )
    return model, {"attention_mask": mask, "gates": gates}, out


@pytest.mark.parametrize("form", [int, traced])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_every_layer_and_split_gates(name, form):
    model, options, out = reference(name, gated=True)
    # A fixed layer compiles anew for each: all of them for one family is enough.
    for layer in range(LAYERS + 1) if form is traced or name == "gpt2" else (1,):
        late = model.resume(model.params, out.taps["resid"][layer], form(layer), **options)
        np.testing.assert_allclose(late.logits, out.logits, atol=1e-5)


@pytest.mark.parametrize("form", [int, traced])
def test_without_split(form):
    model, options, out = reference("gpt2", gated=True)
    for layer in (1, LAYERS):
        late = model.resume(
            model.params, out.taps["resid"][layer], form(layer), split=False, **options
        )
        np.testing.assert_allclose(late.logits, out.logits, atol=1e-5)


def test_uneven_layers():
    model, options, out = reference("uneven", gated=True)
    for layer in (1, 2):
        late = model.resume(model.params, out.taps["resid"][layer], layer, **options)
        np.testing.assert_allclose(late.logits, out.logits, atol=1e-5)


@pytest.mark.parametrize("form", [int, traced])
@pytest.mark.parametrize(("name", "gated"), [("gpt2", True), ("llama", False), ("gpt_neox", True)])
def test_prefix_and_answers(name, gated, form):
    """Only positions 2 and later are run, and logits formed at one of them."""
    model, options, out = reference(name, gated)
    start, stream = 2, out.taps["resid"]
    where = np.maximum(WHERE, start)
    for layer in (0, 1, LAYERS - 1, LAYERS) if form is traced else (1, LAYERS - 1):
        late = model.resume(
            model.params, stream[layer][:, start:], form(layer), prefix=stream[:, :, :start],
            answer_position=where, **options,
        )  # fmt: skip
        expected = out.logits[np.arange(BATCH), where]
        np.testing.assert_allclose(late.logits, expected, atol=1e-5)


def test_prefix_without_answers_gives_the_later_positions():
    model, options, out = reference("llama", gated=False)
    stream = out.taps["resid"]
    late = model.resume(
        model.params, stream[1][:, 2:], 1, prefix=stream[:, :, :2], taps=("resid",), **options
    )
    np.testing.assert_allclose(late.logits, out.logits[:, 2:], atol=1e-5)
    np.testing.assert_allclose(late.taps["resid"], stream[1:, :, 2:], atol=1e-5)


def test_one_trace_serves_all_gates_and_layers():
    model, options, out = reference("gpt2", gated=True)
    traces = []

    @jax.jit
    def suffix(resid, layer, gates):
        traces.append(1)
        return model.resume(model.params, resid, layer, **{**options, "gates": gates}).logits

    for layer in range(LAYERS):
        gates = jax.tree.map(lambda g, layer=layer: g * (0.5 + layer), options["gates"])
        suffix(out.taps["resid"][layer], jnp.asarray(layer), gates)
    assert len(traces) == 1


def raw(name, resid, layer, **options):
    model = families.model(name)
    return jax.eval_shape(lambda x, i: resume(model.config, model.params, x, i, **options),
                          resid, layer)  # fmt: skip


RESID = jnp.zeros((BATCH, LENGTH, 8))


@pytest.mark.parametrize(
    ("name", "resid", "options", "message"),
    [
        ("gpt2", RESID, {"taps": ("resid",)}, "layer: expected an int, as there are taps"),
        ("uneven", RESID, {}, "layer: expected an int, as there are layers of different sizes"),
        (
            "bert",
            RESID[:, 2:],
            {"prefix": jnp.zeros((4, BATCH, 2, 8))},
            "prefix: expected a causal",
        ),
        ("gpt2", RESID[..., :7], {}, r"resid: expected \(batch, position, 8\)"),
        ("gpt2", RESID[0], {}, "resid: expected"),
        ("gpt2", RESID, {"attention_mask": np.ones((BATCH, 4), int)}, "attention_mask: expected 6"),
        (
            "gpt2",
            RESID[:, 2:],
            {
                "prefix": jnp.zeros((4, BATCH, 2, 8)),
                "gates": Gates(width=jnp.ones((BATCH, LENGTH - 2, 8))),
            },
            r"gates\.width: expected the same at all positions",
        ),
    ],
)
def test_errors(name, resid, options, message):
    with pytest.raises(ValueError, match=message):
        raw(name, resid, jnp.asarray(1), **options)


@pytest.mark.parametrize("layer", [-1, LAYERS + 1])
def test_layers_that_are_not_there(layer):
    model = families.model("gpt2")
    with pytest.raises(ValueError, match="layer: expected a whole number in"):
        resume(model.config, model.params, RESID, layer)


def test_layers_of_numpy_taps_of_no_layer_and_prefixes_of_too_few():
    model = families.model("gpt2")

    def late(layer, **options):
        run = functools.partial(model.resume, model.params, RESID, layer, **options)
        return jax.eval_shape(run).taps

    for layer in (1, np.int64(1)):
        assert late(layer, taps=("mlps",))["mlps"].shape == (LAYERS - 1, BATCH, LENGTH, 8)
    assert late(LAYERS, taps=("resid",))["resid"].shape == (1, BATCH, LENGTH, 8)
    with pytest.raises(ValueError, match="taps: expected 'resid' or 'final', as no layer is run"):
        late(LAYERS, taps=("resid", "mlps"))
    for shape in ((LAYERS, BATCH, 2, 8), (LAYERS + 1, BATCH, 2)):
        with pytest.raises(ValueError, match=r"prefix: expected shape .* \(layer \+ 1, batch"):
            late(1, prefix=jnp.zeros(shape))


@pytest.mark.parametrize("name", ["gpt2", "llama", "uneven"])
def test_from_keys_and_values(name):
    """Of earlier positions, the slots of which are too many; later tokens all at once."""
    model, tokens, mask = families.model(name), families.tokens(), families.mask("left")
    heads = np.random.default_rng(5).uniform(0, 1, (BATCH, LAYERS, 4)).astype(np.float32)
    run = functools.partial(model.apply, model.params, gates=Gates(heads=heads))
    whole = run(tokens, attention_mask=mask).logits
    early = run(tokens[:, :3], attention_mask=mask[:, :3], taps=("keys", "values")).taps
    room = [(0, 0), (0, 0), (0, 1), (0, 0), (0, 0)]
    prefix = {part: jnp.pad(leaf, room, constant_values=7.0) for part, leaf in early.items()}
    seen = np.insert(mask, 3, 0, axis=1)
    late = run(tokens[:, 3:], attention_mask=seen, prefix=prefix)
    np.testing.assert_allclose(late.logits, whole[:, 3:], atol=1e-5)
    where = np.array([6, 5, 4])
    one = run(tokens[:, 3:], attention_mask=seen, prefix=prefix, answer_position=where)
    np.testing.assert_allclose(one.logits, whole[np.arange(BATCH), where - 1], atol=1e-5)


def test_an_answer_within_the_prefix_and_a_prefix_without_axes_are_refused():
    model, tokens = families.model("gpt2"), families.tokens()
    early = model.apply(model.params, tokens[:, :3], taps=("keys", "values")).taps
    run = functools.partial(model.apply, model.params, tokens[:, 3:])
    with pytest.raises(ValueError, match=r"answer_position: expected integers in \[3, 6\), got 2"):
        run(prefix=early, answer_position=np.array([5, 2, 3]))
    with pytest.raises(ValueError, match="prefix: expected shape"):
        run(prefix=np.zeros(3))


@pytest.mark.parametrize("wrong", ["name", "shape", "context"])
def test_wrong_keys_and_values_are_refused(wrong):
    model, length = families.model("gpt2"), families.CONTEXT if wrong == "context" else 3
    leaf = np.zeros((LAYERS, BATCH, length, 4, 3 if wrong == "shape" else 4), np.float32)
    prefix = {"keys": leaf, "value" if wrong == "name" else "values": leaf}
    with pytest.raises(ValueError, match="tokens" if wrong == "context" else "prefix"):
        model.apply(model.params, families.tokens()[:, 3:], prefix=prefix)
