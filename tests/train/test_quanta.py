"""Networks of sparse-parity mixtures: what each of them draws with."""

from __future__ import annotations

import jax
import pytest

from jaxcompress.train import parity as lab
from jaxcompress.train.quanta import Mixture, train_quanta


def test_a_data_set_has_a_key_of_its_own(monkeypatch):
    """With the member's key, example n would be drawn with what step n draws with."""
    seen = {}

    def fake(*arguments, keys, hyper, **options):
        seen.update(keys=jax.random.key_data(keys), data=jax.random.key_data(hyper["data"]))
        raise InterruptedError

    monkeypatch.setattr(lab, "train", fake)
    tiny = Mixture(bits=6, tasks=2, size=1, width=4, steps=2, batch=8, every=1)
    with pytest.raises(InterruptedError):
        train_quanta(tiny, "data", alphas=[0.4], sizes=[10], seeds=3, progress=False)
    own, data = ({tuple(row) for row in seen[name].tolist()} for name in ("keys", "data"))
    assert len(own) == len(data) == 3 and not own & data
