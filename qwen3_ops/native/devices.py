"""The device that a process computes on, through torch's own device API: CUDA, Ascend NPU or what else torch knows, else the CPU."""

from __future__ import annotations

import importlib.util
import resource
import sys

import torch

from qwen3_ops.errors import BadInput


def pick_device(local_rank: int = 0) -> torch.device:
    """Accelerator number ``local_rank`` of this machine, made the current one; the CPU where there is none.

    Raises:
        BadInput: there are accelerators, but fewer than processes.
    """
    if importlib.util.find_spec("torch_npu") is not None:
        import torch_npu  # noqa: F401  # makes NPUs known to torch
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    count = torch.accelerator.device_count()
    if local_rank >= count:
        raise BadInput(
            "there are fewer devices than processes",
            value=f"{count} devices, process number {local_rank} of this machine",
            remedy="Start torchrun with --nproc-per-node of the number of devices.",
        )
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    device = torch.device(kind.type, local_rank)
    torch.get_device_module(device).set_device(device)
    return device


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on ``device``; on the CPU the process's largest resident size."""
    if device.type != "cpu":
        return int(torch.get_device_module(device).max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
