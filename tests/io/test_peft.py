"""Adapters in both directions against PEFT itself: the same logits and tensors, no warning."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from jaxcompress import io, lora, prune, tree
from jaxcompress.io import peft as ours
from jaxcompress.models import Gates
from tests import families
from tests.lora import examples
from tests.torch_models import logits, torch_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports; those of loading an adapter are errors
    import peft

pytestmark = [
    pytest.mark.torch,
    # PEFT asks transformers 5 by the old name; every other warning of it is an error here.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TOKENS = families.tokens()
FAMILIES = ("gpt2", "llama-gqa-biased", "gpt-neox", "bert", "distilbert")
# Different ranks; of GPT-2's three in one, two. BERT's mlp/down is called `output.dense`.
RANKS = {"*/attn/*": 2, "*/attn/value/*": 3, "*/down/*": 1}
THEIRS = {
    "gpt2": ["c_attn", "mlp.c_proj"],
    "llama-gqa-biased": ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"],
    "gpt-neox": ["query_key_value", "attention.dense", "dense_4h_to_h"],
    "bert": ["query", "value", "attention.output.dense", "intermediate.dense"],
    "distilbert": ["q_lin", "out_lin", "lin2"],
}
SPARSE = {"*/query/*": 2, "*/value/*": 2}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    @functools.cache
    def base(name):
        """Our model, and the torch model of the directory that it was saved to."""
        theirs, folder = torch_model(name), tmp_path_factory.mktemp(name)
        theirs.save_pretrained(folder / "theirs")
        model = io.load(folder / "theirs").replace(name=f"{name}-base")
        io.save(model, folder / "ours")
        return model, type(theirs).from_pretrained(folder / "ours").eval()

    return base


def applied(model, adapter):
    """With the parameters merged, so that a family is compiled once."""
    return np.asarray(model.apply(lora.merge(model.params, adapter), TOKENS).logits)


def loaded(theirs, folder):
    """Where a tensor finds no module, or a module no tensor, PEFT only warns: an error here."""
    return peft.PeftModel.from_pretrained(copy.deepcopy(theirs), folder).eval()


def trained(theirs, **options):
    """An adapter that PEFT made, with random values for those it starts from."""
    model = peft.get_peft_model(copy.deepcopy(theirs), peft.LoraConfig(**options)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("name", "variant", "ranks"),
    [
        *((name, "lora", RANKS) for name in FAMILIES),
        ("gpt2", "lora", SPARSE),
        ("gpt2", "rslora", RANKS),
        ("gpt2", "dora", SPARSE),
        ("gpt-neox", "dora", SPARSE),
        ("gpt2", "pissa", RANKS),
        ("llama-gqa-biased", "pissa", RANKS),
        ("bert", "dora", RANKS),
        ("bert", "lora", {"*/down/*": 2, "head/*": 1}),
    ],
)
def test_peft_loads_what_we_save(bases, tmp_path, name, variant, ranks):
    model, theirs = bases(name)
    adapter = examples.adapter(model.params, ranks, variant=variant)
    io.save_adapter(model, adapter, tmp_path / "adapter")
    wrapped = loaded(theirs, tmp_path / "adapter")
    got, expected = applied(model, adapter), logits(wrapped, TOKENS)
    assert np.abs(expected - logits(theirs, TOKENS)).max() > 0.3
    np.testing.assert_allclose(got, expected, atol=1e-4)
    # PEFT's own list of the tensors that its modules have.
    state = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    assert sorted(state) == ours.manifest(model, adapter)
    raw = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert raw["base_model_name_or_path"] == f"{name}-base"
    back = io.load_adapter(model, tmp_path / "adapter")
    np.testing.assert_allclose(applied(model, back), got, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_forward_with_an_adapter_is_that_of_peft(bases, tmp_path, name):
    model, theirs = bases(name)
    adapter = examples.adapter(model.params, RANKS)
    io.save_adapter(model, adapter, tmp_path / "adapter")
    got = model.apply(model.params, TOKENS, lora=adapter).logits
    np.testing.assert_allclose(got, logits(loaded(theirs, tmp_path / "adapter"), TOKENS), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"r": 2, "lora_alpha": 3}) for name in FAMILIES),
        ("gpt2", {"r": 3, "use_rslora": True}),
        ("gpt2", {"r": 2, "lora_alpha": 4, "use_dora": True}),
        ("llama-gqa-biased", {"r": 2, "use_dora": True, "use_rslora": True}),
        ("bert", {"r": 2, "layers_to_transform": [0, 2]}),
        ("distilbert", {"r": 1, "use_dora": True, "layers_to_transform": [1]}),
        (
            "gpt2",
            {
                "r": 2,
                "rank_pattern": {"h.1.attn.c_attn": 3, "mlp.c_proj": 1},
                "alpha_pattern": {"h.2.attn.c_attn": 5},
            },
        ),
    ],
)
def test_we_load_what_peft_saves(bases, tmp_path, name, options):
    model, theirs = bases(name)
    conv = {"fan_in_fan_out": name == "gpt2"}
    wrapped = trained(theirs, target_modules=THEIRS[name], lora_dropout=0.1, **conv, **options)
    wrapped.save_pretrained(tmp_path)
    adapter = io.load_adapter(model, tmp_path)
    expected = logits(wrapped, TOKENS)
    assert np.abs(expected - logits(theirs, TOKENS)).max() > 0.3
    np.testing.assert_allclose(applied(model, adapter), expected, atol=1e-4)
    # And back: what was loaded can be saved again.
    io.save_adapter(model, adapter, tmp_path / "again")
    again = loaded(theirs, tmp_path / "again")
    np.testing.assert_allclose(logits(again, TOKENS), expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights:UserWarning")
@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_pissa_of_peft_once_converted(bases, tmp_path, name):
    """PEFT takes the first factors off the base; converted, the adapter is for the whole base."""
    model, theirs = bases(name)
    options = {"r": 2, "lora_alpha": 4, "init_lora_weights": "pissa"}
    conv = {"fan_in_fan_out": name == "gpt2"}
    config = peft.LoraConfig(target_modules=THEIRS[name], **conv, **options)
    wrapped = peft.get_peft_model(copy.deepcopy(theirs), config).eval()
    wrapped.peft_config["default"].init_lora_weights = True
    wrapped.save_pretrained(tmp_path / "first")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in wrapped.named_parameters():
            if "lora_" in parameter_name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    wrapped.peft_config["default"].init_lora_weights = "pissa"
    wrapped.save_pretrained(tmp_path / "raw")
    with pytest.raises(ValueError, match="init_lora_weights: expected one of .* got 'pissa'"):
        io.load_adapter(model, tmp_path / "raw")
    first = str(tmp_path / "first")
    wrapped.save_pretrained(tmp_path / "last", path_initial_model_for_weight_conversion=first)
    expected = logits(wrapped, TOKENS)
    adapter = io.load_adapter(model, tmp_path / "last")
    assert {spec.rank for spec in adapter.specs} == {4}
    np.testing.assert_allclose(applied(model, adapter), expected, atol=1e-4)


def test_pissa_starts_like_that_of_peft(bases):
    model, theirs = bases("distilbert")
    options = {"r": 2, "lora_alpha": 6, "init_lora_weights": "pissa"}
    config = peft.LoraConfig(target_modules=["lin2"], **options)
    wrapped = peft.get_peft_model(copy.deepcopy(theirs), config)
    state = peft.get_peft_model_state_dict(wrapped)
    key = jax.random.key(0)
    targets = {"*/down/*": 2}
    adapter = lora.init(model.params, targets, alpha=6, variant="pissa", key=key)
    (leaves,) = adapter.leaves.values()
    for layer in range(model.config.layers):
        name = f"base_model.model.distilbert.transformer.layer.{layer}.ffn.lin2"
        a, b = (state[f"{name}.lora_{end}.weight"].numpy().T for end in "AB")
        got = np.matmul(leaves["a"][layer], leaves["b"][layer])
        np.testing.assert_allclose(got, a @ b, atol=1e-5)
        # Each column up to its sign, which no decomposition fixes.
        np.testing.assert_allclose(np.abs(leaves["a"][layer]), np.abs(a), atol=1e-5)


@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_save_load_is_the_identity(bases, tmp_path, variant):
    """For GPT-2 too, whose joined factors come apart again."""
    model, _ = bases("gpt2")
    adapter = examples.adapter(model.params, {**SPARSE, "*/up/*": 1}, alpha=4.0, variant=variant)
    io.save_adapter(model, adapter, tmp_path / "adapter")
    back = io.load_adapter(model, tmp_path / "adapter")
    assert {spec.path: spec.rank for spec in back.specs} == {
        spec.path: spec.rank for spec in adapter.specs
    }
    for spec in back.specs:
        assert spec.variant == variant
        np.testing.assert_allclose(spec.alpha, 4.0, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, back.leaves, adapter.leaves)


def test_shared_factors_are_joined_without_growing(bases, tmp_path):
    """PEFT's one pair of factors for query, key and value comes back as one."""
    model, theirs = bases("gpt2")
    wrapped = trained(theirs, r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    wrapped.save_pretrained(tmp_path / "theirs")
    adapter = io.load_adapter(model, tmp_path / "theirs")
    assert [spec.rank for spec in adapter.specs] == [2, 2, 2]
    io.save_adapter(model, adapter, tmp_path / "ours")
    before, after = (
        load_file(tmp_path / who / "adapter_model.safetensors") for who in ("theirs", "ours")
    )
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor)


