"""``model_optim_rng.pt``: torch's zip format, read by memory map and written tensor by tensor.

The format: an uncompressed zip whose entries lie below one folder: ``data.pkl`` (the pickled
dictionary, each tensor's storage named by a number), ``data/<number>`` (the storage's bytes,
aligned to 64), ``byteorder`` and ``version``. ``torch.load`` reads what is written here.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint.dtypes import STORAGE_CLASSES
from qwen3_ops.native.checkpoint.mapped_file import MappedFile
from qwen3_ops.native.checkpoint.unpickle import ModelType, StoredTensor, unpickle

FILE_NAME = "model_optim_rng.pt"
_ROOT = "model_optim_rng"
_ALIGNMENT = 64  # bytes; torch's own
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


class RankFile:
    """One rank's file, opened: everything but the weights is read, the weights are mapped.

    Raises:
        BadInput: missing, truncated, damaged, or it holds something that no checkpoint holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = MappedFile(path)
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
        except (zipfile.BadZipFile, struct.error, ValueError) as error:
            raise BadInput(
                "the checkpoint file is truncated or damaged", value=error, source=path, remedy="Copy it again or use an older iteration."
            ) from error
        self.args = _expect(content, "args", Namespace, path)
        self.iteration: int = _expect(content, "iteration", int, path)
        self.model: Mapping[str, StoredTensor | None] = _expect(content, "model", dict, path)
        for name, value in self.model.items():
            if not isinstance(name, str) or not (value is None or isinstance(value, StoredTensor)):
                raise BadInput("an entry of the model is not a tensor", value=name, source=path)

    def tensor(self, key: str) -> Tensor:
        """The tensor ``key``, mapped: its pages are read when they are used."""
        stored = self.model[key]
        if stored is None:
            raise BadInput("the entry is empty", value=key, source=self.path)
        size = stored.storage_numel * stored.dtype.itemsize
        entry = self._entry(f"data/{stored.storage}")
        start = self._data_offset(entry)
        if entry.file_size != size or start + size > self._file.size:
            raise BadInput("a tensor's bytes are missing", value=key, source=self.path, remedy="Copy the file again.")
        flat = self._file.tensor(start, dtype=stored.dtype, numel=stored.storage_numel)
        return flat.as_strided(stored.shape, stored.stride, stored.offset)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._entries.get(name)
        if entry is None or entry.compress_type != zipfile.ZIP_STORED:
            raise BadInput("not a file that torch.save made", value=f"{name} is missing or compressed", source=self.path)
        return entry

    def _data_offset(self, entry: zipfile.ZipInfo) -> int:
        header = _LOCAL_HEADER.unpack(self._file.read(entry.header_offset, _LOCAL_HEADER.size))
        return int(entry.header_offset + _LOCAL_HEADER.size + header[-2] + header[-1])


def _expect(content: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        raise BadInput(f"the checkpoint file has no {key!r}", source=path, remedy="Give a Megatron-mcore checkpoint of one model chunk.")
    return value


class TensorSpec(NamedTuple):
    """What is known of a tensor before its values are."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class RankFileWriter:
    """Writes one rank's file: the description first, then `write` once per tensor, in the model's order."""

    def __init__(self, path: Path, *, args: Namespace, iteration: int, model: Mapping[str, TensorSpec | None]) -> None:
        self._pending = [(key, spec) for key, spec in model.items() if spec is not None]
        self._pending.reverse()
        self._file = path.open("wb")
        self._archive = zipfile.ZipFile(self._file, "w")
        content = {
            "args": args,
            "checkpoint_version": 3.0,
            "iteration": iteration,
            "model": OrderedDict(model),
            "num_floating_point_operations_so_far": 0,
        }
        self._add("data.pkl", _pickled(content))
        self._add("byteorder", b"little")
        self._written = 0

    def write(self, key: str, tensor: Tensor) -> None:
        expected, spec = self._pending.pop()
        if key != expected or tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
            raise ValueError(f"{key} {tensor.dtype} {tuple(tensor.shape)} came where {expected} {spec} was announced")
        self._add(f"data/{self._written}", as_bytes(tensor))
        self._written += 1

    def finish(self) -> None:
        """Complete the file and bring it to the disk."""
        if self._pending:
            raise ValueError(f"{self._pending[-1][0]} was announced and not written")
        self._add("version", b"3\n")
        self._archive.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._archive.fp = None  # an unfinished archive gets no directory
        self._file.close()

    def _add(self, name: str, data: bytes | memoryview) -> None:
        info = zipfile.ZipInfo(f"{_ROOT}/{name}")
        info.file_size = len(data)
        zip64 = len(data) * 1.05 > zipfile.ZIP64_LIMIT  # zipfile's own rule
        header = _LOCAL_HEADER.size + len(info.filename) + 4 + (20 if zip64 else 0)
        padding = -(self._file.tell() + header) % _ALIGNMENT
        info.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)  # torch's own padding field
        with self._archive.open(info, "w", force_zip64=zip64) as entry:
            entry.write(data)


def as_bytes(tensor: Tensor) -> memoryview:
    """The tensor's elements as little-endian bytes, row by row."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


class _StorageKey(NamedTuple):
    key: str
    spec: TensorSpec


class _Pickler(pickle.Pickler):
    """Writes a `TensorSpec` as torch writes a tensor, its storage numbered in order of appearance."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self._storages = 0

    def reducer_override(self, obj: object) -> Any:
        if not isinstance(obj, TensorSpec):
            return NotImplemented
        storage = _StorageKey(str(self._storages), obj)
        self._storages += 1
        stride = torch.empty(obj.shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (storage, 0, obj.shape, stride, False, OrderedDict())

    def persistent_id(self, obj: object) -> Any:
        if not isinstance(obj, _StorageKey):
            return None
        name = next(name for name, dtype in STORAGE_CLASSES.items() if dtype == obj.spec.dtype)
        return ("storage", getattr(torch, name), obj.key, "cpu", obj.spec.numel)


def _pickled(content: Mapping[str, object]) -> bytes:
    """Protocol 2 names a class by two lines of text, so that the stand-in's name can give way to Megatron's."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(content)
    return buffer.getvalue().replace(f"c{ModelType.__module__}\nModelType\n".encode(), b"cmegatron.core.enums\nModelType\n")
