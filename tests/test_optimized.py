"""Some of the tests once more in the programs that users run, which XLA optimises in full."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

from jaxcompress import xla
from tests.conftest import ROOT

FILES = ("models/test_parity.py", "io/test_real_files.py", "ablate/test_sweep.py")
LOOPS = "test_equals_the_loop and heads and mean and gpt2"
LOGITS = "test_logits and (gpt2-right or gqa-biased-right or neox-right or bert-right)"
CHOSEN = f"{LOGITS} or test_stories260k or test_sort or {LOOPS}"


@pytest.mark.slow
def test_what_users_run():
    """Parity with torch, real models, and sweeps equal to loops."""
    flags = xla.cpu_flags("", importlib.metadata.version("jaxlib"), platform.machine())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", CHOSEN]
        + [f"tests/{file}" for file in FILES],
        cwd=ROOT,
        env=os.environ | {"JAXCOMPRESS_TEST_OPTIMIZED": "true", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    passed = int(done.stdout.strip().splitlines()[-1].split(" passed")[0].split()[-1])
    assert done.returncode == 0 and passed >= 8, done.stdout[-2000:]
