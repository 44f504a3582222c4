"""Megatron's indexed data set as a format: one ``.bin`` of tokens and one ``.idx`` that says where each sequence lies.

``.idx`` (little endian): magic ``MMIDIDX\\0\\0`` | u64 version 1 | u8 dtype code | u64 sequences N |
u64 document indices M | N x i32 lengths | N x i64 byte offsets | M x i64 document indices.
Document d is made of the sequences ``document_indices[d]`` to ``document_indices[d + 1]``.
Source: ``megatron/core/datasets/indexed_dataset.py`` of Megatron-LM core_r0.8.0.
"""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")


def output_prefix(prefix: Path, output: str) -> Path:
    """The path of one output's ``.bin`` and ``.idx``, without these."""
    return prefix.with_name(f"{prefix.name}_{output}_document")


def with_suffix(prefix: Path, suffix: str) -> Path:
    """``prefix`` with ``.bin`` or ``.idx`` added; a dot in the prefix's own name stays."""
    return prefix.with_name(prefix.name + suffix)
