"""Which device a process takes; torch's accelerator API is played by a stand-in, there is none on a build machine."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from qwen3_ops.errors import BadInput
from qwen3_ops.native import devices


@pytest.fixture
def eight_devices(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_without_an_accelerator_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert devices.pick_device(3) == torch.device("cpu")


def test_each_process_has_its_own(eight_devices: list[torch.device]) -> None:
    assert devices.pick_device(5) == torch.device("cuda", 5)
    assert eight_devices == [torch.device("cuda", 5)]


def test_more_processes_than_devices(eight_devices: list[torch.device]) -> None:
    with pytest.raises(BadInput, match="fewer devices than processes: 8 devices, process number 8"):
        devices.pick_device(8)


def test_torch_npu_is_imported_where_it_is_installed(eight_devices: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: looked_for.append(name) or object())
    monkeypatch.setitem(sys.modules, "torch_npu", ModuleType("torch_npu"))
    devices.pick_device()
    assert looked_for == ["torch_npu"]


def test_memory_of_the_cpu_is_the_processs() -> None:
    assert 50e6 < devices.peak_memory(torch.device("cpu")) < 100e9
