"""What ends a run early, and the errors of a device."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from qwen3_ops.errors import Infrastructure
from qwen3_ops.native.training import loop
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.stopping import StopRequest

ALONE = World(device=torch.device("cpu"))


def request(sft: list[str], *flags: str) -> StopRequest:
    return StopRequest(FLAGS.parse([*sft, *flags])[0], ALONE)


def test_nothing_ends_it(sft: list[str]) -> None:
    assert request(sft).reason(5) is None


def test_time_is_over(sft: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stop = request(sft, "--exit-duration-in-mins", "2")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 119)
    assert stop.reason(5) is None
    monkeypatch.setattr(time, "monotonic", lambda: now + 121)
    assert stop.reason(6) == "--exit-duration-in-mins 2"
    assert not stop.urgent


def test_at_an_iteration(sft: list[str]) -> None:
    stop = request(sft, "--exit-interval", "5")
    assert [stop.reason(number) for number in (4, 5, 6)] == [None, "--exit-interval 5", None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal(sft: list[str], number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with request(sft).listening() as stop:
        os.kill(os.getpid(), number)
        assert stop.reason(5) == number.name
        assert stop.urgent
    assert signal.getsignal(number) is before


def test_a_full_device_is_infrastructure(train: Callable[[list[str]], Any], sft: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("NPU out of memory. Tried to allocate 2.00 GiB. More words.")

    monkeypatch.setattr(loop, "compute_gradients", full)
    with pytest.raises(Infrastructure, match=r"no room left: NPU out of memory. Lower --micro-batch-size"):
        train(sft)
