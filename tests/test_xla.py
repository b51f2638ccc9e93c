"""The flag that brings fast matrix products back: where it is known, and only there."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import jaxlib
import pytest

from jaxcompress import xla

FLAG = "--xla_cpu_experimental_ynn_fusion_type="


@pytest.mark.parametrize("version", ["0.8.1", "0.8.2", "0.9.0.1", "0.10.2", "0.11.0"])
def test_the_flag_is_added_where_it_is_known(version):
    assert xla.cpu_flags("", version, "x86_64") == FLAG
    assert xla.cpu_flags("--a=1", version, "AMD64") == f"--a=1 {FLAG}"
    assert xla.cpu_flags(f"--a=1 {FLAG}", version, "x86_64") == f"--a=1 {FLAG}"
    taken = f"{FLAG}LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    assert xla.cpu_flags("", version, "x86_64", training=True) == taken


@pytest.mark.parametrize(
    ("version", "machine"),
    [("0.7.2", "x86_64"), ("0.8.0", "x86_64"), ("0.12.0", "x86_64"), ("0.10.2", "aarch64")],
)
def test_it_is_not_added_elsewhere(version, machine):
    """An unknown flag would end the process."""
    assert xla.cpu_flags("--a=1", version, machine) == "--a=1"


def test_what_the_user_says_of_it_stays():
    asked = f"{FLAG}LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    assert xla.cpu_flags(asked, "0.10.2", "x86_64") == asked


@pytest.mark.parametrize("training", [False, True])
def test_a_process_takes_the_flag(training):
    """This jaxlib knows it; a new process starts with it and computes; importing sets nothing."""
    code = (
        "import json, os, jax, jax.numpy as jnp; import jaxcompress; from jaxcompress import xla;"
        "before = os.environ.get('XLA_FLAGS'); flags = xla.set_flags(training=TRAINING);"
        "print(json.dumps([before, flags, float((jnp.ones((8, 8)) @ jnp.ones((8, 8))).sum())]))"
    )
    code = code.replace("TRAINING", str(training))
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean, timeout=300
    )
    assert done.returncode == 0, done.stderr
    before, flags, total = json.loads(done.stdout)
    assert before is None
    assert flags == xla.cpu_flags("", jaxlib.__version__, platform.machine(), training=training)
    assert total == 512
