"""Distillation and adapters from end to end, on a tiny model and few prompts."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import types

import jax
import numpy as np
import pytest

from jaxcompress import generate, io, prune, runs
from jaxcompress.cli import main
from jaxcompress.data import language, text
from jaxcompress.data.curriculum import MixtureConfig
from jaxcompress.distill import losses
from jaxcompress.distill.activations import ActivationsConfig
from jaxcompress.examples import Data, batches
from jaxcompress.finetune import DistillConfig, LoraConfig, adapt, adapted, distil, distilled
from jaxcompress.gated import mean_loss
from jaxcompress.learned import LearnConfig, learned_scores
from jaxcompress.models import Gates, ModelConfig, create
from jaxcompress.objectives import SequencesConfig, distillation
from jaxcompress.train import OptimizerConfig
from tests import families
from tests.families import randomized

pytestmark = pytest.mark.slow

DATA = Data(tasks=("months", "numerals"), count=24, batch=24)
FAST = OptimizerConfig(rate=0.03, warmup=2, weight_decay=0.0)


def tiny(**changes):
    tokenizer = text.word_level(language.texts())
    sizes = {"layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 4, "width": 8, "neurons": 6}
    config = ModelConfig(family="gpt2", vocab=len(tokenizer), context=48, **{**sizes, **changes})
    return create(config, randomized(config, seed=changes.get("neurons", 0)), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    io.save(tiny(), path / "teacher")
    io.save(tiny(neurons=3), path / "student")
    return path


def surprise(teacher, student):
    """Nats of KL from a teacher to its student, at the answers of prompts not trained on."""
    (prompts, *_), _ = batches(teacher, DATA, held_out=True)
    said, heard = (
        model.apply(model.params, prompts.tokens, attention_mask=prompts.attention_mask).logits
        for model in (student, teacher)
    )
    return float(losses.forward_kl(said, heard, prune.targets(prompts)[1])[0])


@pytest.mark.parametrize(("loss", "options"), [("forward_kl", {}), ("top_k_kl", {"k": 9})])
def test_a_student_comes_nearer(folder, tmp_path, loss, options):
    """To its teacher, which knows nothing of the data: only the teacher's word leads there."""
    config = DistillConfig(
        loss=loss, steps=40, batch=8, alpha=1.0, optimizer=FAST, data=DATA, **options
    )
    record = distil(str(folder / "teacher"), str(folder / "student"), tmp_path / "out", config)
    teacher, before, student = (
        io.load(path) for path in (folder / "teacher", folder / "student", tmp_path / "out")
    )
    assert surprise(teacher, student) < 0.5 * surprise(teacher, before)
    assert student.config.neurons == 3 and student.tokenizer is not None
    written = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert written["recipe"]["loss"] == loss and written["loss"] == record["loss"]


def test_a_student_of_another_width_learns_hidden_states():
    """With a projection that is trained beside it and not left in the model."""
    teacher, small = tiny(layers=2), tiny(width=6, neurons=5)
    asked = ActivationsConfig(hidden_mse=1.0, minilm_v2=0.5, relation_heads=2)
    config = DistillConfig(
        steps=30, batch=8, alpha=0.0, loss="cross_entropy", optimizer=FAST, data=DATA,
        activations=asked,
    )  # fmt: skip
    done = distilled(teacher, small, config, progress=False)
    assert jax.tree.structure(done.params) == jax.tree.structure(small.params)
    (rows, *_), _ = batches(teacher, DATA, held_out=True)
    found = []
    # By measures that need no projection: the trained one is not handed out.
    config = dataclasses.replace(
        config, activations=ActivationsConfig(hidden_cka=1.0, minilm_v2=1.0, relation_heads=2)
    )
    for student in (small, done):
        start, loss = distillation(student, teacher, config)
        found.append(float(loss(start, rows, None)[1]["activations"]))
    assert found[1] < 0.9 * found[0]


def test_devices_change_nothing():
    """The rows of a batch over four devices, the parameters over two."""
    teacher, small = tiny(), tiny(neurons=4)
    config = DistillConfig(steps=4, batch=8, optimizer=FAST, data=DATA)
    one, eight = (
        distilled(teacher, small, dataclasses.replace(config, mesh=mesh), progress=False)
        for mesh in ((1, 1), (4, 2))
    )
    tokens = jax.random.randint(jax.random.key(0), (2, 5), 0, small.config.vocab)
    # Not the parameters: biases of keys change no logit, so Adam follows their rounding.
    np.testing.assert_allclose(
        *(model.apply(model.params, tokens).logits for model in (one, eight)), atol=1e-4
    )
    with pytest.raises(ValueError, match="expected at most 8 devices, got 9"):
        distilled(teacher, small, dataclasses.replace(config, mesh=(9, 1)), progress=False)


