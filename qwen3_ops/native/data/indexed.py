"""Megatron's indexed data set: one ``.bin`` of tokens and one ``.idx`` that says where each sequence lies.

``.idx`` (little endian): magic ``MMIDIDX\\0\\0`` | u64 version 1 | u8 dtype code | u64 sequences N |
u64 document indices M | N x i32 lengths | N x i64 byte offsets | M x i64 document indices.
Document d is made of the sequences ``document_indices[d]`` to ``document_indices[d + 1]``.
Source: ``megatron/core/datasets/indexed_dataset.py`` of Megatron-LM core_r0.8.0.
"""

from __future__ import annotations

import shutil
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from qwen3_ops.artifacts import writing
from qwen3_ops.errors import BadInput

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
_INT32 = 4


def output_prefix(prefix: Path, output: str) -> Path:
    """The path of one output's ``.bin`` and ``.idx``, without these."""
    return prefix.with_name(f"{prefix.name}_{output}_document")


def with_suffix(prefix: Path, suffix: str) -> Path:
    """``prefix`` with ``.bin`` or ``.idx`` added; a dot in the prefix's own name stays."""
    return prefix.with_name(prefix.name + suffix)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Several sequences, end to end.

    Attributes:
        tokens: [sum of ``lengths``] int32.
        lengths: [sequences] int32.
        documents: [documents] int64, how many sequences each holds: 0 where a record was too long, else 1.
    """

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int32]
    documents: NDArray[np.int64]


class IndexedDatasetWriter:
    """Writes ``prefix.bin`` as sequences come and ``prefix.idx`` on :meth:`close`.

    Used as a context manager; after an exception nothing is left of the pair. Memory: 12 bytes a sequence, nothing for tokens.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self._lengths = array("i")
        self._documents = array("q", [0])
        with writing(prefix):
            self._bin = with_suffix(prefix, ".bin").open("wb")

    def add_block(self, block: Block) -> None:
        """Many documents at once."""
        before = len(self._lengths)
        with writing(self.prefix):
            self._bin.write(block.tokens.astype("<i4").tobytes())
        self._lengths.frombytes(block.lengths.astype(np.intc).tobytes())
        self._documents.frombytes((before + np.cumsum(block.documents, dtype=np.int64)).tobytes())

    def add_dataset(self, data: IndexedDataset) -> None:
        """All of a data set of int32 tokens that lie in the order of their index, as a writer leaves them."""
        before = len(self._lengths)
        with writing(self.prefix), with_suffix(data.prefix, ".bin").open("rb") as tokens:
            shutil.copyfileobj(tokens, self._bin, 1 << 20)
        self._lengths.frombytes(data.sequence_lengths.astype(np.intc).tobytes())
        self._documents.frombytes((before + data.document_indices[1:]).astype(np.int64).tobytes())

    def add_sequence(self, ids: Sequence[int] | NDArray[np.int32]) -> None:
        data = np.asarray(ids, dtype="<i4")
        with writing(self.prefix):
            self._bin.write(data.tobytes())
        self._lengths.append(len(data))

    def end_document(self) -> None:
        self._documents.append(len(self._lengths))

    def add_document(self, ids: Sequence[int] | NDArray[np.int32]) -> None:
        """One sequence that is a document by itself."""
        self.add_sequence(ids)
        self.end_document()

    @property
    def sequences(self) -> int:
        return len(self._lengths)

    def close(self) -> None:
        lengths = np.frombuffer(self._lengths, dtype=np.intc).astype("<i4")
        offsets = np.zeros(len(lengths), dtype="<i8")
        np.cumsum(lengths[:-1], dtype="<i8", out=offsets[1:])
        with writing(self.prefix):
            self._bin.close()
            with with_suffix(self.prefix, ".idx").open("wb") as index:
                index.write(_HEADER.pack(_MAGIC, 1, _INT32, len(lengths), len(self._documents)))
                index.write(lengths.tobytes())
                index.write((offsets * 4).tobytes())
                index.write(np.frombuffer(self._documents, dtype=np.int64).astype("<i8").tobytes())

    def discard(self) -> None:
        self._bin.close()
        for suffix in (".bin", ".idx"):
            with_suffix(self.prefix, suffix).unlink(missing_ok=True)

    def __enter__(self) -> IndexedDatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


@contextmanager
def open_writers(prefix: Path, outputs: Iterable[str]) -> Iterator[dict[str, IndexedDatasetWriter]]:
    """A writer for each output of a data set; after an exception nothing of them is left."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(IndexedDatasetWriter(output_prefix(prefix, name))) for name in outputs}


def join(parts: Sequence[Path], whole: Path) -> None:
    """One data set of all sequences and documents of ``parts``, in their order; its tokens are copied as they are."""
    with IndexedDatasetWriter(whole) as writer:
        for part in parts:
            writer.add_dataset(IndexedDataset(part))


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
        self.sequence_lengths: NDArray[np.int32] = np.frombuffer(data, dtype="<i4", count=sequences, offset=_HEADER.size)
        start = _HEADER.size + 4 * sequences
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
    if len(data) < _HEADER.size:
        raise BadInput("the index is cut off", value=f"{len(data)} bytes", source=path)
    magic, version, code, sequences, documents = _HEADER.unpack(data[: _HEADER.size].tobytes())
    if magic != _MAGIC or version != 1 or code not in _DTYPES:
        raise BadInput("not a Megatron index", value=f"magic {magic!r}, version {version}, dtype {code}", source=path)
    needed = _HEADER.size + 12 * sequences + 8 * documents
    if len(data) < needed:
        raise BadInput("the index is cut off", value=f"{len(data)} of {needed} bytes", source=path)
    return _DTYPES[code], sequences, documents
