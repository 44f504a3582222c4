"""safetensors files: read by rows or mapped, written tensor by tensor in any order.

The format: 8 bytes length of the header (little-endian), the header (JSON: name -> dtype, shape,
``data_offsets``), then the tensors. Written as the library writes it: the names sorted, the
header filled up with spaces to a multiple of 8.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint.dtypes import SAFETENSORS_DTYPES, UNQUANTIZED
from qwen3_ops.native.checkpoint.placed_file import Buffers, PlacedFile, Sink
from qwen3_ops.native.checkpoint.tensor_file import TensorFile
from qwen3_ops.native.checkpoint.tensor_spec import Bits, TensorSpec

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 100_000_000  # bytes; the library's own limit


class SafetensorsFile:
    """One file, opened: the header is read and checked.

    Raises:
        BadInput: missing, truncated, damaged, or of a dtype that no weight has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = TensorFile(path)
            (length,) = _LENGTH.unpack(self._file.read(0, _LENGTH.size))
            self._start = _LENGTH.size + length
            if length > _MAX_HEADER or self._start > self._file.size:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(self._file.read(_LENGTH.size, length))
            header.pop("__metadata__", None)
            self._entries = {name: self._entry(name, entry) for name, entry in header.items()}
            self._check_places()
            self.specs: Mapping[str, TensorSpec] = {name: spec for name, (spec, _) in self._entries.items()}
        except FileNotFoundError as error:
            raise BadInput("a weights file is missing", value=path, remedy="Copy the whole model folder.") from error
        except OSError as error:
            raise BadInput("the weights file can not be read", value=error, source=path) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
            raise BadInput("the weights file is truncated or damaged", value=error, source=path, remedy="Copy it again.") from error

    def tensor(self, name: str) -> Bits:
        """The tensor ``name``, mapped: its pages are read when they are used."""
        spec, start = self._entries[name]
        return self._file.tensor(start, dtype=spec.dtype, numel=spec.numel).reshape(spec.shape)

    def read(self, name: str, first: int, rows: Bits) -> Bits:
        """Fill ``rows`` with those of the tensor from ``first`` on."""
        spec, start = self._entries[name]
        self._file.fill(rows, start + first * prod(spec.shape[1:]) * spec.dtype.itemsize)
        return rows

    def _entry(self, name: str, entry: Any) -> tuple[TensorSpec, int]:
        dtype = SAFETENSORS_DTYPES.get(entry["dtype"])
        if dtype is None:
            raise BadInput("a weight's dtype is not supported", value=f"{name} is {entry['dtype']}", source=self.path, remedy=UNQUANTIZED)
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError(f"the header's entry of {name}")
        spec = TensorSpec(dtype, shape)
        if end - begin != spec.nbytes:
            raise ValueError(f"{name} has {end - begin} bytes, not {spec.nbytes}")
        return spec, self._start + begin

    def _check_places(self) -> None:
        """One tensor behind the other, up to the file's end."""
        at = self._start
        for name, (spec, start) in sorted(self._entries.items(), key=lambda item: (item[1][1], item[1][0].nbytes)):
            if start != at:
                raise ValueError(f"{name} does not begin where the tensor before it ends")
            at += spec.nbytes
        if at != self._file.size:
            raise ValueError(f"the file has {self._file.size} bytes, its tensors end at {at}")


class SafetensorsWriter:
    """Writes one file; every tensor has its place from the start, so they may come in any order and from several threads."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], buffers: Buffers) -> None:
        names = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in sorted(specs):
            begin, end = end, end + specs[name].nbytes
            header[name] = {"dtype": names[specs[name].dtype], "shape": list(specs[name].shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        start = _LENGTH.size + len(text)
        self._places = {name: (start + entry["data_offsets"][0], specs[name].nbytes) for name, entry in header.items() if name in specs}
        self._written: set[str] = set()
        self._file = PlacedFile(path, buffers)
        self._file.reserve(start + end)
        self._file.write(0, _LENGTH.pack(len(text)) + text)

    def open(self, name: str) -> Sink:
        """Where the tensor's bytes go."""
        return Sink(self._file, *self._places[name], lambda crc: self._written.add(name), checksum=False)

    def finish(self) -> None:
        """Complete the file and bring it to the disk."""
        missing = self._places.keys() - self._written
        if missing:
            raise ValueError(f"{min(missing)} was announced and not written")
        self._file.sync()

    def close(self) -> None:
        self._file.close()
