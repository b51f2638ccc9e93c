"""The one flag of XLA that a process of ours sets before it uses JAX."""

from __future__ import annotations

import importlib.metadata
import os
import platform

__all__ = ["cpu_flags", "set_flags"]

YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
TRAINING = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
# The flag is unknown before, and an unknown flag ends the process; later ones are not tried yet.
KNOWN = ((0, 8, 1), (0, 12))


def set_flags(*, training: bool = False) -> str:
    """Adds `cpu_flags` to the environment's XLA_FLAGS, and returns what they are then.

    For entry points: XLA reads its flags once, when a process first uses a device. Importing
    jaxcompress sets nothing; who runs its functions in a program of their own calls this first, or
    sets the variable themselves.

    Args:
      training: whether the process trains small models more than it sweeps.

    Example:
      >>> set_flags() == set_flags()
      True
    """
    os.environ["XLA_FLAGS"] = cpu_flags(
        os.environ.get("XLA_FLAGS", ""),
        importlib.metadata.version("jaxlib"),
        platform.machine(),
        training=training,
    )
    return os.environ["XLA_FLAGS"]


def cpu_flags(flags: str, version: str, machine: str, *, training: bool = False) -> str:
    """XLA_FLAGS under which float32 matrix products are fast on an x86 CPU.

    Since jaxlib 0.8.2 XLA hands them to YNNPACK, which takes up to 1.4 times as long as the oneDNN
    kernels it had before (two cores with AVX-512, interleaved: 6144 x 768 x 3072 at 135 and at 191
    GFLOP/s, 6144 x 3072 x 768 at 179 and 233). An empty list of what YNNPACK may take brings those
    back; jax issue 37465 has the same for reductions. In training small models it is the other way
    round (512 x 256 x 8192 at 154 to 175 and at 87): there YNNPACK is given single products and
    reductions, under which a step of `scripts/bench_train.py` takes 0.89 of the time.

    Args:
      flags: XLA_FLAGS so far; what they say of YNNPACK themselves stays.
      version: of jaxlib.
      machine: of the processor, as `platform.machine` names it.
      training: whether small models are trained.

    Returns:
      `flags`, and one more where it is known and of use.

    Example:
      >>> cpu_flags("", "0.10.2", "x86_64")
      '--xla_cpu_experimental_ynn_fusion_type='
      >>> cpu_flags("", "0.7.2", "x86_64")
      ''
    """
    release = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    usable = KNOWN[0] <= release < KNOWN[1] and machine.lower() in ("x86_64", "amd64")
    taken = TRAINING if training else ""
    return f"{flags} {YNNPACK}={taken}".strip() if usable and YNNPACK not in flags else flags