def rewritten(folder, change, **options):
    """Changes the tensors and options of a saved adapter."""
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | options))
    return folder


@pytest.fixture
def saved(bases, tmp_path):
    model, _ = bases("gpt2")
    adapter = examples.adapter(model.params, SPARSE)
    io.save_adapter(model, adapter, tmp_path / "adapter")
    return model, adapter, tmp_path / "adapter"


def test_adapters_of_the_bare_decoder(saved):
    model, adapter, folder = saved
    rewritten(folder, lambda t: {k.replace("transformer.", ""): v for k, v in t.items()})
    jax.tree.map(
        np.testing.assert_array_equal, io.load_adapter(model, folder).leaves, adapter.leaves
    )


def test_half_precision_files(saved):
    model, adapter, folder = saved
    rewritten(folder, lambda t: {k: v.astype(np.float16) for k, v in t.items()})
    for leaf in jax.tree.leaves(io.load_adapter(model, folder)):
        assert leaf.dtype == np.float32
    with torch.no_grad():
        from safetensors.torch import save_file as save_torch

        path = folder / "adapter_model.safetensors"
        tensors = {k: torch.tensor(v).bfloat16() for k, v in load_file(path).items()}
        save_torch(tensors, path)
    back = tree.paths(io.load_adapter(model, folder).leaves)
    for path, leaf in tree.paths(adapter.leaves).items():
        np.testing.assert_allclose(back[path], leaf, rtol=2e-2)


