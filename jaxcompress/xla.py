"""The one flag of XLA that a process of ours sets before it uses JAX."""

from __future__ import annotations

import importlib.metadata
import os
import platform

__all__ = ["cpu_flags", "set_flags"]

YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
# The flag is unknown before, and an unknown flag ends the process; later ones are not tried yet.
KNOWN = ((0, 8, 1), (0, 12))


def set_flags() -> str:
    """Adds `cpu_flags` to the environment's XLA_FLAGS, and returns what they are then.

    For entry points: XLA reads its flags once, when a process first uses a device. Importing
    jaxcompress sets nothing; who runs its functions in a program of their own calls this first, or
    sets the variable themselves.

    Example:
      >>> set_flags() == set_flags()
      True
    """
    os.environ["XLA_FLAGS"] = cpu_flags(
        os.environ.get("XLA_FLAGS", ""), importlib.metadata.version("jaxlib"), platform.machine()
    )
    return os.environ["XLA_FLAGS"]


def cpu_flags(flags: str, version: str, machine: str) -> str:
    """XLA_FLAGS under which float32 matrix products are fast on an x86 CPU.

    Since jaxlib 0.8.2 XLA hands them to YNNPACK, which takes up to 1.4 times as long as the oneDNN
    kernels it had before (two cores with AVX-512, interleaved: 6144 x 768 x 3072 at 135 and at 191
    GFLOP/s, 6144 x 3072 x 768 at 179 and 233). An empty list of what YNNPACK may fuse brings those
    back; jax issue 37465 has the same for reductions.

    Args:
      flags: XLA_FLAGS so far; what they say of YNNPACK themselves stays.
      version: of jaxlib.
      machine: of the processor, as `platform.machine` names it.

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
    return f"{flags} {YNNPACK}=".strip() if usable and YNNPACK not in flags else flags
