"""Reading ``model_optim_rng.pt``: torch's zip format, by rows or by memory map.

The format: an uncompressed zip whose entries lie below one folder: ``data.pkl`` (the pickled
dictionary, each tensor's storage named by a number), ``data/<number>`` (the storage's bytes,
aligned to 64), ``byteorder`` and ``version``. Whatever else a training run keeps in the
dictionary (optimizer, random states) is not read.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from zlib_ng.zlib_ng import crc32

from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint.tensor_file import TensorFile
from qwen3_ops.native.checkpoint.tensor_spec import Bits, as_bytes
from qwen3_ops.native.checkpoint.unpickle import StoredTensor, unpickle
from qwen3_ops.native.checkpoint.zip_format import LOCAL_HEADER

FILE_NAME = "model_optim_rng.pt"

ModelChunk = Mapping[str, StoredTensor | None]


class RankFile:
    """One rank's file, opened: everything but the weights is read.

    Attributes:
        chunks: the model chunks, key -> description, None for an empty entry; one without virtual stages.

    Raises:
        BadInput: missing, truncated, damaged, or it holds something that no checkpoint holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = TensorFile(path)
            with zipfile.ZipFile(path) as archive:
                self._entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
                content = unpickle(archive.read(self._entry("data.pkl")))
                if "byteorder" in self._entries and archive.read(self._entry("byteorder")) != b"little":
                    raise BadInput("the checkpoint file was written on a big-endian machine", source=path)
        except FileNotFoundError as error:
            raise BadInput("a rank's file is missing", value=path, remedy="Copy the whole checkpoint, every rank of it.") from error
        except pickle.UnpicklingError as error:
            raise BadInput(
                "the checkpoint file is refused", value=error, source=path, remedy="Nothing of it was run. Get it from its maker again."
            ) from error
        except OSError as error:
            raise BadInput("the checkpoint file can not be read", value=error, source=path) from error
        except (zipfile.BadZipFile, struct.error, ValueError, EOFError, RuntimeError) as error:  # NotImplementedError is a RuntimeError
            raise BadInput(
                "the checkpoint file is truncated or damaged", value=error, source=path, remedy="Copy it again or use an older iteration."
            ) from error
        self._checked: set[str] = set()
        self.args: Namespace = _expect(content, "args", Namespace, path)
        self.iteration: int = _expect(content, "iteration", int, path)
        self.chunks = _chunks(content, path)

    def tensor(self, chunk: int, key: str) -> Bits:
        """The tensor, mapped; its bytes are compared with the file's checksum the first time.

        Raises:
            BadInput: they differ, or are missing.
        """
        stored = self.stored(chunk, key)
        flat = self._file.tensor(self._start(key, stored), dtype=stored.dtype, numel=stored.storage_numel)
        if stored.storage not in self._checked:
            self._checksum(key, stored).add(0, flat)
        strides = tuple(step * flat.itemsize for step in stored.stride)
        view: Bits = np.ndarray(stored.shape, flat.dtype, flat, stored.offset * flat.itemsize, strides)
        return view

    def reader(self, chunk: int, key: str) -> Callable[[int, Bits], Bits]:
        """What fills an array with the tensor's rows from a given one on; to be called front to back.

        Raises BadInput with the last row when the bytes differ from the file's checksum.
        """
        stored = self.stored(chunk, key)
        if not stored.is_storage:
            whole = self.tensor(chunk, key)
            return lambda first, rows: whole[first : first + len(rows)]
        start, checksum, size = self._start(key, stored), self._checksum(key, stored), prod(stored.shape[1:]) * stored.dtype.itemsize

        def read(first: int, rows: Bits) -> Bits:
            self._file.fill(rows, start + first * size)
            if stored.storage not in self._checked:
                checksum.add(first, rows)
            return rows

        return read

    def stored(self, chunk: int, key: str) -> StoredTensor:
        """What the file says of a tensor; raises BadInput for an empty entry."""
        stored = self.chunks[chunk][key]
        if stored is None:
            raise BadInput("the entry is empty", value=key, source=self.path)
        return stored

    def _start(self, key: str, stored: StoredTensor) -> int:
        """Offset of the tensor's storage in the file."""
        size = stored.storage_numel * stored.dtype.itemsize
        entry = self._entry(f"data/{stored.storage}")
        start = self._data_offset(entry)
        if entry.file_size != size or start + size > self._file.size:
            raise BadInput("a tensor's bytes are missing", value=key, source=self.path, remedy="Copy the file again.")
        return start

    def _checksum(self, key: str, stored: StoredTensor) -> _Checksum:
        def compare(crc: int) -> None:
            if crc != self._entry(f"data/{stored.storage}").CRC:
                raise BadInput(
                    "the checkpoint file is damaged: a tensor's checksum differs", value=key, source=self.path, remedy="Copy it again."
                )
            self._checked.add(stored.storage)

        return _Checksum(stored.storage_numel * stored.dtype.itemsize, compare)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._entries.get(name)
        if entry is None or entry.compress_type != zipfile.ZIP_STORED:
            raise BadInput("not a file that torch.save made", value=f"{name} is missing or compressed", source=self.path)
        return entry

    def _data_offset(self, entry: zipfile.ZipInfo) -> int:
        data = self._file.read(entry.header_offset, LOCAL_HEADER.size) if entry.header_offset < self._file.size else b""
        if len(data) < LOCAL_HEADER.size:
            raise BadInput("the checkpoint file is truncated or damaged", value=entry.filename, source=self.path, remedy="Copy it again.")
        header = LOCAL_HEADER.unpack(data)
        return int(entry.header_offset + LOCAL_HEADER.size + header[-2] + header[-1])


class _Checksum:
    """Of ``size`` bytes, added up as rows are read and given to ``done`` with the last; rows that come again are passed over."""

    def __init__(self, size: int, done: Callable[[int], None]) -> None:
        self._left, self._done, self._rows, self._crc = size, done, 0, 0

    def add(self, first: int, rows: Bits) -> None:
        if first > self._rows:
            raise ValueError(f"row {first} is read before row {self._rows}")
        new = as_bytes(rows[self._rows - first :])
        if new:
            self._crc, self._rows, self._left = crc32(new, self._crc), first + len(rows), self._left - len(new)
            if not self._left:
                self._done(self._crc)


def _chunks(content: Mapping[str, Any], path: Path) -> Sequence[ModelChunk]:
    """``model``, or ``model0``, ``model1``, ... of virtual stages."""
    names = [name for name in (f"model{number}" for number in range(len(content))) if name in content] or ["model"]
    chunks = [_expect(content, name, dict, path) for name in names]
    for name, value in (item for chunk in chunks for item in chunk.items()):
        if not isinstance(name, str) or not (value is None or isinstance(value, StoredTensor)):
            raise BadInput("an entry of the model is not a tensor", value=name, source=path)
    return chunks


def _expect(content: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        raise BadInput(f"the checkpoint file has no {key!r}", source=path, remedy="Give a Megatron-mcore checkpoint.")
    return value