@pytest.mark.parametrize(
    "option",
    [
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"use_qalora": True},
        {"lora_bias": True},
        {"peft_type": "IA3"},
        {"layer_replication": [[0, 2]]},
        {"trainable_token_indices": [3]},
        {"init_lora_weights": "olora"},
        {"an_option_of_tomorrow": 3},
    ],
    ids=str,
)
def test_options_that_are_not_implemented(saved, option):
    model, _, folder = saved
    (name,) = option
    with pytest.raises(ValueError, match=f"adapter_config.json: {name}: expected .* got "):
        io.load_adapter(model, rewritten(folder, dict, **option))


KEY = "base_model.model.transformer.h.1.attn.c_attn.lora_{}.weight"


def without(key):
    return lambda tensors: {name: value for name, value in tensors.items() if name != key}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (without(KEY.format("A")), {}, "transformer.h.1.attn.c_attn: expected all .* no a"),
        (lambda t: {k.replace("h.1", "h.7"): v for k, v in t.items()}, {}, "h.7.attn.c_attn'.*did"),
        (lambda t: {k.replace("base_model.", ""): v for k, v in t.items()}, {}, "of the form base"),
        (lambda t: {**t, KEY.format("C"): t[KEY.format("A")]}, {}, "tensor: expected a name"),
        (lambda t: {**t, "base_model.model.lm_head.weight": np.ones(2)}, {}, "tensor: expected"),
        (lambda t: {**t, KEY.format("A"): t[KEY.format("A")][:, :3]}, {}, r"shape \(8, 4\)"),
        (dict, {"r": 5}, r"shape \(8, 5\)"),
        (dict, {"use_dora": True}, "all its factors, got no m"),
        (lambda t: {**t, KEY.format("A"): np.nan * t[KEY.format("A")]}, {}, "expected finite"),
        (lambda t: {}, {}, "adapter: expected at least one tensor"),
    ],
)
def test_tensors_that_do_not_fit(saved, change, options, message):
    model, _, folder = saved
    with pytest.raises(ValueError, match=message):
        io.load_adapter(model, rewritten(folder, change, **options))


