"""Equal shapes and tokens for all ways, runs found again, rates chosen on validation."""

from __future__ import annotations

import dataclasses
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import prune
from jaxcompress.data.curriculum import MixtureConfig
from jaxcompress.data.text import word_level
from jaxcompress.models import Gates, create
from jaxcompress.narrowing import (
    Narrowing,
    Texts,
    fit,
    narrow,
    nats,
    read,
    relearn,
    relearning,
    training,
)
from jaxcompress.narrowing.ways import Runs, _sizes
from jaxcompress.train import population
from tests import torch_models
from tests.families import VOCAB

pytestmark = pytest.mark.slow

TINY = Narrowing(
    vocab=12, layers=2, heads=1, width=8, neurons=6, context=6, batch=4, teacher_steps=2, steps=4,
    points=2, measured=3, calibration=4, sizes=((0.5, 0.25),),
    methods=("attribution", "random", "lasso", "distil", "scratch"),
)  # fmt: skip


def texts(rows=8):
    rng = np.random.default_rng(0)
    splits = ("train", "validation", "test")
    drawn = {
        domain: {split: rng.integers(0, 12, (rows, 6)).astype(np.int32) for split in splits}
        for domain in ("code", "prose")
    }
    return Texts(drawn, None, "")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return str(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def found(work):
    config = dataclasses.replace(TINY, work=work)
    return config, narrow(config, texts(), progress=False)


def test_all_ways_have_one_size_and_as_many_tokens(found):
    networks = found[1]
    names = ["general", "attribution", "random", "scratch", "distil", "lasso"]
    assert [one.method for one in networks] == names
    assert {one.model.config for one in networks[1:]} == {networks[1].model.config}
    small = networks[1].model.config
    assert (small.width, small.neurons, small.stacked) == (6, 3, True)
    for one in networks[1:]:
        assert one.history[-1]["tokens"] == 4 * 4 * 6
        np.testing.assert_allclose(
            one.history[-1]["code"],
            nats(one.model, texts().rows["code"]["test"][[0, 4, 7]]),
            rtol=1e-5,
        )
        inner, whole = one.parameters
        assert whole - inner == 12 * one.model.config.width


def test_a_run_is_found_again(found):
    config, networks = found
    again = narrow(
        dataclasses.replace(config, methods=("attribution", "random", "scratch")),
        texts(),
        progress=False,
    )
    for one in again:
        (same,) = [n for n in networks if n.method == one.method]
        jax.tree.map(np.testing.assert_array_equal, one.model.params, same.model.params)
        assert one.history == same.history


def test_what_is_pruned_is_what_gates_shut(found):
    config, networks = found
    runs, general = Runs(config, texts(), False), networks[0].model
    small = runs.pruned(general, (0.5, 0.25))
    rows = texts().rows["code"]["train"][[0, 2, 5, 7]]
    sums = prune.calibrate(general, [prune.Text(rows, np.ones_like(rows))], progress=False)
    scores = prune.from_sums(general, sums, "taylor_batch")
    gates = Gates(
        neurons=prune.select(Gates(neurons=scores.neurons), 0.5, scope="layer").neurons,
        width=prune.select(Gates(width=scores.width), 0.25).width,
    )
    whole = general.apply(general.params, rows, gates=gates).logits
    np.testing.assert_allclose(small.apply(small.params, rows).logits, whole, atol=1e-5)


def test_side_by_side_is_one_after_the_other(found):
    """Two rates in one program end where each ends that is trained by itself."""
    config, networks = found
    model, rows = networks[0].model, [texts().rows["prose"]["train"]]

    def run(rates, config=config):
        params, _ = fit(
            [model] * len(rates), config, rows, rates=rates, steps=2, seeds=[0] * len(rates),
            measured={"code": jnp.asarray(texts().rows["code"]["test"][:2])}, progress=False,
        )  # fmt: skip
        return params

    both = run([1e-3, 1e-2])
    apart = run([1e-3, 1e-2], dataclasses.replace(config, together=1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), both, apart)
    moved = [jnp.abs(one["embed"]["tokens"] - model.params["embed"]["tokens"]) for one in both]
    assert moved[1].max() > 5 * moved[0].max()


def test_the_rate_is_chosen_on_validation(found, monkeypatch):
    """The second of three rates is best on validation at the end, whatever the test split says."""
    config, networks = found
    history = {
        "step": np.array([1, 2]),
        "loss": np.ones((2, 6)),
        "validation": np.array([[0.0, 3, 3, 3, 3, 3], [2.0, 1, 3, 1, 2, 3]]),
        "prose": np.array([[9.0] * 6, [1.0, 2, 3, 4, 5, 6]]),
        "code": np.ones((2, 6)),
    }
    seen, folders = {}, []

    def fake(models, config, rows, *, rates, steps, seeds, measured, checkpoints, **options):
        seen.update(rates=rates, measured=sorted(measured), rows=rows)
        folders.append(checkpoints)
        return None, history

    monkeypatch.setattr(relearning, "fit", fake)
    pair = [networks[1], networks[2]]
    assert pair[0].model.config == pair[1].model.config
    rows = relearn(pair, config, texts(), steps=2, rates=(0.1, 0.2, 0.3), progress=False)
    assert seen["rates"] == [0.1, 0.2, 0.3] * 2
    assert seen["measured"] == ["code", "prose", "validation"]
    np.testing.assert_array_equal(seen["rows"][0], texts().rows["prose"]["train"])
    assert [row["tokens"] for row in rows] == [0.0, 24.0, 48.0] * 2
    assert [row["rate"] for row in rows] == [0.2] * 3 + [0.1] * 3
    assert [row["edge"] for row in rows] == [False] * 3 + [True] * 3
    assert rows[0]["prose"] == pair[0].history[-1]["prose"]
    assert (rows[2]["prose"], rows[5]["prose"]) == (2.0, 4.0)
    # The same weights find their run again; others of the same names and shapes start their own.
    options = {"steps": 2, "rates": (0.1, 0.2, 0.3), "progress": False}
    relearn(pair, config, texts(), **options)
    model = pair[0].model
    other = model.replace(params=jax.tree.map(lambda leaf: leaf * 1.001, model.params))
    relearn([dataclasses.replace(pair[0], model=other), pair[1]], config, texts(), **options)
    assert folders[0] == folders[1] != folders[2]


def test_a_llama_directory_goes_the_same_way(tmp_path):
    """What `paper.yaml` does: bfloat16, remat, parts, uneven layers, one network at a time.

    With the penalty, and then prose again.
    """
    torch_models.torch_model("llama-mqa-tied").save_pretrained(tmp_path / "llama")
    words = " ".join(chr(97 + i) * 2 for i in range(VOCAB - 3))
    word_level([words]).save_pretrained(tmp_path / "llama")
    code, prose = tmp_path / "code", tmp_path / "prose"
    for folder in (code, prose):
        folder.mkdir()
        for i in range(60):
            chosen = np.random.default_rng(i).choice(words.split(), 20)
            (folder / f"{i}.txt").write_text(" ".join(chosen))
    config = Narrowing(
        teacher=str(tmp_path / "llama"), code=str(code), prose=str(prose), context=8, batch=4,
        parts=2, together=1, precision="bfloat16", remat=True, scope="global", steps=2, points=1,
        methods=("lasso",), sizes=((0.5, 0.25),), calibration=4, measured=2,
        work=str(tmp_path / "work"),
    )  # fmt: skip
    here = read(config)
    networks = narrow(config, here, progress=False)
    assert [one.method for one in networks] == ["general", "lasso"]
    assert networks[1].model.config.remat and networks[1].model.config.dtype == "bfloat16"
    for one in networks[1:]:
        assert np.isfinite(one.history[-1]["code"])
        assert one.model.params["embed"]["tokens"].dtype == jnp.float32
        assert isinstance(one.model.params["embed"]["tokens"], np.ndarray)  # on the host
    rows = relearn(networks[1:2], config, here, steps=1, rates=(1e-3,), progress=False)
    assert len(rows) == 2 and all(np.isfinite(row["prose"]) for row in rows)


def test_bad_settings(work):
    config = dataclasses.replace(TINY, work=work, batch=3)
    with pytest.raises(ValueError, match="batch: expected a multiple of 1 parts times 2 domains"):
        narrow(config, texts(), progress=False)
    one_file = dataclasses.replace(TINY, only=("bisect",), work=work, vocab=257)
    with pytest.raises(ValueError, match="no text. Splits are by file"):
        read(one_file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5}, r"steps: expected a multiple of points \(2\), got 5"),
        ({"teacher_steps": 3}, r"teacher_steps: expected a multiple of points \(2\), got 3"),
        ({"lasso_share": 0.25}, r"lasso_share: expected a share .* got 0.25, 1 steps for 2 points"),
        ({"lasso_share": 1.0}, "lasso_share: expected a share"),
    ],
)
def test_fewer_steps_than_asked_are_refused(changes, message, work, monkeypatch):
    """All ways get equally many tokens, or none any."""
    monkeypatch.setattr(population, "train", None)
    with pytest.raises(ValueError, match=message):
        narrow(dataclasses.replace(TINY, work=work, **changes), texts(), progress=False)


