"""The names that one element type has in flags, in torch, in ``.pt`` files and in safetensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from qwen3_ops.model import Dtype

TORCH_DTYPES: Mapping[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

STORAGE_CLASSES: Mapping[str, torch.dtype] = {
    "BFloat16Storage": torch.bfloat16,
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
"""Classes of ``torch`` that a pickle names to say what a storage's bytes are."""

SAFETENSORS_DTYPES: Mapping[str, torch.dtype] = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def as_torch_dtype(dtype: Dtype | torch.dtype) -> torch.dtype:
    return dtype if isinstance(dtype, torch.dtype) else TORCH_DTYPES[dtype]


def dtype_name(dtype: torch.dtype) -> Dtype:
    """``torch.bfloat16`` -> ``bf16``.

    Raises:
        KeyError: not one of the three that weights have.
    """
    return {value: name for name, value in TORCH_DTYPES.items()}[dtype]
