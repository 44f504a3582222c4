"""Element types: the names that one has in flags, in torch, in ``.pt`` files and in safetensors.

A conversion moves elements without looking at their values, as unsigned integers of their size, so that it
does without torch, whose import takes longer than a small conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qwen3_ops.model import Dtype

if TYPE_CHECKING:
    import torch


class ElementType(NamedTuple):
    """``bfloat16`` and the like; a tuple, so that no pickle can change one.

    Attributes:
        name: torch's.
        itemsize: in bytes.
        infinity: its bits; those of NaN are above, all others below, apart from the sign, which is the highest bit. 0: not a float.
    """

    name: str
    itemsize: int
    infinity: int = 0

    @property
    def unsigned(self) -> np.dtype[Any]:
        return _UNSIGNED[self.itemsize]

    @property
    def signed(self) -> np.dtype[Any]:
        return _SIGNED[self.itemsize]


_UNSIGNED = {size: np.dtype(f"<u{size}") for size in (1, 2, 4, 8)}
_SIGNED = {size: np.dtype(f"<i{size}") for size in (1, 2, 4, 8)}

# Names as in torch: a pickle that is to be read by torch calls them so.
bfloat16 = ElementType("bfloat16", 2, 0x7F80)
float16 = ElementType("float16", 2, 0x7C00)
float32 = ElementType("float32", 4, 0x7F80_0000)
float64 = ElementType("float64", 8, 0x7FF0_0000_0000_0000)
uint8 = ElementType("uint8", 1)
int8 = ElementType("int8", 1)
int16 = ElementType("int16", 2)
int32 = ElementType("int32", 4)
int64 = ElementType("int64", 8)
bool = ElementType("bool", 1)

WEIGHTS: Mapping[Dtype, ElementType] = {"bf16": bfloat16, "fp16": float16, "fp32": float32}
"""The three that weights have."""

UNQUANTIZED = "Give weights of bf16, fp16 or fp32, not quantized ones."

STORAGE_CLASSES: Mapping[str, ElementType] = {
    "BFloat16Storage": bfloat16,
    "HalfStorage": float16,
    "FloatStorage": float32,
    "DoubleStorage": float64,
    "ByteStorage": uint8,
    "CharStorage": int8,
    "ShortStorage": int16,
    "IntStorage": int32,
    "LongStorage": int64,
    "BoolStorage": bool,
}
"""Classes of ``torch`` that a pickle names to say what a storage's bytes are."""

SAFETENSORS_DTYPES: Mapping[str, ElementType] = {"BF16": bfloat16, "F16": float16, "F32": float32}


def element_type(dtype: Dtype | ElementType | torch.dtype) -> ElementType:
    """Of a weight, by whichever of its names."""
    if isinstance(dtype, ElementType):
        return dtype
    text = str(dtype).removeprefix("torch.")
    return next(element for name, element in WEIGHTS.items() if text in (name, element.name))


def as_torch_dtype(dtype: Dtype | ElementType) -> torch.dtype:
    import torch

    found: torch.dtype = getattr(torch, element_type(dtype).name)
    return found


def dtype_name(dtype: ElementType) -> Dtype:
    """``bfloat16`` -> ``bf16``.

    Raises:
        KeyError: not one of the three that weights have.
    """
    return {value: name for name, value in WEIGHTS.items()}[dtype]
