"""The processes of one data-parallel run, as ``torchrun`` starts them: each computes other micro batches of the same step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from qwen3_ops.errors import Infrastructure
from qwen3_ops.native.devices import pick_device

_BUCKET_ELEMENTS = 1 << 24  # gradients sent at once: 64 MiB in fp32


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among those of the run; alone where torchrun did not start it.

    Every method is called by all processes in the same order.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and talks."""
        return self.rank == 0

    def gather(self, values: Tensor) -> Tensor:
        """``[n]`` of each process -> ``[size, n]``."""
        if self.size == 1:
            return values[None]
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        return torch.stack(parts)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Make each tensor the mean of those of all processes, in place."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            flat /= self.size
            for tensor, mean in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def first_alone(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the first process while the others wait; where it fails there, all of them end.

        Raises:
            Infrastructure: in the others; the first raises what ``action`` raised.
        """
        done = torch.zeros(1, device=self.device)
        try:
            if self.first:
                action()
                done += 1
        finally:
            failed = not bool(self.gather(done)[0])
        if failed and not self.first:
            raise Infrastructure("the first process failed", remedy="Its own message says why.")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Only the first process prints to stdout; warnings come from all."""
        if self.first:
            yield
            return
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield


@contextmanager
def joined(*, timeout_minutes: int) -> Iterator[World]:
    """Meet the other processes that torchrun started (``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``).

    The backend is the device's own: gloo, nccl or hccl.

    Raises:
        BadInput: fewer devices than processes.
    """
    rank, local_rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1)))
    device = pick_device(local_rank)
    if size == 1:
        yield World(device=device)
        return
    dist.init_process_group(timeout=timedelta(minutes=timeout_minutes), device_id=device if device.type != "cpu" else None)
    try:
        yield World(device=device, rank=rank, size=size)
    finally:
        dist.destroy_process_group()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for tensor in tensors:
        if bucket and elements + tensor.numel() > _BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(tensor)
        elements += tensor.numel()
    if bucket:
        yield bucket
