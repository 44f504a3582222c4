"""Bytes of a tensor, whatever its strides."""

from __future__ import annotations

import pytest
import torch

from qwen3_ops.native.checkpoint.tensor_spec import as_bytes


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 1), (3, 2), (0, 4)])
def test_columns_and_transposed_tensors_are_written_row_by_row(shape):
    wide = torch.arange(24).reshape(4, 6).to(torch.bfloat16)
    tensor = wide[: shape[1], : shape[0]].t()
    expected = torch.tensor(tensor.tolist(), dtype=torch.bfloat16).reshape(-1).view(torch.int16).tolist()
    assert torch.frombuffer(bytearray(as_bytes(tensor)) or bytearray(2), dtype=torch.int16).tolist()[: tensor.numel()] == expected
