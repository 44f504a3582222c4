"""A tensor's values as bits and as bytes, whatever its strides and its type."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qwen3_ops.native.checkpoint.dtypes import STORAGE_CLASSES, as_torch_dtype
from qwen3_ops.native.checkpoint.tensor_spec import as_bits, as_bytes, as_tensor


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 1), (3, 2), (0, 4)])
def test_columns_and_transposed_tensors_are_written_row_by_row(shape):
    wide = torch.arange(24).reshape(4, 6).to(torch.bfloat16)
    tensor = wide[: shape[1], : shape[0]].t()
    expected = torch.tensor(tensor.tolist(), dtype=torch.bfloat16).reshape(-1).view(torch.int16).tolist()
    assert np.frombuffer(as_bytes(as_bits(tensor)), np.int16).tolist() == expected


@pytest.mark.parametrize("dtype", STORAGE_CLASSES.values(), ids=lambda dtype: dtype.name)
def test_bits_and_tensors_share_their_memory(dtype):
    tensor = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(as_torch_dtype(dtype))
    bits = as_bits(tensor)
    assert (bits.dtype, bits.shape) == (dtype.unsigned, (2, 3))
    again = as_tensor(bits, dtype)
    assert again.dtype == tensor.dtype
    again[0, 0] = 1
    assert tensor.tolist() == [[1, 1, 1], [1, 0, 1]]
