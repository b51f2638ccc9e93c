"""Joules from a hardware counter, or the reason why there are none; never an estimate.

Two counters are known: NVML's on NVIDIA GPUs (Volta and later) and RAPL's on Intel and AMD
processors. Both count the whole device: idle power and whatever else runs on it are included.
NVML is called in the driver's own library through `ctypes`, so that nothing has to be installed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

__all__ = ["Counter", "Energy", "find_counter", "measure_energy"]

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"


@dataclasses.dataclass(frozen=True)
class Energy:
    """What running something took.

    Attributes:
      joules: of the whole device, idle power included; `None` where nothing could be read.
      seconds: wall-clock time.
      source: the counter ("NVML", "RAPL package-0"), or "unavailable: " and the reason.
    """

    joules: float | None
    seconds: float
    source: str


@dataclasses.dataclass(frozen=True)
class Counter:
    """A hardware counter of energy, of one or more domains (processor packages).

    Attributes:
      source: what is read.
      read: returns the joules counted so far, one number per domain.
      ranges: joules at which each domain starts again from 0 (`inf`: never).
    """

    source: str
    read: Callable[[], tuple[float, ...]]
    ranges: tuple[float, ...]

    def used(self, before: Sequence[float], after: Sequence[float]) -> float:
        """Joules between two readings, at most one restart from 0 per domain in between.

        Example:
          >>> Counter("RAPL package-0", tuple, (100.0,)).used([90.0], [15.0])
          25.0
        """
        domains = zip(before, after, self.ranges, strict=True)
        return sum(new - old if new >= old else new - old + limit for old, new, limit in domains)


def measure_energy(
    run: Callable[[], Any],
    *,
    device: Any = None,
    powercap: str | Path = POWERCAP,
) -> Energy:
    """Runs something once and reads the energy counter before and after.

    Args:
      run: called once; it has to wait for its result (`block_until_ready`). Counters advance in
        steps of up to 0.1 s (NVML) and overflow after minutes (RAPL): between one second and a
        minute is right.
      device: a `jax.Device`, whose counter is read; by default JAX's first.
      powercap: the folder of RAPL's files.

    Returns:
      Joules (or `None`), seconds, and the source or the reason why there is none.

    Example:
      >>> energy = measure_energy(lambda: None, powercap="/no/such/folder")
      >>> energy.joules, energy.source
      (None, 'unavailable: no RAPL domains in /no/such/folder')
    """
    counter = find_counter(device, powercap=powercap)
    before = () if isinstance(counter, str) else counter.read()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    if isinstance(counter, str):
        return Energy(None, seconds, counter)
    joules = counter.used(before, counter.read())
    if not 0 < joules < float("inf"):
        # Too short a run, or a counter that a virtual machine shows but does not advance.
        return Energy(None, seconds, f"unavailable: {counter.source} did not advance")
    return Energy(joules, seconds, counter.source)


def find_counter(
    device: Any = None, *, powercap: str | Path = POWERCAP, library: Any = None
) -> Counter | str:
    """The energy counter of a device, or "unavailable: " and the reason.

    Args:
      device: a `jax.Device`, or what has its `platform` and `local_hardware_id`; by default JAX's
        first.
      powercap: the folder of RAPL's files.
      library: NVML, loaded; by default the driver's.

    Example:
      >>> find_counter(powercap="/no/such/folder")
      'unavailable: no RAPL domains in /no/such/folder'
    """
    device = jax.devices()[0] if device is None else device
    if device.platform == "cpu":
        return _rapl(Path(powercap))
    if device.platform in ("gpu", "cuda"):
        return _nvml(device.local_hardware_id or 0, library)
    return f"unavailable: no energy counter is known for {device.platform}"


def _rapl(folder: Path) -> Counter | str:
    # `intel-rapl:0` is a package; its parts `intel-rapl:0:1` (cores, memory) would count twice,
    # and so would `psys`, the whole board.
    domains = sorted(folder.glob("intel-rapl:*"))
    try:
        names = {path: (path / "name").read_text().strip() for path in domains}
        packages = [path for path in domains if names[path].startswith("package")]
        if not packages:
            return f"unavailable: no RAPL domains in {folder}"
        ranges = tuple(_microjoules(path / "max_energy_range_uj") for path in packages)
        files = [path / "energy_uj" for path in packages]
        for file in files:
            _microjoules(file)
    except PermissionError as error:
        return f"unavailable: only root may read {error.filename}"
    except (OSError, ValueError) as error:
        return f"unavailable: RAPL cannot be read ({error})"
    source = "RAPL " + " + ".join(names[path] for path in packages)
    return Counter(source, lambda: tuple(_microjoules(file) for file in files), ranges)


def _microjoules(path: Path) -> float:
    return int(path.read_text()) * 1e-6


def _nvml(ordinal: int, library: Any) -> Counter | str:
    """The total energy since the driver was loaded, in NVML's millijoules."""
    try:
        library = ctypes.CDLL(NVML) if library is None else library
    except OSError:
        return f"unavailable: no NVML ({NVML} is not found)"
    if library.nvmlInit_v2() != 0:
        return "unavailable: NVML does not start"
    handle = _handle(ordinal, library)
    if isinstance(handle, str):
        return handle
    total = ctypes.c_ulonglong()

    def read() -> tuple[float, ...]:
        if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(total)) != 0:
            return (float("nan"),)
        return (total.value * 1e-3,)

    if math.isnan(read()[0]):
        return "unavailable: this GPU has no energy counter"
    return Counter("NVML", read, (float("inf"),))


def _handle(ordinal: int, library: Any) -> ctypes.c_void_p | str:
    """NVML's handle of JAX's GPU `ordinal`, or why it cannot be told which one that is."""
    count, handle = ctypes.c_uint(), ctypes.c_void_p()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    name = visible[ordinal] if ordinal < len(visible) else str(ordinal)
    if name.startswith("GPU-"):
        error = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
    elif not name.isdigit():
        return f"unavailable: no energy counter for {name}"
    elif count.value > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        # CUDA numbers the fastest GPU first, NVML goes by the bus: the number could be another's.
        return "unavailable: several GPUs, and CUDA_DEVICE_ORDER is not PCI_BUS_ID"
    else:
        index = int(name) if count.value > 1 else 0
        error = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
    return handle if error == 0 else f"unavailable: NVML does not know GPU {name}"
