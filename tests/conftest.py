"""What every test stands on: eight fake CPU devices, strict JAX, the shared data, a random key."""

from __future__ import annotations

import os
from pathlib import Path

# Before JAX is imported: afterwards these have no effect.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # The programs here are small and many: to compile them fast saves more than to run them
        # fast, and without its emitters of fused loops XLA takes a third of the time. What users
        # run is tested by tests/test_optimized.py, which sets the variable. Cut into parts, to be
        # compiled side by side, programs take a fifth longer where there is one thread.
        "--xla_cpu_use_fusion_emitters=" + os.environ.get("JAXCOMPRESS_TEST_OPTIMIZED", "false"),
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
).strip()

import hypothesis
import jax
import pytest

FLAGS = os.environ["XLA_FLAGS"]
ROOT = Path(__file__).resolve().parents[1]
REQUIRE_DATA = "JAXCOMPRESS_REQUIRE_DATA"

# An array that broadcasts by accident is a wrong number, not a convenience.
jax.config.update("jax_numpy_rank_promotion", "raise")

jax.config.update("jax_disable_most_optimizations", "fusion_emitters=false" in FLAGS)

# No deadline: the first call compiles. Derandomized: a red test is red again on the next machine.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real models and data next to the repository; tests that need them are skipped without."""
    named = os.environ.get("JAXCOMPRESS_SHARED_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared data: put it at ../shared/data or name JAXCOMPRESS_SHARED_DATA")
    return folder


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def flags_of_this_process(monkeypatch):
    """What a test starts has the flags of XLA that this process computes with.

    Entry points that earlier tests called have set others, too late for this process.
    """
    monkeypatch.setenv("XLA_FLAGS", FLAGS)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forgets compiled programs before their memory maps are too many.

    Each takes a dozen, the kernel gives 65,530, and where no more can be had the compiler crashes.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 5_000:
        jax.clear_caches()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """With JAXCOMPRESS_REQUIRE_DATA=1, a test that asks for the shared data may not be skipped."""
    outcome = yield
    report = outcome.get_result()
    required = os.environ.get(REQUIRE_DATA) == "1"
    asks = "shared_data" in getattr(item, "fixturenames", ())
    if required and asks and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but {REQUIRE_DATA}=1: {report.longrepr}"
