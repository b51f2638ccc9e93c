"""What is minimised: in chunks as whole, by hand as from settings, on one device as on eight."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import generate, lora, prune
from jaxcompress.distill import losses
from jaxcompress.distill.activations import ActivationsConfig
from jaxcompress.examples import Data
from jaxcompress.finetune import DistillConfig
from jaxcompress.objectives import SequencesConfig, adaptation, continued, distillation
from tests import families

KEY = jax.random.key(0)


def batch(name):
    if name in ("bert", "distilbert"):
        labels = np.where(families.tokens() % 3 == 0, families.tokens(1), -1)
        return prune.Masked(families.tokens(), families.mask("right"), labels)
    return prune.Text(families.tokens(), families.mask("right"))


def found(name, config, **changes):
    teacher, student = families.model(name), families.model(name, layers=2, **changes)
    start, loss = distillation(student, teacher, config)
    (value, told), slope = jax.value_and_grad(loss, has_aux=True)(start, batch(name), KEY)
    return value, told, slope


def alike(one, other):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), one, other)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        *((name, "forward_kl") for name in families.NAMES if name != "uneven"),
        *(("gpt2", loss) for loss in ("jsd", "cross_entropy")),
        *(("bert", loss) for loss in ("jsd", "cross_entropy")),
    ],
)
def test_in_chunks_as_whole(name, loss):
    whole = DistillConfig(loss=loss, alpha=0.7, chunk=0)
    alike(found(name, whole), found(name, dataclasses.replace(whole, chunk=4)))


def test_the_loss_is_what_the_settings_say():
    teacher, student, rows = families.model("gpt2"), families.model("gpt2", layers=2), batch("gpt2")
    config = DistillConfig(loss="reverse_kl", temperature=3.0, alpha=0.25)
    value, told, _ = found("gpt2", config)
    labels, mask = prune.targets(rows)
    ours, theirs = (
        model.apply(model.params, rows.tokens, attention_mask=rows.attention_mask).logits
        for model in (student, teacher)
    )
    soft, count = losses.reverse_kl(ours, theirs, mask, temperature=3.0)
    hard, _ = losses.cross_entropy(ours, labels, mask)
    np.testing.assert_allclose(value, 0.25 * soft + 0.75 * hard, rtol=1e-5)
    assert told["count"] == count == mask.sum()


def test_large_vocabularies_are_never_whole():
    """No array (batch, position, vocab) is made, forward or backward; with chunk 0 one is."""
    teacher, student = (families.model("gpt2", layers=n, vocab=20_000) for n in (3, 2))
    rows = batch("gpt2")

    def shapes(config):
        start, loss = distillation(student, teacher, config)
        compiled = jax.jit(jax.grad(loss, has_aux=True)).lower(start, rows, KEY).compile()
        return compiled.as_text()

    text = shapes(DistillConfig())
    whole = f"{families.BATCH},{families.LENGTH},20000]"
    assert whole not in text
    assert whole in shapes(DistillConfig(chunk=0))


def test_adapters_in_chunks_as_whole():
    model = families.model("llama")
    adapter = lora.init(model.params, ["*/value/kernel", "head/kernel"], rank=2, alpha=4.0, key=KEY)
    nonzero = jax.tree.map(lambda leaf: leaf + 0.1, lora.trainable(adapter))
    results = [
        jax.value_and_grad(adaptation(model, adapter, chunk), has_aux=True)(
            nonzero, batch("llama"), KEY
        )
        for chunk in (0, 4)
    ]
    alike(*results)
    merged = lora.merge(model.params, lora.with_trained(adapter, nonzero))
    labels, mask = prune.targets(batch("llama"))
    logits = model.apply(
        merged, families.tokens(), attention_mask=batch("llama").attention_mask
    ).logits
    expected, _ = losses.cross_entropy(logits, labels, mask)
    np.testing.assert_allclose(results[0][0][0], expected, rtol=1e-5)


def test_activations_are_added_and_projections_trained():
    config = DistillConfig(activations=ActivationsConfig(hidden_mse=1.0), alpha=0.0)
    value, told, slope = found("gpt2", config, width=6)
    bare, _, _ = found("gpt2", DistillConfig(alpha=0.0), width=6)
    np.testing.assert_allclose(value, bare + told["activations"], rtol=1e-5)
    assert (slope["projection"] != 0).any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DistillConfig(loss="kl"), "loss: expected one of"),
        (DistillConfig(chunk=-1), "chunk: expected"),
        (
            DistillConfig(accumulate=2, activations=ActivationsConfig(hidden_cka=1.0)),
            "accumulate: expected 1 with losses on activations, got 2",
        ),
    ],
)
def test_bad_settings_are_refused(config, message):
    model = families.model("gpt2")
    with pytest.raises(ValueError, match=message):
        distillation(model, model, config)


def test_a_teacher_that_is_not_asked_is_not_run():
    """Its context may then be shorter than the rows."""
    student, teacher = families.model("gpt2"), families.model("gpt2", context=4)
    for config in (DistillConfig(loss="cross_entropy"), DistillConfig(alpha=0.0)):
        start, loss = distillation(student, teacher, config)
        assert np.isfinite(loss(start, batch("gpt2"), KEY)[0])
    start, loss = distillation(student, teacher, DistillConfig())
    with pytest.raises(ValueError, match="tokens: expected at most 4 positions"):
        loss(start, batch("gpt2"), KEY)


def test_in_bfloat16_the_bias_is_not_rounded():
    """The plain path adds it in float32: large biases would be off by up to 0.4 %."""
    models = [families.model("bert", layers=n, dtype="bfloat16") for n in (2, 3)]
    rows, values = batch("bert"), []
    for model in models:
        model.params["head"]["bias"] = 40 + model.params["head"]["bias"]
    for chunk in (0, 4):
        start, loss = distillation(*models, DistillConfig(chunk=chunk))
        values.append(float(loss(start, rows, KEY)[0]))
    np.testing.assert_allclose(*values, rtol=2e-3)


TEXT = prune.Text(families.tokens(), np.ones_like(families.tokens()))
OWN = {"loss": "reverse_kl", "temperature": 1.0, "alpha": 0.5}
OWN_ROWS = SequencesConfig(prompt=3)


def sequences(**changes):
    settings = SequencesConfig(**{"share": 1.0, "prompt": 3, **changes})
    return DistillConfig(**OWN, sequences=settings)


def test_on_policy_loss_is_that_of_the_students_samples():
    """By hand: sample, run both models, average over the tokens that were said."""
    teacher, student = families.model("gpt2"), families.model("gpt2", layers=2)
    start, loss = distillation(student, teacher, sequences(temperature=0.8))
    (value, told), slope = jax.value_and_grad(loss, has_aux=True)(start, TEXT, KEY)
    draws = jax.random.split(KEY)[1]
    out = generate.sample(student, TEXT.tokens[:, :3], count=3, key=draws, temperature=0.8)

    def by_hand(params):
        ours, theirs = (
            jax.nn.log_softmax(model.apply(weights, out.tokens).logits[:, 2:5])
            for model, weights in ((student, params), (teacher, teacher.params))
        )
        return (jnp.exp(ours) * (ours - theirs)).sum(axis=-1).mean()  # no alpha: all the teacher's

    expected, gradient = jax.value_and_grad(by_hand)(student.params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert told["count"] == 3 * families.BATCH
    alike(slope["student"], gradient)  # the samples held fixed: none through them


def test_sequence_level_loss_is_the_surprise_at_the_teachers_decodes():
    teacher, student = families.model("gpt2"), families.model("gpt2", layers=2)
    how = SequencesConfig(share=1.0, by="teacher", prompt=2, temperature=0.0)
    start, loss = distillation(student, teacher, DistillConfig(loss="cross_entropy", sequences=how))
    value, _ = loss(start, TEXT, KEY)
    out = generate.sample(teacher, TEXT.tokens[:, :2], count=4)
    logs = jax.nn.log_softmax(student.apply(student.params, out.tokens).logits[:, 1:5])
    nats = -jnp.take_along_axis(logs, out.tokens[:, 2:, None], axis=-1)
    np.testing.assert_allclose(value, nats.mean(), rtol=1e-5)


def test_rows_without_a_token_say_nothing():
    mask = TEXT.attention_mask.copy()
    mask[1] = 0
    rows = continued(families.model("llama"), TEXT._replace(attention_mask=mask), OWN_ROWS, KEY)
    assert (np.asarray(rows.labels >= 0).sum(axis=1) == [3, 0, 3]).all()
    assert (rows.attention_mask[1] == 0).all()


def test_padding_inside_a_prompt_is_not_asked_for_the_first_token():
    mask = TEXT.attention_mask.copy()
    mask[1, 2:] = 0  # shorter than the prompt: the position before what is said is padding
    rows = continued(families.model("llama"), TEXT._replace(attention_mask=mask), OWN_ROWS, KEY)
    asked = np.asarray(rows.labels) >= 0
    assert asked.sum(axis=1).tolist() == [3, 2, 3]
    assert (np.asarray(rows.attention_mask)[asked] == 1).all()


def test_a_share_of_updates_is_on_policy_and_none_changes_nothing():
    teacher, student = families.model("gpt2"), families.model("gpt2", layers=2)

    def losses_of(share):
        start, loss = distillation(student, teacher, sequences(share=share))
        one = functools.partial(loss, start, TEXT)
        return jax.jit(lambda keys: jax.lax.map(lambda key: one(key)[0], keys))(
            jax.random.split(KEY, 32)
        )

    values = {share: losses_of(share) for share in (0.0, 0.5, 1.0)}
    own = np.isclose(values[0.5], values[1.0], rtol=1e-5)
    text = np.isclose(values[0.5], values[0.0], rtol=1e-5)
    assert (own ^ text).all() and 8 <= own.sum() <= 24
    _, loss = distillation(student, teacher, DistillConfig(**OWN))
    start, none = distillation(student, teacher, sequences(share=0.0))
    slopes = [jax.jit(jax.grad(f, has_aux=True))(start, TEXT, KEY)[0] for f in (loss, none)]
    jax.tree.map(np.testing.assert_array_equal, *slopes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"share": 1.5}, "sequences.share"),
        ({"temperature": float("nan")}, "sequences.temperature"),
        ({"prompt": 6}, "sequences.prompt"),
        ({"loss": "cross_entropy"}, "loss"),
        ({"alpha": 0.0}, "loss"),
        ({"data": Data(tasks=("ioi",))}, "sequences.share"),
    ],
)
def test_sequences_out_of_range_are_refused(changes, named):
    config = sequences(**{name: changes[name] for name in changes if name in vars(OWN_ROWS)})
    outer = {name: changes[name] for name in changes if name not in vars(OWN_ROWS)}
    model = families.model("gpt2")

    def refused():
        start, loss = distillation(model, model, dataclasses.replace(config, **outer))
        loss(start, TEXT, KEY)

    with pytest.raises(ValueError, match=named):
        refused()
