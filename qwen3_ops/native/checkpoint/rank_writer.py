"""Writing ``model_optim_rng.pt``: the description first, then every tensor at its place."""

from __future__ import annotations

import io
import pickle
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from zlib_ng.zlib_ng import crc32

from qwen3_ops.native.checkpoint import torch_names, zip_format
from qwen3_ops.native.checkpoint.dtypes import ElementType
from qwen3_ops.native.checkpoint.placed_file import Buffers, PlacedFile, Sink
from qwen3_ops.native.checkpoint.tensor_spec import TensorSpec

_ROOT = "model_optim_rng"


class RankFileWriter:
    """Writes one rank's file; tensors may come in any order and from several threads.

    Args:
        chunks: model chunks, each key -> tensor, or None for an empty entry. One without virtual stages.
    """

    def __init__(
        self, path: Path, *, args: Namespace, iteration: int, chunks: Sequence[Mapping[str, TensorSpec | None]], buffers: Buffers
    ) -> None:
        names = ["model"] if len(chunks) == 1 else [f"model{number}" for number in range(len(chunks))]
        content = {
            "args": args,
            "checkpoint_version": 3.0,
            "iteration": iteration,
            **{name: OrderedDict(chunk) for name, chunk in zip(names, chunks, strict=True)},
            "num_floating_point_operations_so_far": 0,
        }
        self._file = PlacedFile(path, buffers)
        self._records: list[zip_format.Record] = []
        self._crcs: dict[int, int] = {}
        for name, data in (("data.pkl", _pickled(content)), ("byteorder", b"little")):
            self._add(name, data)
        keys = ((number, key, spec) for number, chunk in enumerate(chunks) for key, spec in chunk.items() if spec is not None)
        self._slots = {(chunk, key): self._place(f"data/{index}", spec.nbytes) for index, (chunk, key, spec) in enumerate(keys)}
        self._file.reserve(self._records[-1].end)

    def open(self, chunk: int, key: str) -> Sink:
        """Where the tensor's bytes go."""
        number = self._slots[chunk, key]
        record = self._records[number]
        return Sink(self._file, record.start, record.size, partial(self._complete, number))

    def finish(self) -> None:
        """Complete the file and bring it to the disk."""
        missing = [key for key, number in self._slots.items() if number not in self._crcs]
        if missing:
            raise ValueError(f"{missing[0]} was announced and not written")
        self._add("version", b"3\n")
        crcs = [self._crcs[number] for number in range(len(self._records))]
        self._file.write(self._records[-1].end, zip_format.directory(self._records, crcs))
        self._file.sync()

    def close(self) -> None:
        self._file.close()

    def _place(self, name: str, size: int) -> int:
        offset = self._records[-1].end if self._records else 0
        self._records.append(zip_format.place(f"{_ROOT}/{name}", size, offset))
        return len(self._records) - 1

    def _add(self, name: str, data: bytes) -> None:
        number = self._place(name, len(data))
        self._file.write(self._records[number].start, data)
        self._complete(number, crc32(data))

    def _complete(self, number: int, crc: int) -> None:
        record = self._records[number]
        self._file.write(record.offset, record.local_header(crc))
        self._crcs[number] = crc


class _StorageKey(NamedTuple):
    key: str
    spec: TensorSpec


class _Pickler(pickle.Pickler):
    """Writes a `TensorSpec` as torch writes a tensor, its storage numbered in order of appearance."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self._storages = 0

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, ElementType):
            return obj.name  # of a global, in its module
        if not isinstance(obj, TensorSpec):
            return NotImplemented
        storage = _StorageKey(str(self._storages), obj)
        self._storages += 1
        stride = tuple(prod(obj.shape[axis + 1 :]) for axis in range(len(obj.shape)))
        return torch_names._rebuild_tensor_v2, (storage, 0, obj.shape, stride, False, OrderedDict())

    def persistent_id(self, obj: object) -> Any:
        if not isinstance(obj, _StorageKey):
            return None
        return ("storage", torch_names.STORAGES[obj.spec.dtype], obj.key, "cpu", obj.spec.numel)


def _pickled(content: Mapping[str, object]) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(content)
    return torch_names.renamed(buffer.getvalue())
