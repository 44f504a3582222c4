"""What is known of a tensor before its values are, and its values as bytes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TensorSpec(NamedTuple):
    """Element type and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


def as_bytes(tensor: Tensor) -> memoryview:
    """The tensor's elements as little-endian bytes, row by row."""
    flat = tensor.contiguous().reshape(-1)
    if flat.stride(0) != 1:  # a single column: contiguous to torch, whatever its stride
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data
