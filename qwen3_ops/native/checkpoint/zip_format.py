"""The uncompressed zip that ``torch.save`` makes: records of which every offset is known beforehand."""

from __future__ import annotations

import struct
from typing import NamedTuple

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")

_ALIGNMENT = 64  # bytes; torch's own
_LIMIT = 0xFFFFFFFF  # what does not fit in 32 bits goes into a zip64 field
_VERSION = 45
_DATE = 0x21  # 1980-01-01: the file does not depend on when it was made


class Record(NamedTuple):
    """One entry: ``offset`` of its header, ``start`` of its bytes."""

    name: str
    offset: int
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    def local_header(self, crc: int) -> bytes:
        extra = self._zip64(self.size, self.size) if self.size >= _LIMIT else b""
        padding = self.start - self.offset - LOCAL_HEADER.size - len(self.name) - len(extra) - 4
        extra += struct.pack("<2sH", b"FB", padding) + bytes(padding)  # torch's own padding field
        size = min(self.size, _LIMIT)
        fields = (b"PK\3\4", _VERSION, 0, 0, 0, _DATE, crc, size, size, len(self.name), len(extra))
        return LOCAL_HEADER.pack(*fields) + self.name.encode() + extra

    def central_header(self, crc: int) -> bytes:
        wide = [value for value in (self.size, self.size, self.offset) if value >= _LIMIT]
        extra = self._zip64(*wide) if wide else b""
        size = min(self.size, _LIMIT)
        fields = (b"PK\1\2", _VERSION, _VERSION, 0, 0, 0, _DATE, crc, size, size, len(self.name), len(extra), 0, 0, 0, 0)
        return _CENTRAL_HEADER.pack(*fields, min(self.offset, _LIMIT)) + self.name.encode() + extra

    @staticmethod
    def _zip64(*values: int) -> bytes:
        return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def place(name: str, size: int, offset: int) -> Record:
    """The record whose header begins at ``offset``, its bytes aligned."""
    header = LOCAL_HEADER.size + len(name) + 4 + (20 if size >= _LIMIT else 0)
    return Record(name, offset, offset + header + -(offset + header) % _ALIGNMENT, size)


def directory(records: list[Record], crcs: list[int]) -> bytes:
    """The zip's end: the central directory behind the last record."""
    headers = b"".join(record.central_header(crc) for record, crc in zip(records, crcs, strict=True))
    count, start, size = len(records), records[-1].end, len(headers)
    end = b""
    if start >= _LIMIT or count >= 0xFFFF:
        end += _END64.pack(b"PK\6\6", _END64.size - 12, _VERSION, _VERSION, 0, 0, count, count, size, start)
        end += _LOCATOR64.pack(b"PK\6\7", 0, start + size, 1)
    few = min(count, 0xFFFF)
    return headers + end + _END.pack(b"PK\5\6", 0, 0, few, few, size, min(start, _LIMIT), 0)