def test_broken_files(saved):
    model, _, folder = saved
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        io.load_adapter(model, folder)
    path.rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="no such file. adapter_model.bin is a pickle"):
        io.load_adapter(model, folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        io.load_adapter(model, folder)


def test_what_is_written_is_checked(bases, tmp_path, monkeypatch):
    """A tensor that gets lost is no adapter without effect: nothing is left on disk."""
    model, _ = bases("gpt2")
    adapter = examples.adapter(model.params, SPARSE)
    write = ours.safetensors.write

    def lossy(path, tensors):
        write(path, dict(list(tensors.items())[1:]))

    monkeypatch.setattr(ours.safetensors, "write", lossy)
    with pytest.raises(ValueError, match="expected the tensors"):
        io.save_adapter(model, adapter, tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", ["dora", "pissa"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_layers_of_different_sizes_keep_their_names(tmp_path, name, variant):
    whole = families.model(name)
    gates = Gates.off(whole.config, heads=[(0, 0), (1, 2), (1, 3)], neurons=[(1, 2)], attns=[2])
    model = prune.shrink(whole, gates)
    assert not model.config.stacked and model.config.layer_sizes[2].heads == 0
    adapter = examples.adapter(model.params, {"*/kernel": 1}, variant=variant)
    io.save_adapter(model, adapter, tmp_path / "adapter")
    names = ours.manifest(model, adapter)
    last = "layers.2.self_attn|h.2.attn|layers.2.attention"
    assert not any(re.search(last, one) for one in names)
    if name == "gpt_neox" and variant == "pissa":  # query, key and value of a head, of the next, ..
        stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        start = "base_model.model.gpt_neox.layers.0.attention.query_key_value.lora_"
        got = stored[f"{start}B.weight"] @ stored[f"{start}A.weight"]
        edit = tree.paths(
            jax.tree.map(jnp.subtract, lora.merge(model.params, adapter), model.params)
        )
        parts = [edit[f"blocks/0/attn/{part}/kernel"] for part in ("query", "key", "value")]
        heads = np.concatenate([part[:, h].T for h in range(3) for part in parts])
        np.testing.assert_allclose(got, heads, atol=1e-5)
    back = io.load_adapter(model, tmp_path / "adapter")
    expected = applied(model, adapter)
    np.testing.assert_allclose(applied(model, back), expected, atol=1e-5)
    assert np.abs(expected - model.apply(model.params, TOKENS).logits).max() > 0.1
    wrong = pytest.raises(ValueError, match=r"lora_\w+.weight, transposed: expected shape")
    with pytest.warns(UserWarning, match="a base of other values"), wrong:
        io.load_adapter(whole, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        *(({"lora_alpha": value}, "lora_alpha") for value in (None, [1], "16", -1, float("nan"))),
        ({"alpha_pattern": {"c_attn": "4"}}, "c_attn"),
        ({"rank_pattern": {"c_attn": 0}}, "c_attn"),
        ({"rank_pattern": ["c_attn"]}, "rank_pattern"),
    ],
    ids=str,
)
def test_ranks_and_scales_that_are_no_numbers(saved, options, name):
    model, _, folder = saved
    with pytest.raises(ValueError, match=f"adapter_config.json: {name}: expected .* got "):
        io.load_adapter(model, rewritten(folder, dict, **options))


def test_a_base_in_half_precision_is_the_same_base(saved):
    model, adapter, folder = saved
    half = model.replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params))
    assert io.load_adapter(half, folder).specs == adapter.specs


def test_adapters_that_cannot_be_saved(bases, tmp_path):
    model, _ = bases("gpt2")
    adapter = examples.adapter(model.params, SPARSE)
    io.save_adapter(model, adapter, tmp_path)
    with pytest.raises(ValueError, match="expected a new or empty directory"):
        io.save_adapter(model, adapter, tmp_path)
    io.save_adapter(model, adapter, tmp_path, overwrite=True)
    with pytest.raises(ValueError, match=r"\['a'\]: expected shape"):
        io.save_adapter(model, lora.stack([adapter, adapter]), tmp_path / "stacked")
    shared = families.model("gpt_neox", kv_heads=2)
    with pytest.raises(ValueError, match="config.kv_heads: expected as many as heads"):
        io.save_adapter(shared, examples.adapter(shared.params, SPARSE), tmp_path / "shared")
    research = families.model("research")
    edit = examples.adapter(research.params, SPARSE)
    with pytest.raises(ValueError, match="config.family: expected one of .*got 'research'"):
        io.save_adapter(research, edit, tmp_path / "research")
    tables = {"rule": lambda path: lora.Layout() if path == "embed/tokens" else None}
    edit = lora.init(model.params, ["*"], rank=1, alpha=1, key=jax.random.key(0), **tables)
    with pytest.raises(
        ValueError, match="expected linear modules of the model, got 'embed/tokens'"
    ):
        io.save_adapter(model, edit, tmp_path / "tables")
    other = examples.adapter(model.params, {"*/up/*": 1}, variant="dora")
    both = dataclasses.replace(
        adapter, leaves=adapter.leaves | other.leaves, specs=adapter.specs + other.specs
    )
    with pytest.raises(ValueError, match="expected edits of one variant, got .*dora"):
        io.save_adapter(model, both, tmp_path / "both")
    with pytest.raises(ValueError, match="expected edits of one variant, got no edit"):
        io.save_adapter(model, lora.Adapter({}, ()), tmp_path / "none")
