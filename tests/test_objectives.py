"""What is minimised: in chunks as whole, by hand as from settings, on one device as on eight."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxcompress import lora, prune
from jaxcompress.distill import losses
from jaxcompress.distill.activations import ActivationsConfig
from jaxcompress.finetune import DistillConfig
from jaxcompress.objectives import adaptation, distillation
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
