"""What a device says of itself, on devices that are not here."""

import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from kvbench.backend import device as devices
from kvbench.charts.cautions import of_small_caches
from kvbench.results.environment import driver_and_clocks
from tests.support import device

CUDA = torch.device("cuda")
MIB = 1 << 20


def test_an_allocator_that_was_not_used_yet_is_reset_and_has_no_peaks(monkeypatch):
    device.use(monkeypatch)
    devices.reset_allocator(CUDA)
    peaks = devices.allocator_peaks(CUDA)
    assert set(peaks.values()) == {0}
    assert "allocator_allocated_bytes" in peaks


def test_what_stands_behind_a_gpus_times(monkeypatch):
    properties = SimpleNamespace(L2_cache_size=60 * MIB, uuid="1234-ab")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    asked = []

    def run(command, **settings):
        asked.append(command)
        return SimpleNamespace(stdout="570.86.15, 1980, 1980, 3201, 3201\n")

    monkeypatch.setattr("subprocess.run", run)
    found = devices.about(CUDA)["accelerator"]
    assert found["l2_bytes"] == 60 * MIB
    assert {"cuda", "cudnn"} < set(found)
    assert found["driver_version"] == "570.86.15"
    assert (found["clock_mhz_sm"], found["clock_mhz_max_mem"]) == ("1980", "3201")
    assert "--id=GPU-1234-ab" in asked[0]
    assert devices.about(torch.device("cpu")) == {}


def test_bandwidth_is_of_copies_beyond_the_l2_between_two_marks(monkeypatch):
    # The fake device's clock counts marks: between two of them 1 ms, in which 20 copies read and write 8 x 1 MiB each.
    device.use(monkeypatch)
    monkeypatch.setattr(devices, "l2_bytes", lambda device: MIB)
    monkeypatch.setattr(devices, "WARMING_S", 0.001)
    assert devices.copy_bandwidth(CUDA, num_bytes=MIB, num_tries=2) == 20 * 2 * 8 * MIB / 1e-3


@pytest.mark.parametrize("error", [FileNotFoundError("nvidia-smi"), subprocess.CalledProcessError(6, "nvidia-smi")])
def test_without_a_driver_to_ask_nothing_is_said(monkeypatch, error):
    def run(command, **settings):
        raise error

    monkeypatch.setattr("subprocess.run", run)
    assert driver_and_clocks() == {}


@pytest.mark.parametrize(
    ("l2_bytes", "words"),
    [
        (60 * MIB, "What all strategies held fits into the device's L2 of 60 MiB (at most 50 MiB)"),
        (49 * MIB, "What a held fits into the device's L2 of 49 MiB (at most 4 MiB)"),
        (3 * MIB, None),
        (None, None),
    ],
)
def test_caches_that_fit_into_the_l2_are_told(l2_bytes, words):
    steps = pd.DataFrame({"strategy": ["a", "a", "b"], "allocated_bytes": [MIB, 4 * MIB, 50 * MIB]})
    made = {} if l2_bytes is None else {"accelerator": {"l2_bytes": l2_bytes}}
    found = of_small_caches(steps, made)
    assert len(found) == (words is not None)
    assert all(words in line for line in found)
    assert of_small_caches(pd.DataFrame({"strategy": []}), made) == []
