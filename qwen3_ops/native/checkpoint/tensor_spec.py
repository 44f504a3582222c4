"""What is known of a tensor before its values are; and its values: as an array of bits, as bytes, as torch's."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwen3_ops.native.checkpoint.dtypes import ElementType, as_torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

Bits = NDArray[Any]
"""A tensor's elements as unsigned integers of their size."""


class TensorSpec(NamedTuple):
    """Element type and shape."""

    dtype: ElementType
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


def as_bytes(bits: Bits) -> memoryview:
    """The elements as little-endian bytes, row by row."""
    return np.ascontiguousarray(bits).reshape(-1).view(np.uint8).data


def as_tensor(bits: Bits, dtype: ElementType) -> Tensor:
    """The same memory as torch's tensor."""
    import torch

    return torch.from_numpy(bits.view(dtype.signed)).view(as_torch_dtype(dtype))


def as_bits(tensor: Tensor) -> Bits:
    """The same memory as an array."""
    import torch

    signed = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    array = tensor.detach().view(signed).numpy()
    return array.view(f"<u{array.itemsize}")


def converted(bits: Bits, dtype: ElementType, wanted: ElementType) -> Bits:
    """Rounded to nearest even where ``wanted`` is narrower; the array itself where the types are one."""
    return bits if dtype == wanted else as_bits(as_tensor(bits, dtype).to(as_torch_dtype(wanted)))
