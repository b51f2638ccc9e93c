"""Energy: readings from a fake sysfs and a fake NVML, and reasons instead of numbers."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from jaxcompress.measure import Counter, find_counter, measure_energy
from jaxcompress.measure import energy as module

GPU = SimpleNamespace(platform="gpu", local_hardware_id=0)


def domain(folder, name, label, microjoules, limit=1_000_000_000):
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{label}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{limit}\n")
    return path / "energy_uj"


def test_packages_are_added_and_their_parts_are_not(tmp_path):
    first = domain(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 5_000_000)
    cores = domain(tmp_path, "intel-rapl:0:0", "core", 0)
    board = domain(tmp_path, "intel-rapl:2", "psys", 0)

    def run():
        first.write_text("3500000")
        second.write_text("6000000")
        cores.write_text("900000000")
        board.write_text("900000000")

    energy = measure_energy(run, powercap=tmp_path)
    assert energy.joules == pytest.approx(2.5 + 1.0)
    assert energy.source == "RAPL package-0 + package-1"
    assert energy.seconds > 0


def test_a_counter_that_starts_again_is_continued(tmp_path):
    file = domain(tmp_path, "intel-rapl:0", "package-0", 990_000_000, limit=1_000_000_000)
    energy = measure_energy(lambda: file.write_text("5000000"), powercap=tmp_path)
    assert energy.joules == pytest.approx(15.0)


def test_a_counter_that_stands_still_gives_no_number(tmp_path):
    domain(tmp_path, "intel-rapl:0", "package-0", 7)
    energy = measure_energy(lambda: None, powercap=tmp_path)
    assert energy.joules is None
    assert energy.source == "unavailable: RAPL package-0 did not advance"


def test_no_domains_are_said(tmp_path):
    domain(tmp_path, "intel-rapl:0", "psys", 7)
    ran = []
    energy = measure_energy(lambda: ran.append(1), powercap=tmp_path)
    assert (energy.joules, energy.source) == (None, f"unavailable: no RAPL domains in {tmp_path}")
    assert ran == [1]


def test_files_that_may_not_be_read_are_said(tmp_path, monkeypatch):
    file = domain(tmp_path, "intel-rapl:0", "package-0", 7)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "_microjoules", refuse)
    assert find_counter(powercap=tmp_path).startswith("unavailable: only root may read")
    monkeypatch.undo()
    file.write_text("not a number")
    assert find_counter(powercap=tmp_path).startswith("unavailable: RAPL cannot be read")


def test_other_devices_have_no_counter():
    device = SimpleNamespace(platform="tpu", local_hardware_id=0)
    assert find_counter(device) == "unavailable: no energy counter is known for tpu"


def test_a_counter_needs_one_reading_per_domain():
    with pytest.raises(ValueError, match="longer"):
        Counter("two", tuple, (1.0, 1.0)).used([0.0], [1.0])


class FakeNvml:
    """NVML's five functions; the counter advances by 1500 mJ per reading."""

    def __init__(self, count=1, start=0, counter=0):
        self.count, self.start, self.counter = count, start, counter
        self.millijoules, self.index = 0, None

    def nvmlInit_v2(self):  # noqa: N802
        return self.start

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = self.count
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):  # noqa: N802
        assert isinstance(index, ctypes.c_uint)
        self.index = index.value
        return 0

    def nvmlDeviceGetHandleByUUID(self, name, handle):  # noqa: N802
        self.index = name
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, total):  # noqa: N802
        self.millijoules += 1500
        total._obj.value = self.millijoules
        return self.counter


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return monkeypatch


def test_nvml_counts_millijoules(cuda):
    counter = find_counter(GPU, library=FakeNvml())
    assert counter.source == "NVML"
    assert counter.used(counter.read(), counter.read()) == pytest.approx(1.5)


def test_nvml_reads_the_gpu_that_is_visible(cuda):
    library = FakeNvml(count=4)
    assert "CUDA_DEVICE_ORDER" in find_counter(GPU, library=library)
    cuda.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    cuda.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert find_counter(GPU, library=library).source == "NVML"
    assert library.index == 2
    cuda.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    assert find_counter(GPU, library=library).source == "NVML"
    assert library.index == b"GPU-8932f937"
    cuda.setenv("CUDA_VISIBLE_DEVICES", "MIG-8932f937")
    assert find_counter(GPU, library=library).startswith("unavailable: no energy counter for MIG")


def test_nvml_that_fails_gives_a_reason(cuda):
    assert find_counter(GPU, library=FakeNvml(start=9)) == "unavailable: NVML does not start"
    old = FakeNvml(counter=3)
    assert find_counter(GPU, library=old) == "unavailable: this GPU has no energy counter"
    cuda.setattr(module, "NVML", "libno-such-library.so.1")
    assert "libno-such-library" in find_counter(GPU)
