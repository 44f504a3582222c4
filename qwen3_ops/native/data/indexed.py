"""Reading Megatron's indexed data set; the format is told in ``indexed_format.py``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.indexed_format import HEADER, MAGIC, with_suffix

_DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}


class IndexedDataset:
    """Memory-mapped reader of one ``.bin``/``.idx`` pair; item ``i`` is the int32 tokens of sequence i.

    Attributes:
        sequence_lengths: [sequences] int32, in tokens.
        document_indices: [documents + 1] int64, first sequence of each document.

    Raises:
        BadInput: a file is missing, is no Megatron index, or is cut off.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        index = with_suffix(prefix, ".idx")
        tokens = with_suffix(prefix, ".bin")
        for path in (index, tokens):
            if not path.is_file():
                raise BadInput("no such data set file", value=path, remedy="Give the path without .bin or .idx.")
        data = np.memmap(index, dtype=np.uint8, mode="r") if index.stat().st_size else np.zeros(0, dtype=np.uint8)
        dtype, sequences, documents = _read_header(data, index)
        self.sequence_lengths: NDArray[np.int32] = np.frombuffer(data, dtype="<i4", count=sequences, offset=HEADER.size)
        start = HEADER.size + 4 * sequences
        self._offsets: NDArray[np.int64] = np.frombuffer(data, dtype="<i8", count=sequences, offset=start)
        self.document_indices: NDArray[np.int64] = np.frombuffer(data, dtype="<i8", count=documents, offset=start + 8 * sequences)
        self._dtype = np.dtype(dtype)
        needed = int(self._offsets[-1]) + int(self.sequence_lengths[-1]) * self._dtype.itemsize if sequences else 0
        size = tokens.stat().st_size
        if size < needed:
            raise BadInput("the token file is shorter than its index says", value=f"{size} of {needed} bytes", source=tokens)
        self._tokens = np.memmap(tokens, dtype=np.uint8, mode="r") if size else np.zeros(0, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.sequence_lengths)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        return self.get(index)

    def get(self, index: int, *, offset: int = 0, length: int | None = None) -> NDArray[np.int32]:
        """``length`` tokens of sequence ``index`` from ``offset`` on (default: to its end)."""
        count = int(self.sequence_lengths[index]) - offset if length is None else length
        start = int(self._offsets[index]) + offset * self._dtype.itemsize
        return np.frombuffer(self._tokens, dtype=self._dtype, count=count, offset=start).astype(np.int32)


class JoinedDatasets:
    """Several data sets read as one, their sequences one after the other."""

    def __init__(self, prefixes: Sequence[Path]) -> None:
        self._parts = [IndexedDataset(prefix) for prefix in prefixes]
        self._starts = list(accumulate((len(part) for part in self._parts), initial=0))
        self.sequence_lengths: NDArray[np.int32] = np.concatenate([part.sequence_lengths for part in self._parts])

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        place = bisect_right(self._starts, index) - 1
        return self._parts[place][index - self._starts[place]]


def _read_header(data: NDArray[np.uint8], path: Path) -> tuple[str, int, int]:
    if len(data) < HEADER.size:
        raise BadInput("the index is cut off", value=f"{len(data)} bytes", source=path)
    magic, version, code, sequences, documents = HEADER.unpack(data[: HEADER.size].tobytes())
    if magic != MAGIC or version != 1 or code not in _DTYPES:
        raise BadInput("not a Megatron index", value=f"magic {magic!r}, version {version}, dtype {code}", source=path)
    needed = HEADER.size + 12 * sequences + 8 * documents
    if len(data) < needed:
        raise BadInput("the index is cut off", value=f"{len(data)} of {needed} bytes", source=path)
    return _DTYPES[code], sequences, documents
