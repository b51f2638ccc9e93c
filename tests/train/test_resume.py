"""A real process is killed, then asked to stop; what comes out is the uninterrupted run's, bitwise.

The optimisations of XLA are chosen in the environment of the process as in tests/conftest.py:
programs that were compiled differently round differently.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from jaxcompress import train
from jaxcompress.io import checkpoint
from jaxcompress.train.signals import held
from tests.conftest import ROOT
from tests.train import tiny


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(left, right)


def stopped(folder, beyond, signum):
    """The exit status of a training that gets a signal once it has a checkpoint after `beyond`."""
    environment = {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "train" / "tiny.py", folder],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None:
        steps = [int(path.name) for path in folder.glob("[0-9]*")]
        if max(steps, default=0) > beyond:
            process.send_signal(signum)
            break
        time.sleep(0.02)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


@pytest.mark.slow
def test_killed_and_stopped(tmp_path):
    """SIGKILL, resumed; SIGTERM, saved and exit status 0; resumed to the end: the same bits."""
    folder = tmp_path / "checkpoints"
    status, errors = stopped(folder, 0, signal.SIGKILL)
    assert status == -signal.SIGKILL, errors
    status, errors = stopped(folder, 6, signal.SIGTERM)
    assert status == 0, errors
    step = checkpoint.latest(folder)
    assert 6 < step < tiny.STEPS and step % tiny.CHUNK == 0
    assert f"stopped by SIGTERM, {folder / str(step)} saved" in errors
    resumed, whole = tiny.fit(folder), tiny.fit()
    assert_same(resumed.params, whole.params)
    assert_same(resumed.opt_state, whole.opt_state)


class Linear:
    """Least squares: small enough to be interrupted many times."""

    def __init__(self):
        import jax.numpy as jnp
        import optax

        def loss(params, batch, key):
            noise = 0.1 * jax.random.normal(key, batch.shape)
            return ((params[None] - batch - noise) ** 2).mean(), {}

        self.optimizer = optax.adam(0.1)
        self.step = train.make_step(loss, self.optimizer)
        self.start = train.create(jnp.zeros(3), self.optimizer, jax.random.key(0))
        self.data = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)

    def fit(self, steps=12, **options):
        options = {"batch": 4, "chunk": 2, "progress": False} | options
        return train.fit(self.start, self.step, self.data, steps, **options)


LINEAR = Linear()


@pytest.mark.parametrize("at", [2, 6, 12])
def test_sigterm_saves_at_the_end_of_the_chunk(tmp_path, at, capsys):
    def send(name, step, row):
        if step == at:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit_:
        LINEAR.fit(checkpoints=tmp_path, every=8, loggers=[send])
    assert exit_.value.code == 0 and checkpoint.latest(tmp_path) == at
    assert signal.getsignal(signal.SIGTERM) is before
    resumed = LINEAR.fit(checkpoints=tmp_path, every=8)
    assert_same(resumed.params, LINEAR.fit().params)


def test_without_checkpoints_sigterm_is_left_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []
    LINEAR.fit(4, loggers=[lambda *_: seen.append(signal.getsignal(signal.SIGTERM))])
    assert seen == [before, before]


def test_in_other_threads_sigterm_is_left_alone(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(LINEAR.fit(4, checkpoints=tmp_path)))
    thread.start()
    thread.join()
    assert int(done[0].step) == checkpoint.latest(tmp_path) == 4


def test_handlers_come_back_after_errors():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), held():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_damaged_checkpoints_are_passed_over(tmp_path):
    LINEAR.fit(8, checkpoints=tmp_path)
    (tmp_path / "8" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="/8: (damaged checkpoint ignored|not a whole)"):
        resumed = LINEAR.fit(checkpoints=tmp_path)
    assert_same(resumed.params, LINEAR.fit().params)


def test_bad_folders_are_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    seen = []
    with pytest.raises(ValueError, match="expected a directory that can be written to"):
        LINEAR.fit(checkpoints=tmp_path / "file", loggers=[lambda *_: seen.append(1)])
    assert not seen
