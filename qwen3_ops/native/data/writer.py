"""Writing Megatron's indexed data set. No numpy: its import would be a fifth of the start-up."""

from __future__ import annotations

import shutil
import sys
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from qwen3_ops.artifacts import writing
from qwen3_ops.native.data.indexed_format import HEADER, MAGIC, output_prefix, with_suffix

if TYPE_CHECKING:
    from qwen3_ops.native.data.indexed import IndexedDataset

_INT32 = 4  # the code of this type, and its bytes


@dataclass(frozen=True, kw_only=True)
class Block:
    """Several sequences, end to end.

    Attributes:
        tokens: [sum of ``lengths``] 32 bits.
        lengths: [sequences] 32 bits.
        documents: how many sequences each holds: 0 where a record was too long, else 1.
    """

    tokens: array[int]
    lengths: array[int]
    documents: list[int]


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
            self._bin.write(_little_endian(block.tokens))
        self._lengths.extend(block.lengths)
        self._documents.extend(islice(accumulate(block.documents, initial=before), 1, None))

    def add_dataset(self, data: IndexedDataset) -> None:
        """All of a data set of int32 tokens that lie in the order of their index, as a writer leaves them."""
        before = len(self._lengths)
        with writing(self.prefix), with_suffix(data.prefix, ".bin").open("rb") as tokens:
            shutil.copyfileobj(tokens, self._bin, 1 << 20)
        self._lengths.frombytes(data.sequence_lengths.astype("intc").tobytes())
        self._documents.frombytes((before + data.document_indices[1:]).astype("int64").tobytes())

    def add_sequence(self, ids: Iterable[int]) -> None:
        data = array("i", ids)
        with writing(self.prefix):
            self._bin.write(_little_endian(data))
        self._lengths.append(len(data))

    def end_document(self) -> None:
        self._documents.append(len(self._lengths))

    def add_document(self, ids: Iterable[int]) -> None:
        """One sequence that is a document by itself."""
        self.add_sequence(ids)
        self.end_document()

    @property
    def sequences(self) -> int:
        return len(self._lengths)

    def close(self) -> None:
        offsets = array("q", accumulate((_INT32 * length for length in self._lengths), initial=0))
        offsets.pop()  # the end
        with writing(self.prefix):
            self._bin.close()
            with with_suffix(self.prefix, ".idx").open("wb") as index:
                index.write(HEADER.pack(MAGIC, 1, _INT32, len(self._lengths), len(self._documents)))
                for numbers in (self._lengths, offsets, self._documents):
                    index.write(_little_endian(numbers))

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


def _little_endian(numbers: array[int]) -> array[int]:
    if sys.byteorder == "little":
        return numbers
    swapped = array(numbers.typecode, numbers)
    swapped.byteswap()
    return swapped
