"""Learning dictionaries: true directions are found, members are apart, runs resume exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import tree
from jaxcompress.models import create_autoencoder
from jaxcompress.sae import geometry, quality
from jaxcompress.train import dictionaries
from jaxcompress.train.dictionaries import Dictionary, fit_dictionaries

KEYS = jax.random.split(jax.random.key(0), 2)
SMALL = Dictionary(features=12, k=2, steps=20, batch=16, patience=64)


def _sparse(directions=24, width=16, tokens=4000):
    """Sums of a few of some directions, and the directions."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((directions, width))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    f = (rng.random((tokens, directions)) < 1.5 / directions) * rng.uniform(
        0.5, 1.5, (tokens, directions)
    )
    return (f @ truth).astype(np.float32), truth.astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "coefficient", "k", "least"),
    [("topk", 0.0, 2, 0.95), ("relu", 1.0, 1, 0.95), ("jumprelu", 2.0, 1, 0.9)],
)
def test_true_directions_are_found(kind, coefficient, k, least):
    x, truth = _sparse()
    how = Dictionary(
        features=48, kind=kind, coefficient=coefficient, k=k, steps=700, batch=256, rate=5e-3
    )
    found = fit_dictionaries(x, how, KEYS[:1], progress=False)
    (found,) = tree.unstack(found)
    known = dataclasses.replace(create_autoencoder(16, 24, KEYS[0]), decoder=jnp.asarray(truth))
    assert geometry.shared(geometry.cosines(known, found)) > least
    assert quality.quality(found, x).explained > 0.7


def test_members_are_those_alone():
    x, _ = _sparse()
    together = fit_dictionaries(x, SMALL, KEYS, progress=False)
    alone = fit_dictionaries(x, SMALL, KEYS[:1], progress=False)
    for one, other in zip(tree.unstack(together)[0:1], tree.unstack(alone), strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, other
        )


def test_scaled_activations_have_the_same_features():
    x, _ = _sparse()
    one, other = (fit_dictionaries(by * x, SMALL, KEYS, progress=False) for by in (1.0, 64.0))
    np.testing.assert_allclose(one.decoder * 64, other.decoder, rtol=1e-4, atol=1e-4)
    f = [jax.vmap(lambda d, x: d.encode(x), (0, None))(d, x[:9] * by)
         for d, by in ((one, 1.0), (other, 64.0))]  # fmt: skip
    np.testing.assert_allclose(*f, rtol=1e-3, atol=1e-4)


def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path, monkeypatch):
    x, _ = _sparse()
    how = dataclasses.replace(SMALL, steps=150)
    whole = fit_dictionaries(x, how, KEYS, progress=False)
    kept = []

    def stop(*_):
        kept.append(1)
        if len(kept) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jaxcompress.train.loop._log", stop)
        with pytest.raises(KeyboardInterrupt):
            fit_dictionaries(x, how, KEYS, checkpoints=tmp_path, progress=False)
    resumed = fit_dictionaries(x, how, KEYS, checkpoints=tmp_path, progress=False)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    other = dataclasses.replace(how, rate=0.1)
    with pytest.raises(ValueError, match="another rate"):
        fit_dictionaries(x, other, KEYS, checkpoints=tmp_path, progress=False)


def test_features_are_silent_after_so_many_tokens_and_no_longer_once_active():
    x, _ = _sparse()
    optimizer = dictionaries._optimizer(SMALL)
    dead = create_autoencoder(16, 12, KEYS[0], kind="topk", k=2)
    dead = dataclasses.replace(dead, encoder_bias=dead.encoder_bias.at[3].set(-1e3))
    state = dictionaries._start(tree.stack([dead]), optimizer, KEYS[0])
    step = jax.jit(dictionaries._step(SMALL, optimizer, 16))
    seen = []
    for i in range(5):
        state, metrics = step(state, x[16 * i : 16 * i + 16])
        seen.append(int(state.params["silent"][0, 3]))
    assert seen == [16, 32, 48, 64, 64]  # counted to the patience
    assert metrics["silent"] >= 1 / 12 and metrics["auxiliary"] > 0
    woken = state.params["dictionary"]
    woken = dataclasses.replace(woken, encoder_bias=woken.encoder_bias.at[0, 3].set(1e3))
    state = dataclasses.replace(state, params=state.params | {"dictionary": woken})
    state, _ = step(state, x[:16])
    assert int(state.params["silent"][0, 3]) == 0


@pytest.mark.parametrize("field", ["features", "k", "steps", "batch", "patience"])
def test_numbers_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=f"^{field}"):
        Dictionary(**{field: 0})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "gated"}, "kind"),
        ({"k": 13}, "k"),
        ({"coefficient": -1.0}, "coefficient"),
        ({"rate": 0.0}, "rate"),
        ({"clip": 0.0}, "clip"),
        ({"warmup": 1.5}, "warmup"),
    ],
)
def test_settings_that_cannot_be_learned_with_are_refused_before_anything_is(changes, field):
    with pytest.raises(ValueError, match=f"^{field}: "):
        dataclasses.replace(SMALL, **changes)


def test_one_key_is_no_list_of_keys():
    with pytest.raises(ValueError, match=r"^keys: .*jax\.random\.split"):
        fit_dictionaries(np.ones((4, 2)), SMALL, KEYS[0], progress=False)


def test_activations_that_are_none_are_refused():
    with pytest.raises(ValueError, match="^x: "):
        fit_dictionaries(np.full((4, 2), np.nan), SMALL, KEYS, progress=False)
    with pytest.raises(ValueError, match="^x: "):
        fit_dictionaries(np.zeros(4), SMALL, KEYS, progress=False)
