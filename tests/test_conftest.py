"""The strictness that every other test relies on is really switched on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from jaxcompress import check
from jaxcompress.tasks import metrics
from tests.conftest import REQUIRE_DATA, ROOT

TEST = """
import pytest

def test_reads(shared_data):
    assert (shared_data / "here").exists()

def test_skips(shared_data):
    pytest.skip("a file is missing")

@pytest.mark.skipif(True, reason="not today")
def test_is_marked(shared_data):
    pass

@pytest.mark.xfail(reason="known")
def test_is_expected_to_fail(shared_data):
    assert False

def test_skips_for_another_reason():
    pytest.skip("no browser")
"""


def outcome(folder, data, required):
    """The last line of a pytest run in which some tests ask for the shared data."""
    (folder / "test_inner.py").write_text(TEST)
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    environment = os.environ | {"JAXCOMPRESS_SHARED_DATA": str(data), REQUIRE_DATA: required}
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder)]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    return done.returncode, done.stdout.strip().splitlines()[-1]


def test_skips_of_tests_that_need_data_fail_on_demand(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "here").write_text("")
    code, line = outcome(tmp_path, tmp_path / "data", required="1")
    assert code == 1
    # What a mark skips never starts, and pytest calls a failure there an error.
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in line
    code, line = outcome(tmp_path, tmp_path / "data", required="")
    assert code == 0
    assert "1 passed, 3 skipped, 1 xfailed" in line


def test_absent_data_skips(tmp_path):
    code, line = outcome(tmp_path, tmp_path / "absent", required="")
    assert code == 0
    assert "5 skipped" in line


def test_data_is_read_through_the_fixture_only():
    # Otherwise a skip would not be seen by the hook above.
    this = {"conftest.py", "test_conftest.py"}
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in this]
    assert [path.name for path in tests if "shared/data" in path.read_text()] == []


def test_eight_cpu_devices():
    assert [device.platform for device in jax.devices()] == ["cpu"] * 8


def test_ranks_are_not_promoted():
    with pytest.raises(ValueError, match="rank"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="careful"):
        warnings.warn("careful", stacklevel=1)


def test_annotations_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError):
        check.integer(3, 3, 1)  # pyright: ignore[reportArgumentType]


def test_shapes_in_annotations_are_checked():
    logits = jnp.ones((2, 3, 4))
    with pytest.raises(jaxtyping.TypeCheckError, match="logits"):
        metrics.accuracy(logits, None)  # pyright: ignore[reportArgumentType]


def test_keys_are_typed(key):
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
