"""Pruning from end to end: the smaller directory does what the gates say, and says what it is."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxcompress import io, prune, tree
from jaxcompress.cli import main
from jaxcompress.compress import (
    PruneConfig,
    circuit_heads,
    protect,
    prune_gates,
    prune_model,
)
from jaxcompress.data import language, text
from jaxcompress.examples import Data, batches
from jaxcompress.gated import mean_loss
from jaxcompress.models import Gates, ModelConfig, create
from tests import families
from tests.families import randomized

pytestmark = pytest.mark.slow

DATA = Data(tasks=("months", "numerals"), count=6, batch=4)


@pytest.fixture(scope="module")
def model():
    tokenizer = text.word_level(language.texts())
    config = ModelConfig(
        family="gpt2", layers=2, heads=4, kv_heads=4, head_dim=2, width=8, neurons=6,
        vocab=len(tokenizer), context=48,
    )  # fmt: skip
    return create(config, randomized(config), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def directory(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "whole"
    io.save(model, path)
    return str(path)


def test_the_directory_is_the_gated_model(model, directory, tmp_path):
    config = PruneConfig(sparsity=0.5, data=DATA)
    record = prune_model(directory, tmp_path / "small", config)
    gates = prune_gates(model, config, progress=False)
    assert int((gates.heads == 0).sum()) == 4 and int((gates.neurons == 0).sum()) == 6
    small = io.load(tmp_path / "small")
    (batch, *_), loss = batches(model, DATA)
    expected = model.apply(
        model.params, batch.tokens, attention_mask=batch.attention_mask, gates=gates
    ).logits
    got = small.apply(small.params, batch.tokens, attention_mask=batch.attention_mask).logits
    real = np.asarray(batch.attention_mask)[..., None]
    np.testing.assert_allclose(got * real, expected * real, atol=1e-5)
    assert record["parameters"]["after"] == prune.parameters(model.config, gates)
    written = json.loads((tmp_path / "small" / "compression.json").read_text())
    assert written["kept"] == record["kept"] and written["recipe"]["sparsity"] == 0.5
    other, _ = batches(model, DATA, held_out=True)
    np.testing.assert_allclose(record["loss"]["after"], mean_loss(small, other, loss), rtol=1e-5)


@pytest.mark.parametrize("criterion", ["magnitude", "taylor_token"])
def test_what_prune_wrote_is_pruned_again(model, directory, tmp_path, criterion):
    """Uneven layers: the share is that of the components which are there."""
    config = PruneConfig(criterion=criterion, sparsity=0.5, data=DATA)
    prune_model(directory, tmp_path / "one", config)
    first = io.load(tmp_path / "one")
    assert not first.config.stacked
    record = prune_model(str(tmp_path / "one"), tmp_path / "two", config)
    sizes = io.load(tmp_path / "two").config.layer_sizes
    assert sum(size.heads for size in sizes) == 2 and sum(size.neurons for size in sizes) == 3
    assert record["parameters"]["after"] < record["parameters"]["before"]
    # The indices are those of the model that was whole, and lead to its weights.
    written = json.loads((tmp_path / "two" / "compression.json").read_text())
    assert written["whole"] == directory and written["earlier"]["teacher"] == directory
    small, kept = io.load(tmp_path / "two"), written["kept"]
    for i, (layer, neurons) in enumerate(zip(kept["layers"], kept["neurons"], strict=True)):
        up = np.asarray(model.params["blocks"]["mlp"]["up"]["kernel"][layer])
        blocks = small.params["blocks"]
        own = tree.index(blocks, i) if small.config.stacked else blocks[str(i)]
        np.testing.assert_array_equal(own["mlp"]["up"]["kernel"], up[:, neurons])


def test_the_folder_is_looked_at_first(directory, tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("...")
    monkeypatch.setattr("jaxcompress.compress.load", None)
    with pytest.raises(ValueError, match="earlier result with a config.json and a model.safet"):
        prune_model(directory, tmp_path, PruneConfig(data=DATA), overwrite=True)


def test_encoders_are_judged_by_their_embeddings(tmp_path):
    config = families.config("bert", head="none", pooler=False)
    io.save(create(config, randomized(config)), tmp_path / "encoder", form="native")
    tokens = np.random.default_rng(0).integers(0, 11, (20, 6)).astype(np.int32)
    np.savez(tmp_path / "rows.npz", tokens=tokens, lengths=np.full(20, 6))
    how = PruneConfig(criterion="magnitude", data=Data(text=str(tmp_path / "rows.npz")))
    record = prune_model(str(tmp_path / "encoder"), tmp_path / "small", how)
    assert record["loss"] is None and 0 < record["similarity"] < 1 - 1e-4


def test_rounds_reach_the_same_share(model):
    config = PruneConfig(criterion="magnitude", sparsity=0.5, rounds=3, over=("neurons",))
    gates = prune_gates(model, config, progress=False)
    assert int((gates.neurons == 0).sum()) == 6


@pytest.mark.parametrize("criterion", ["magnitude", "taylor_token", "angular_distance"])
def test_rounds_over_all_that_can_go(model, criterion):
    """Channels too; and a round sees what the round before it has left, not the whole."""
    over = ("attns", "mlps") if criterion == "angular_distance" else ("heads", "neurons", "width")
    config = PruneConfig(criterion=criterion, sparsity=0.5, rounds=2, over=over, data=DATA)
    gates = prune_gates(model, config, progress=False)
    for name in over:
        assert np.mean(np.asarray(getattr(gates, name)) == 0) == 0.5, name
    if criterion == "taylor_token":
        first = prune_gates(model, dataclasses.replace(config, rounds=1), progress=False)
        assert any((getattr(first, name) != getattr(gates, name)).any() for name in over)


def test_a_second_round_scores_the_smaller_model(model):
    """By hand: select a part, shrink, score what is left, and put the scores back."""
    config = PruneConfig(
        criterion="taylor_token", sparsity=0.5, rounds=2, over=("neurons",), data=DATA
    )
    gates = prune_gates(model, config, progress=False)
    found, loss = batches(model, DATA)
    share = float(prune.schedule.cubic(0.5, 2)(1))
    scored = prune.score(model, found, "taylor_token", loss=loss, progress=False)
    first = prune.select(type(scored)(neurons=scored.neurons), share)
    small = prune.shrink(model, first)
    again = prune.score(small, found, "taylor_token", loss=loss, progress=False)
    left = np.where(np.asarray(first.neurons) > 0, np.nan, -np.inf)
    for layer, own in enumerate(prune.kept(model, first)["neurons"]):
        left[layer, own] = np.asarray(again.neurons)[layer, : len(own)]
    order = np.argsort(left, axis=None, kind="stable")
    assert set(order[:6]) == set(np.flatnonzero(np.asarray(gates.neurons) == 0))


def test_exact_ablation_is_a_criterion(model):
    config = PruneConfig(criterion="ablation", sparsity=0.25, over=("heads",), data=DATA)
    gates = prune_gates(model, config, progress=False)
    found, loss = batches(model, DATA)
    whole, rises = mean_loss(model, found, loss), {}
    for layer, head in np.ndindex(2, 4):
        off = prune.fold(model, Gates.off(model.config, heads=[(layer, head)]))
        rises[layer, head] = mean_loss(off, found, loss) - whole
    lowest = sorted(rises, key=lambda place: rises[place])[:2]
    assert sorted(map(tuple, np.argwhere(np.asarray(gates.heads) == 0).tolist())) == sorted(lowest)


def test_heads_of_a_circuit_go_last(directory, tmp_path, capsys):
    config = PruneConfig(over=("neurons",), keep_circuit=("months",), data=DATA)
    with pytest.raises(ValueError, match="over: expected heads among what is removed"):
        prune_gates(io.load(directory), config)
    settings = ["criterion=magnitude", "over=[heads]", "sparsity=0.5", "data.count=16"]
    command = ["prune", "builtin:student", str(tmp_path / "small"), *settings]
    command += ["--keep-circuit", "months"]
    assert main(command) == 0
    written = json.loads((tmp_path / "small" / "compression.json").read_text())
    student = io.load("builtin:student")
    how = PruneConfig(keep_circuit=("months",), data=Data(count=16))
    needed = np.argwhere(circuit_heads(student, how) > 0)
    kept = {(i, head) for i, own in enumerate(written["kept"]["heads"]) for head in own}
    assert len(needed) and {tuple(one) for one in needed.tolist()} <= kept
    capsys.readouterr()


def test_protected_heads_keep_their_order_however_small_their_scores():
    scores = Gates(heads=np.array([[1e-8, 5e-8, 3e-8, 2e-8]], np.float32))
    heads = protect(scores, np.ones((1, 4))).heads
    assert np.argsort(heads[0]).tolist() == [0, 3, 2, 1]


@pytest.mark.parametrize("equal", [False, True])
def test_protected_heads_hold_their_groups(equal):
    """One of them is enough, however low the scores in its group and high those elsewhere."""
    heads = np.array([[0.0, 0.0, 9.0, 9.0], [10.0, 10.0, 10.0, 10.0]])
    kept = np.zeros((2, 4))
    kept[0, 0] = 1
    scores = protect(Gates(heads=heads), kept)
    gates = prune.select(scores, 0.5, groups=2, equal=equal)
    assert gates.heads[0, 0] == 1 and gates.heads.sum() == 4


def test_what_went_with_its_block_counts_for_nothing(model):
    """Scores may be negative: neurons of an MLP that is gone must not outlive others."""
    config = PruneConfig(
        criterion="ablation", sparsity=0.5, rounds=2, over=("neurons", "mlps"), data=DATA
    )
    gates = prune_gates(model, config, progress=False)
    gone = np.flatnonzero(np.asarray(gates.mlps) == 0)
    assert len(gone) == 1 and np.asarray(gates.neurons)[gone].sum() < 6
    with pytest.raises(ValueError, match="rounds: expected 1 for angular_distance"):
        prune_gates(model, dataclasses.replace(config, criterion="angular_distance"))


def test_text_is_packed_and_scored(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("Van done in 1 . lost born " * 60)
    found, loss = batches(model, Data(text=str(tmp_path / "a.txt"), count=4, context=16, batch=3))
    assert [one.tokens.shape for one in found] == [(3, 16), (1, 16)]
    nats = mean_loss(model, found, loss)
    total = [np.asarray(loss(model.apply(model.params, b.tokens), b)) for b in found]
    np.testing.assert_allclose(nats, np.concatenate(total).mean(), rtol=1e-5)


def test_the_commands(directory, tmp_path, capsys):
    small, stock = tmp_path / "small", tmp_path / "stock"
    command = ["prune", directory, str(small), "criterion=magnitude", "sparsity=0.4"]
    assert main(command) == 0
    assert "parameters" in capsys.readouterr().out
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    report = ["--report", str(tmp_path / "report")]
    assert main(["convert", str(small), str(stock), "--form", "padded", *report]) == 2
    assert "--report: expected --report-tasks" in capsys.readouterr().err
    assert main(["convert", str(small), str(stock), "--form", "padded"]) == 0
    record = json.loads((stock / "compression.json").read_text())
    assert record["kept"] == json.loads((small / "compression.json").read_text())["kept"]
    a, b = io.load(small), io.load(stock)
    tokens = jax.random.randint(jax.random.key(0), (2, 5), 0, a.config.vocab)
    np.testing.assert_allclose(
        a.apply(a.params, tokens).logits, b.apply(b.params, tokens).logits, atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sparsity=1"], "sparsity: expected a number in [0, 1), got 1"),
        (["criterion=tailor"], "criterion: expected one of"),
        (["over=[head]", "criterion=magnitude"], "did you mean 'heads'"),
        (["over=[head]", "data.tasks=[iio]"], "did you mean 'heads'"),  # before data are drawn
        (["over=[mlps]", "criterion=magnitude"], "over: expected what magnitude has scores for"),
        ([], "data: expected either tasks or text"),
        (["data.tasks=[iio]"], "did you mean 'ioi'"),
        (["data.text=nowhere.txt"], "nowhere.txt"),
        (["criterion=magnitude", "form=stock"], "config.sizes: expected layers of one size"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(directory, tmp_path, capsys, arguments, message):
    assert main(["prune", directory, str(tmp_path / "small"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().splitlines()[-1].startswith("jaxcompress: ")
    assert not list(tmp_path.iterdir())


def test_only_models_with_a_tokenizer_are_looked_at(model):
    with pytest.raises(ValueError, match="model: expected one with a tokenizer"):
        batches(dataclasses.replace(model, tokenizer=None), DATA)
