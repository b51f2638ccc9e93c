"""Circuits that are known: compiled programs, and an induction head."""

from __future__ import annotations

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import io, tasks
from jaxcompress.circuits import Graph, attribute, both_ways, rank_correlation
from jaxcompress.tasks.prompts import Prompts

pytestmark = pytest.mark.slow

OUTPUTS = {"hist": "hist_8", "length": "length_10", "sort_unique": "sort_1"}
COMPILED = ("reverse", "shift", "double_shift", "most_frequent")


def compiled(folder, name):
    program = json.loads((folder / "tracr" / f"{name}.json").read_text())
    return io.from_haiku(np.load(folder / "tracr" / f"{name}.npz"), program), program


def compile_program(name):
    """A program compiled here and now, in the form of the files, and the name of its output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiling = pytest.importorskip("tracr.compiler.compiling")
        lib = pytest.importorskip("tracr.compiler.lib")
        rasp = pytest.importorskip("tracr.rasp.rasp")

        def shift(sequence):
            before = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key == query - 1)
            return rasp.Aggregate(before, sequence)

        programs = {
            "reverse": lambda: lib.make_reverse(rasp.tokens),
            "shift": lambda: shift(rasp.tokens),
            "double_shift": lambda: shift(shift(rasp.tokens)),
            "most_frequent": lambda: lib.make_sort_freq(5),
        }
        found = compiling.compile_rasp_to_model(
            programs[name]().named("answer"),
            vocab={"a", "b", "c"},
            max_seq_len=5,
            compiler_bos="BOS",
        )
    arrays = {
        f"{module}/{leaf}": np.asarray(value)
        for module, leaves in found.params.items()
        for leaf, value in leaves.items()
    }
    sizes = found.model_config
    program = {
        "num_heads": sizes.num_heads, "num_layers": sizes.num_layers, "key_size": sizes.key_size,
        "mlp_hidden_size": sizes.mlp_hidden_size, "layer_norm": False, "causal": sizes.causal,
        "activation": "relu", "residual_labels": found.residual_labels,
        "input_encoding": found.input_encoder.encoding_map,
    }  # fmt: skip
    output = next(label for label in found.residual_labels if label.startswith("answer_"))
    return io.from_haiku(arrays, program), program, output.partition(":")[0]


def questions(model, program, output, count=48):
    """Pairs of inputs of which the program says different things somewhere; that is asked for.

    Letters are drawn freely, the padding letter too: what selects nothing is a letter as well.
    """
    rng = np.random.default_rng(0)
    encoding = program["input_encoding"]
    letters = [code for symbol, code in encoding.items() if symbol != "BOS"]
    length = model.config.context
    pairs = rng.choice(letters, (2, 40 * count, length))
    pairs[:, :, 0] = encoding["BOS"]
    columns = [i for i, label in enumerate(program["residual_labels"])
               if label.startswith(f"{output}:")]  # fmt: skip
    clean, other = (
        np.asarray(model.apply(model.params, tokens).logits)[..., columns] for tokens in pairs
    )
    differ = clean.argmax(-1) != other.argmax(-1)
    differ[:, 0] = False
    rows = np.flatnonzero(differ.any(1))[:count]
    at = np.array([rng.choice(np.flatnonzero(differ[row])) for row in rows])
    right = np.array(columns)[clean[rows, at].argmax(-1)]
    wrong = np.array(columns)[other[rows, at].argmax(-1)]
    prompts = Prompts(
        tokens=pairs[0, rows], corrupted=pairs[1, rows],
        attention_mask=np.ones((len(rows), length), int),
        answer_position=at, correct=right[:, None], wrong=wrong[:, None],
    )  # fmt: skip
    return prompts, columns


def true_edges(model, prompts, columns):
    """An edge is true if its sender writes, differently in both runs, what its receiver reads.

    Reads are the rows of the compiled weights that are not zero: of the query, key and value
    matrices, of the MLP's first layer, of the output's columns. A head whose pattern or value, or
    an MLP whose input, does not change writes the same in both runs, and has no true edges.
    """
    graph, blocks = Graph.of(model.config), model.params["blocks"]
    now, base = (
        model.edges.record(model.params, jnp.asarray(tokens))[0]
        for tokens in (prompts.tokens, prompts.corrupted)
    )
    writes = [np.abs(np.asarray(base.embed - now.embed)).max((0, 1))]
    reads = []
    for i in range(graph.layers):
        attn, mlp = blocks["attn"], blocks["mlp"]
        for h in range(graph.heads):
            change = np.asarray(base.heads - now.heads)[i][:, :, h]
            out = change @ np.asarray(attn["output"]["kernel"])[i, h]
            writes.append(np.abs(out).max((0, 1)))
        writes.append(np.abs(np.asarray(base.mlps - now.mlps)[i]).max((0, 1)))
        for part in ("query", "key", "value"):
            kernel = np.abs(np.asarray(attn[part]["kernel"])[i])
            reads += [kernel[:, h].max(1) for h in range(graph.heads)]
        reads.append(np.abs(np.asarray(mlp["up"]["kernel"])[i]).max(1))
    reads.append(np.isin(np.arange(model.config.width), columns).astype(float))
    written, read = np.array(writes) > 1e-4, np.array(reads) > 1e-6
    return (read[:, None] & written[None]).any(-1) & graph.valid


def auc(scores, truth):
    positive, negative = scores[truth], scores[~truth]
    above = (positive[:, None] > negative[None]).mean()
    return above + 0.5 * (positive[:, None] == negative[None]).mean()


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_edges_of_a_compiled_program(shared_data, name):
    model, program = compiled(shared_data, name)
    check_edges(model, program, OUTPUTS[name])


@pytest.mark.parametrize("name", COMPILED)
def test_the_edges_of_a_program_compiled_here(name):
    check_edges(*compile_program(name))


def check_edges(model, program, output):
    prompts, columns = questions(model, program, output)
    assert len(prompts) >= 20
    truth = true_edges(model, prompts, columns)
    found = attribute(model, prompts, method="exact", progress=False)
    valid = found.graph.valid
    assert 0 < truth.sum() < valid.sum()
    assert auc(np.abs(found.values[valid]), truth[valid]) >= 0.95


def test_induction_is_a_composition(shared_data):
    """The key of the induction head reads the previous-token head, which reads the token before."""
    model = io.load(shared_data / "induction")
    rng = np.random.default_rng(0)
    letters = np.array([rng.permutation(26)[:9] + 1 for _ in range(48)])
    half, wrong = letters[:, :8], letters[:, 8]
    tokens = np.hstack([np.zeros((48, 1), int), half, half[:, :5]])
    corrupted = tokens.copy()
    corrupted[:, 5] = wrong  # the token before the answer, in its first copy
    prompts = Prompts(
        tokens, corrupted, np.ones_like(tokens), np.full(48, 13), half[:, 5:6], wrong[:, None]
    )
    found = attribute(model, prompts)
    assert found.clean.mean() > 3 * abs(found.corrupted.mean())
    graph = found.graph
    between = {
        graph.name(r, s): found.importance[r, s]
        for r, s in np.argwhere(graph.valid)
        if graph.senders[s].startswith("a0") and graph.receivers[r].startswith("a1")
    }
    best = max(between, key=lambda name: between[name])
    assert best.endswith("<k>")
    assert between[best] > 2 * max(v for name, v in between.items() if not name.endswith("<k>"))
    head = best.split("->")[0]
    into = {kind: found.importance[graph.edge(f"embed->{head}<{kind}>")] for kind in "qkv"}
    assert max(into, key=lambda kind: into[kind]) == "v"


def test_gradients_rank_parts_of_the_built_in_teacher_as_patching_does():
    """EAP-IG against the mean of both ways of patching, over the parts that matter."""
    model = io.load("builtin:teacher")
    least = {"ioi": 0.9, "induction": 0.75}
    drawn = [tasks.get(task, model.tokenizer, 8, jax.random.key(0)) for task in least]
    for prompts, bound in zip(
        tasks.alike(drawn, model.config.context), least.values(), strict=True
    ):
        exact = both_ways(model, prompts, level="node", progress=False)["mean"]
        scores = attribute(model, prompts, level="node", method="eap-ig", steps=5)
        assert rank_correlation(scores, exact)[1] >= bound