def test_nothing_is_kept_of_the_models_after_a_fit():
    """What is compiled stays; what it started from, and a teacher, are gigabytes."""
    model, teacher = (create(_sizes(TINY), key=jax.random.key(i)) for i in range(2))
    rows = texts().rows["code"]
    fit([model], TINY, [rows["train"]], rates=[1e-3], steps=2, seeds=[0],
        measured={"code": rows["test"]}, teacher=teacher, progress=False)  # fmt: skip
    left = [weakref.ref(leaf) for one in (model, teacher) for leaf in jax.tree.leaves(one.params)]
    del model, teacher
    gc.collect()
    assert not [leaf for leaf in left if leaf() is not None]


def test_domains_are_drawn_in_the_shares_of_the_step():
    rows = [jnp.zeros((3, 2), int), jnp.ones((50, 2), int)]
    keys = jax.random.split(jax.random.key(0), 500)

    def share(hyper, key):
        return training._drawn(8, key, hyper).mean()

    for shares in ([0.0, 1.0], [0.75, 0.25]):
        hyper = {"rows": rows, "shares": jnp.array(shares)}
        found = jax.vmap(functools.partial(share, hyper))(keys)
        np.testing.assert_allclose(found.mean(), shares[1], atol=0.02)
    equal = jax.vmap(functools.partial(share, {"rows": rows}))(keys)
    assert (equal == 0.5).all()  # without a curriculum in every step


def test_the_general_model_can_be_shown_one_domain_first(tmp_path):
    """What comes first, and more often, is known better in the end."""
    split = {"train": np.full((8, 6), 3), "validation": np.full((4, 6), 3)}
    found = texts().rows | {"prose": split | {"test": np.full((4, 6), 3)}}
    order = MixtureConfig("by_frequency", opening=1.0, frequencies=(1.0, 3.0))
    config = dataclasses.replace(
        TINY, methods=(), sizes=(), teacher_steps=40, mixture=order, work=str(tmp_path),
        teacher_rate=0.03,
    )  # fmt: skip
    general = narrow(config, Texts(found, None, ""), progress=False)[0]
    late = narrow(
        dataclasses.replace(config, mixture=dataclasses.replace(order, frequencies=(3.0, 1.0))),
        Texts(found, None, ""),
        progress=False,
    )[0]
    assert general.history[0]["prose"] < late.history[0]["prose"]
    assert general.history[0]["code"] != late.history[0]["code"]