def test_an_adapter_learns_and_loads(folder, tmp_path):
    source = str(folder / "teacher")
    config = LoraConfig(
        rank=2, steps=40, batch=8, optimizer=FAST, data=DATA, merged=str(tmp_path / "merged"),
        targets=("*/attn/value/kernel", "*/mlp/up/kernel"), ratio=4.0,
    )  # fmt: skip
    record = adapt(source, tmp_path / "adapter", config)
    assert record["loss"]["after"] < record["loss"]["before"]
    assert record["trained"] == 2 * (8 + 8) + 2 * (8 + 6)
    model = io.load(source)
    adapter = io.load_adapter(model, tmp_path / "adapter")
    written = json.loads((tmp_path / "adapter" / "compression.json").read_text())
    assert written["variants"] == ["lora"] and written["recipe"]["rank"] == 2
    halved = model.replace(params=jax.tree.map(lambda leaf: leaf / 2, model.params))
    with pytest.warns(UserWarning, match="trained on a base of other values"):
        io.load_adapter(halved, tmp_path / "adapter")
    merged = io.load(tmp_path / "merged")
    tokens = jax.random.randint(jax.random.key(0), (2, 5), 0, model.config.vocab)
    np.testing.assert_allclose(
        model.apply(model.params, tokens, lora=adapter).logits,
        merged.apply(merged.params, tokens).logits,
        atol=1e-5,
    )


def test_the_commands(folder, tmp_path, capsys):
    teacher, student = str(folder / "teacher"), str(folder / "student")
    few = ["steps=2", "batch=4", "data.tasks=[months]", "data.count=8", "optimizer.warmup=1"]
    orders = ["data.tasks=[months,ioi]", "mixture.order=easy_first", "mixture.opening=1.0"]
    more = [
        *orders,
        "activations.attention_kl=0.1",
        "activations.pairs=[[0,0]]",
        "chunk=16",
        "mesh=[2,1]",
    ]
    assert main(["distill", teacher, student, str(tmp_path / "out"), *few, *more]) == 0
    report = ["--report", str(tmp_path / "report"), "--report-tasks", "months"]
    command = ["lora", teacher, str(tmp_path / "adapter"), "rank=2", *few]
    assert main([*command, *report]) == 0
    assert (tmp_path / "report" / "report.html").is_file()
    printed = capsys.readouterr().out
    assert "held-out loss, teacher" in printed and "Trained 64 parameters" in printed
    assert main(["lora", teacher, str(tmp_path / "adapter"), *few]) == 2
    assert main(["distill", teacher, student, str(tmp_path / "x"), "loss=kl", *few]) == 2
    assert main(["distill", teacher, student, str(tmp_path / "x"), "alpha=2", *few]) == 2
    assert main(["lora", teacher, str(tmp_path / "x"), "targets=['*/x']", *few]) == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", [DistillConfig, LoraConfig])
def test_tasks_are_put_in_order_by_the_loss_before(kind, monkeypatch):
    model, data = tiny(), dataclasses.replace(DATA, tasks=("months", "numerals", "ioi"))
    losses_of, given = [], []
    for name in data.tasks:
        found, loss = batches(model, dataclasses.replace(data, tasks=(name,)))
        losses_of.append(mean_loss(model, found, loss))
    monkeypatch.setattr(
        "jaxcompress.train.fit",
        lambda state, *_, curriculum, **__: given.append(curriculum) or state,
    )
    mixture = MixtureConfig("hard_first", opening=0.9)
    config = kind(steps=100, data=data, mixture=mixture)
    run = adapted if kind is LoraConfig else functools.partial(distilled, model)
    run(model, config, progress=False)
    run(model, kind(data=data), progress=False)
    order, nothing = given
    assert np.argsort(order.opens).tolist() == np.argsort(losses_of)[::-1].tolist()
    assert order.opens.max() == 60 and order.weights(99).tolist() == pytest.approx([1 / 3] * 3)
    assert nothing is None
    with pytest.raises(ValueError, match="expected several data.tasks or data.text .*, got 1"):
        run(model, kind(data=Data(text="x.npz"), mixture=mixture), progress=False)


