"""With a cache as without, alone as in a batch, as stock `transformers` says, and refusals."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxcompress import io, lora
from jaxcompress.generate import cached, sample
from jaxcompress.models import Edits, Gates
from scripts import bench_generate
from tests import families
from tests.families import BATCH, CONTEXT, LENGTH, VOCAB
from tests.torch_models import torch_model

COUNT = CONTEXT - LENGTH
CAUSAL = ("gpt2", "llama", "gpt_neox", "uneven")
KEY = jax.random.key(3)


def recomputed(model, out, temperature=1.0, **options):
    """(batch, count) log-probabilities of the drawn tokens, by one forward of everything."""
    logits = model.apply(
        model.params, out.tokens, attention_mask=out.attention_mask, **options
    ).logits
    logs = jax.nn.log_softmax(logits / temperature, axis=-1)
    prompt = out.tokens.shape[1] - out.log_probs.shape[1]
    rows = []
    for row, mask in enumerate(np.asarray(out.attention_mask)):
        before = [np.flatnonzero(mask[:slot])[-1] for slot in range(prompt, len(mask))]
        drawn = out.tokens[row, prompt:]
        rows.append(logs[row, jnp.array(before), drawn] * mask[prompt:])
    return np.stack(rows)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", CAUSAL)
def test_cached_log_probs_are_those_of_the_whole_forward(name, padding):
    model, mask = families.model(name), families.mask(padding)
    options = {"attention_mask": mask, "count": COUNT, "key": KEY, "temperature": 0.7}
    out = sample(model, families.tokens(), **options)
    assert out.tokens.shape == out.attention_mask.shape == (BATCH, CONTEXT)
    np.testing.assert_array_equal(out.attention_mask[:, :LENGTH], mask)
    assert (out.attention_mask[:, LENGTH:] == 1).all()
    np.testing.assert_allclose(out.log_probs, recomputed(model, out, 0.7), atol=1e-5)
    alone = mask[1] == 1
    short = sample(
        model, families.tokens()[1:2, alone], count=COUNT, key=KEY, temperature=0.7, first_row=1
    )
    np.testing.assert_array_equal(short.tokens[0, alone.sum() :], out.tokens[1, LENGTH:])
    np.testing.assert_allclose(short.log_probs[0], out.log_probs[1], atol=1e-5)


def _controls(model):
    """Gates, edits and an adapter that change the forward."""
    config, rng = model.config, np.random.default_rng(0)

    def draw(*shape):
        return rng.uniform(0.2, 1, shape).astype(np.float32)

    gates = Gates(
        heads=draw(BATCH, config.layers, config.heads),
        neurons=draw(config.layers, config.neurons),
        mlps=draw(config.layers),
        width=draw(config.width),
    )
    edits = Edits(heads=draw(config.layers, BATCH, 1, config.heads, config.head_dim))
    targets = ["*/query/kernel", "*/down/kernel"]
    adapter = lora.init(model.params, targets, rank=2, alpha=8.0, key=KEY)
    moved = jax.tree.map(lambda leaf: leaf + 0.3, lora.trainable(adapter))
    return gates, edits, lora.with_trained(adapter, moved)


@pytest.mark.parametrize("name", ["llama", "uneven"])
def test_gates_edits_and_adapters(name):
    model = families.model(name)
    gates, edits, adapter = _controls(model)
    changed = {"gates": gates, "edits": edits}
    changed |= {"lora": adapter} if name == "llama" else {}
    shared = {"count": COUNT, "attention_mask": families.mask("left")}
    out = sample(model, families.tokens(), **shared, **changed)
    np.testing.assert_allclose(out.log_probs, recomputed(model, out, **changed), atol=1e-5)
    assert np.abs(out.log_probs - recomputed(model, out)).max() > 0.1


@pytest.mark.torch
@pytest.mark.parametrize("name", ["gpt2", "llama-gqa-biased", "gpt-neox"])
def test_greedy_is_that_of_transformers(name, tmp_path):
    theirs = torch_model(name)
    theirs.save_pretrained(tmp_path)
    mask = families.mask("left")
    ours = _greedy_pair(theirs, io.load(tmp_path), families.tokens(), mask, COUNT, stop=0)
    assert len(np.unique(ours[:, LENGTH:])) > 1


@pytest.mark.torch
def test_greedy_stories(shared_data):
    import transformers

    folder = shared_data / "stories260k"
    model = io.load(folder)
    tokens = np.load(folder / "eval_tokens.npz")
    tokens = np.asarray(next(iter(tokens.values())))[:2, :16].astype(np.int64)
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    out = _greedy_pair(theirs, model, tokens, np.ones_like(tokens), 48, stop=2)
    assert len(np.unique(out[:, 16:])) > 10


def _greedy_pair(theirs, ours, tokens, mask, count, *, stop):
    out = sample(ours, tokens, attention_mask=mask, count=count, stop=stop)
    with torch.no_grad():
        expected = theirs.generate(
            torch.tensor(tokens), attention_mask=torch.tensor(mask), do_sample=False,
            max_new_tokens=count, eos_token_id=stop, pad_token_id=0,
        ).numpy()  # fmt: skip
    prompt = tokens.shape[1]
    got = np.asarray(out.tokens)
    np.testing.assert_array_equal(got[:, prompt : expected.shape[1]], expected[:, prompt:])
    assert (got[:, expected.shape[1] :] == 0).all()
    return got


@pytest.mark.parametrize("cuts", [{}, {"top_k": 4}, {"top_p": 0.8}, {"top_k": 6, "top_p": 0.7}])
def test_frequencies_are_those_of_the_cut_softmax(cuts):
    """4,096 rows of one prompt: a share of 0.5 is then within 0.04 in five standard errors."""
    model, rows = families.model("gpt2"), 4096
    tokens = np.repeat(families.tokens()[:1], rows, axis=0)
    out = sample(model, tokens, count=1, key=KEY, temperature=1.5, **cuts)
    logits = np.asarray(model.apply(model.params, tokens[:1]).logits)[0, -1].astype(np.float64)
    shares = np.exp(logits / 1.5)
    order, shares = np.argsort(-shares), shares / shares.sum()
    kept = order[: cuts.get("top_k", VOCAB)]
    masses = np.cumsum(shares[kept]) / shares[kept].sum()
    kept = kept[: int((masses < cuts.get("top_p", 1.0)).sum()) + 1]
    expected = np.zeros(VOCAB)
    expected[kept] = shares[kept] / shares[kept].sum()
    found = np.bincount(np.asarray(out.tokens)[:, -1], minlength=VOCAB) / rows
    assert (found[expected == 0] == 0).all()
    error = np.sqrt(expected * (1 - expected) / rows)
    assert (np.abs(found - expected) <= 4 * error + 1e-9).all()
    drawn = np.asarray(out.tokens)[:, -1]
    np.testing.assert_allclose(out.log_probs[:, 0], np.log(expected[drawn]), atol=1e-4)


def test_stop_tokens_end_a_row():
    model, tokens = families.model("gpt2"), families.tokens()
    free = sample(model, tokens, count=COUNT)
    ends = int(free.tokens[0, LENGTH])  # the first that row 0 says
    out = sample(model, tokens, count=COUNT, stop=[ends])
    for row in range(BATCH):
        said = np.asarray(free.tokens[row, LENGTH:])
        length = list(said).index(ends) + 1 if ends in said else COUNT
        np.testing.assert_array_equal(out.tokens[row, LENGTH:][:length], said[:length])
        assert out.attention_mask[row].sum() == LENGTH + length
        for rest in (
            out.tokens[row, LENGTH:],
            out.attention_mask[row, LENGTH:],
            out.log_probs[row],
        ):
            assert (rest[length:] == 0).all()
    np.testing.assert_allclose(out.log_probs, recomputed(model, out), atol=1e-5)


def test_one_compilation_serves_all_settings():
    model, tokens = families.model("gpt2", neurons=5), families.tokens()
    before = cached.generated._cache_size()
    for i, (temperature, top_k) in enumerate([(0.5, 3), (1.0, 7), (2, 1)]):
        options = {"key": jax.random.key(i), "temperature": temperature, "top_k": top_k}
        sample(model, tokens, count=COUNT, stop=i, first_row=i, **options)
    assert cached.generated._cache_size() == before + 1


def test_under_jit_and_vmap():
    model, tokens = families.model("gpt2"), families.tokens()
    keys = jax.random.split(KEY, 2)

    def draw(key, temperature):
        return sample(model, tokens, count=2, key=key, temperature=temperature)

    both = jax.jit(jax.vmap(draw))(keys, jnp.array([0.5, 1.5]))
    for i, temperature in enumerate((0.5, 1.5)):
        one = draw(keys[i], temperature)
        np.testing.assert_array_equal(both.tokens[i], one.tokens)
        np.testing.assert_allclose(both.log_probs[i], one.log_probs, atol=1e-5)


def test_programs_do_not_grow():
    """Neither with the depth of the model nor with the number of tokens."""

    def size(count, **changes):
        model, tokens = families.model("gpt2", context=64, **changes), families.tokens()
        draw = jax.jit(lambda params: sample(model.replace(params=params), tokens, count=count))
        return len(draw.lower(model.params).as_text().splitlines())

    assert size(3) == size(50) == size(3, layers=9)


REFUSED = {
    "encoder": ("bert", {}, "model"),
    "no head": ("gpt2", {"head": "none"}, "model"),
    "too long": ("gpt2", {"count": COUNT + 1}, "tokens"),
    "nothing to draw": ("gpt2", {"count": 0}, "count"),
    "no token": (
        "gpt2",
        {"attention_mask": np.eye(BATCH, LENGTH, 1, int) * [[1], [1], [0]]},
        "mask",
    ),
    "mask of halves": ("gpt2", {"attention_mask": np.full((BATCH, LENGTH), 0.5)}, "mask"),
    "other mask": ("gpt2", {"attention_mask": np.ones((BATCH, LENGTH + 1), int)}, "mask"),
    "no such token": ("gpt2", {"tokens": np.full((1, 2), VOCAB)}, "tokens"),
    "no batch": ("gpt2", {"tokens": np.zeros(3, int)}, "tokens"),
    "not integers": ("gpt2", {"tokens": np.zeros((1, 3))}, "tokens"),
    "cold": ("gpt2", {"temperature": -0.1}, "temperature"),
    "too cold to divide by": ("gpt2", {"temperature": 1e-38}, "temperature"),
    "no temperature": ("gpt2", {"temperature": float("nan")}, "temperature"),
    "none of all": ("gpt2", {"top_k": 0}, "top_k"),
    "no mass": ("gpt2", {"top_p": 0.0}, "top_p"),
    "too much mass": ("gpt2", {"top_p": 1.1}, "top_p"),
    "mass unknown": ("gpt2", {"top_p": float("nan")}, "top_p"),
    "no key": ("gpt2", {"key": None}, "key"),
    "raw key": ("gpt2", {"key": np.zeros(2, np.uint32)}, "key"),
    "no such end": ("gpt2", {"stop": VOCAB}, "stop"),
    "gates by position": ("gpt2", {"gates": Gates(mlps=np.ones((BATCH, LENGTH, 3)))}, "gates.mlps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    name, options, named = REFUSED[case]
    options = {"count": 1, "key": KEY, "temperature": 1.0, "tokens": families.tokens()} | options
    options |= {"count": 2} if case == "gates by position" else {}
    model = families.model(name)
    if "head" in options:
        model = model.replace(config=dataclasses.replace(model.config, head=options.pop("head")))
    with pytest.raises(ValueError, match=named):
        sample(model, **options)


@pytest.mark.torch
def test_the_benchmark_runs(capsys):
    bench_generate.main(bench_generate.Args(quick=True))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["speedup_batch1"] > 0
    assert result["speedup_batch8"] > 0