def test_texts_are_put_in_order_too(tmp_path, monkeypatch):
    """The one that the model knows comes first; the other has fewer rows, and all are used."""
    model, given = tiny(), []
    known = np.argmax(model.apply(model.params, np.zeros((1, 1), int)).logits[0, 0])
    tokens = {"hard": np.tile(np.arange(9), (12, 1)), "easy": np.full((30, 9), int(known))}
    for name, rows in tokens.items():
        np.savez(tmp_path / f"{name}.npz", tokens=rows, lengths=np.full(len(rows), 9))
    data = Data(text=tuple(str(tmp_path / f"{name}.npz") for name in tokens), count=20)
    losses_of = [
        mean_loss(model, *batches(model, dataclasses.replace(data, text=text)))
        for text in data.text
    ]
    assert np.ptp(losses_of) > 1e-3
    monkeypatch.setattr(
        "jaxcompress.train.fit",
        lambda state, step, rows, *_, curriculum, sizes, **__: (
            given.append((rows, curriculum, sizes)) or state
        ),
    )
    mixture = MixtureConfig("easy_first", opening=0.5, frequencies=(1.0, 3.0))
    config = DistillConfig(steps=100, data=data, mixture=mixture)
    distilled(model, model, config, progress=False)
    [(rows, order, sizes)] = given
    assert sizes == (11, 20) and len(rows.tokens) == 31  # every tenth row is held out
    assert np.argsort(order.opens).tolist() == np.argsort(losses_of).tolist()
    assert order.weights(99).tolist() == [0.25, 0.75]


def refused(monkeypatch, call, message):
    """What is refused before anything is trained."""
    monkeypatch.setattr("jaxcompress.train.fit", None)
    with pytest.raises(ValueError, match=message):
        call()


def test_vocabularies_must_agree(folder):
    teacher = tiny()
    smaller = ModelConfig(**{**vars(teacher.config), "vocab": 5})
    with pytest.raises(ValueError, match="expected one vocabulary for both, got"):
        distilled(teacher, create(smaller, randomized(smaller)), DistillConfig(data=DATA))
    words = {word: i for i, word in enumerate(reversed(teacher.tokenizer.get_vocab()))}
    other = teacher.replace(tokenizer=types.SimpleNamespace(get_vocab=lambda: words))
    with pytest.raises(ValueError, match="expected one tokenizer for both, got"):
        distilled(teacher, other, DistillConfig(data=DATA))


def test_what_cannot_be_written_is_not_trained(folder, tmp_path, monkeypatch):
    teacher, student, out = str(folder / "teacher"), str(folder / "student"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("...")
    config, adapter = DistillConfig(data=DATA), LoraConfig(data=DATA)
    message = "an earlier result with a"
    refused(monkeypatch, lambda: distil(teacher, student, out, config, overwrite=True), message)
    refused(monkeypatch, lambda: adapt(teacher, out, adapter, overwrite=True), message)
    both = dataclasses.replace(adapter, merged=str(tmp_path / "x"))
    message = "merged: expected another directory"
    refused(monkeypatch, lambda: adapt(teacher, tmp_path / "x", both), message)
    stock = dataclasses.replace(config, form="stock")
    io.save(uneven(), tmp_path / "uneven", form="native")
    message = "config.sizes: expected layers of one size"
    source = str(tmp_path / "uneven")
    refused(monkeypatch, lambda: distil(teacher, source, tmp_path / "x", stock), message)


def uneven():
    """A model whose two layers differ in size."""
    whole = tiny(layers=2)
    return prune.shrink(whole, Gates.off(whole.config, heads=[(0, 1)], neurons=[(1, 2)]))


def test_an_adapter_on_layers_of_different_sizes(tmp_path, caplog):
    """A pruned model is taught again by an adapter, which its own directory and the merged take."""
    io.save(uneven(), tmp_path / "small", form="native")
    settings = {"steps": 2, "rank": 2, "batch": 4, "merged": str(tmp_path / "merged")}
    config = LoraConfig(**settings, data=DATA, optimizer=OptimizerConfig(warmup=0))
    record = adapt(str(tmp_path / "small"), tmp_path / "adapter", config)
    small, done = io.load(tmp_path / "small"), io.load(tmp_path / "merged")
    assert record["loss"]["after"] < record["loss"]["before"]
    assert done.config == small.config
    adapter, tokens = io.load_adapter(small, tmp_path / "adapter"), np.arange(6)[None]
    got = small.apply(small.params, tokens, lora=adapter).logits
    np.testing.assert_allclose(got, done.apply(done.params, tokens).logits, atol=1e-5)
    assert not caplog.records  # transformers would warn of a configuration that it does not know


def test_shapes_that_are_even_and_not_stock(folder, tmp_path):
    """Three heads for a width of eight: jaxcompress can hold them, GPT-2's configuration cannot."""
    odd = tiny(heads=3, kv_heads=3)
    config = DistillConfig(steps=1, batch=4, data=DATA, optimizer=OptimizerConfig(warmup=0))
    io.save(odd, tmp_path / "odd", form="native")
    distil(str(folder / "teacher"), str(tmp_path / "odd"), tmp_path / "out", config)
    assert io.load(tmp_path / "out").config == odd.config


def test_encoders_are_not_asked_for_words(monkeypatch):
    config = families.config("bert", head="none", pooler=False)
    encoder = create(config, families.randomized(config), name="encoder")
    message = "encoder: expected one with a language-model head"
    refused(monkeypatch, lambda: distilled(encoder, encoder, DistillConfig(data=DATA)), message)
    refused(monkeypatch, lambda: adapted(encoder, LoraConfig(data=DATA)), message)
    how = LearnConfig(steps=1)
    refused(monkeypatch, lambda: learned_scores(encoder, None, ["heads"], 0.5, how), message)


def test_a_checkpoint_of_another_run_is_not_taken_for_a_result(folder, tmp_path):
    teacher, student = io.load(folder / "teacher"), io.load(folder / "student")
    config = DistillConfig(
        steps=2, batch=4, data=DATA, optimizer=OptimizerConfig(warmup=0), checkpoints=str(tmp_path)
    )
    first = distilled(teacher, student, config)
    logged = dataclasses.replace(config, run=str(tmp_path / "run"), checkpoints=None)
    again = distilled(teacher, student, logged)
    (row,) = runs.rows(logged.run)
    assert row["name"] == "distil" and row["step"] == 2
    assert (tmp_path / "run" / "config.yaml").is_file()
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    again = distilled(teacher, student, config)
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    for other, changes, what in (
        (teacher, {"loss": "reverse_kl"}, "loss"),
        (student, {}, "teacher"),
        (teacher, {"steps": 1}, "steps"),
    ):
        with pytest.raises(
            ValueError, match=f"checkpoint of this run, got one with another {what}"
        ):
            distilled(other, student, dataclasses.replace(config, **changes))


def rows_of_text(tmp_path):
    """40 rows of 12 random tokens as an npz file, and held-out prompts of 4."""
    vocab = tiny().config.vocab
    tokens = np.random.default_rng(0).integers(0, vocab, (56, 12)).astype(np.int32)
    np.savez(tmp_path / "rows.npz", tokens=tokens[:40], lengths=np.full(40, 12))
    return str(tmp_path / "rows.npz"), tokens[40:, :4]


def test_on_policy_from_the_command_line(folder, tmp_path):
    """A student is surprised less by its teacher where its own words lead."""
    text, prompts = rows_of_text(tmp_path)
    settings = ["loss=reverse_kl", "temperature=1", "sequences.share=1", "sequences.prompt=4"]
    settings += ["steps=60", "batch=8", f"data.text={text}", "data.context=12"]
    settings += ["optimizer.rate=0.03", "optimizer.warmup=2", "optimizer.weight_decay=0"]
    paths = [str(folder / "teacher"), str(folder / "student"), str(tmp_path / "out")]
    main(["distill", *paths, *settings])
    teacher, before, after = (io.load(path) for path in paths)

    def divergence(student):
        key = jax.random.key(5)
        out = generate.sample(student, prompts, count=8, key=key, temperature=1.0)
        ours, theirs = (
            model.apply(model.params, out.tokens).logits[:, 3:-1] for model in (student, teacher)
        )
        return float(losses.reverse_kl(ours, theirs)[0])

    assert divergence(after) < 0.7 * divergence(before)


def test_on_policy_goes_on_bit_for_bit(folder, tmp_path):
    text, _ = rows_of_text(tmp_path)
    config = DistillConfig(
        steps=60, batch=4, optimizer=FAST, data=Data(text=text, count=40, context=12),
        sequences=SequencesConfig(share=0.5, prompt=4), checkpoints=str(tmp_path / "checkpoints"),
    )  # fmt: skip
    teacher, student = io.load(folder / "teacher"), io.load(folder / "student")
    whole = distilled(teacher, student, config)
    shutil.rmtree(tmp_path / "checkpoints" / "60")  # what was there after 50
    again = distilled(teacher, student, config)
    jax.tree.map(np.testing.assert_array_equal, whole.params, again.params)
