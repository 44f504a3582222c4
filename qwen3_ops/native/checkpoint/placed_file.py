"""Output files whose every byte has its place before the first is written, so that threads may fill them in any order.

Weights go to the disk past the page cache. Its pages would cost a processor more than digesting what is in them, fresh ones
on a virtual machine several times as much; they would drive all others out; and at the end they would have to be waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

_BLOCK = max(4096, mmap.PAGESIZE)  # bytes; writes past the cache begin and end at multiples of it, in memory and in the file
_BUFFER = 4 << 20  # bytes of a tensor that are collected for one write
_MOST_KEPT = 8 << 20  # bytes, less than a block each, that wait for being written together

Bytes = NDArray[np.uint8]


class Buffers:
    """Memory for `PlacedFile.write_blocks`, shared by all files of one result: as much as is in use at once, however many they are."""

    def __init__(self) -> None:
        self._free: list[Bytes] = []

    def borrow(self) -> Bytes:
        try:
            return self._free.pop()
        except IndexError:
            return np.frombuffer(mmap.mmap(-1, _BUFFER), np.uint8)

    def give_back(self, buffer: Bytes) -> None:
        self._free.append(buffer)


class PlacedFile:
    """A new file that is written at given offsets.

    Raises:
        OSError: it can not be made.
    """

    def __init__(self, path: Path, buffers: Buffers) -> None:
        self.path, self.buffers = path, buffers
        self._cached = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._direct = _open_direct(path)
        # A writer that fails before it is one can not be closed: the disk may have no room for its file.
        opened = (self._cached, self._direct)
        self._closers = [weakref.finalize(self, os.close, descriptor) for descriptor in opened if descriptor is not None]
        self._lock = threading.Lock()
        self._small: list[tuple[int, bytes]] = []
        self._kept = 0  # bytes of it

    def reserve(self, size: int) -> None:
        """Make the file ``size`` bytes long and take its blocks: threads may write past the cache at once only where there are some.

        Python's own ``posix_fallocate`` would write into every block where the file system can not.

        Raises:
            OSError: the disk is full.
        """
        os.ftruncate(self._cached, size)
        fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
        failed = fallocate is not None and fallocate(self._cached, 0, ctypes.c_int64(0), ctypes.c_int64(size))
        if failed and ctypes.get_errno() in (errno.ENOSPC, errno.EDQUOT):  # any other says that it can not be done here
            raise OSError(ctypes.get_errno(), "no room", str(self.path))

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Through the page cache; less than a block together with others, before `sync` at the latest.

        Each such write waits for all that go past the cache, and they wait for it.
        """
        if len(data) >= _BLOCK:
            self._write(offset, data)
            return
        with self._lock:
            self._small.append((offset, bytes(data)))
            self._kept += len(data)
            full = self._kept >= _MOST_KEPT
        if full:
            self._write_small()

    def _write_small(self) -> None:
        with self._lock:
            small, self._small, self._kept = self._small, [], 0
        for offset, data in small:
            self._write(offset, data)

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:  # one call writes 2 GiB at most
            written = os.pwrite(self._cached, view, offset)
            view, offset = view[written:], offset + written

    def write_blocks(self, offset: int, data: memoryview) -> None:
        """Past the page cache where the file system can; ``data`` is a number of whole blocks."""
        written = 0
        if self._direct is not None:
            try:
                written = os.pwrite(self._direct, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:  # blocks of another size than expected
                    raise
        self._write(offset + written, data[written:])

    def sync(self) -> None:
        self._write_small()
        os.fsync(self._cached)

    def close(self) -> None:
        for close in self._closers:
            close()
        self._cached, self._direct = -1, None


def _open_direct(path: Path) -> int | None:
    flag = getattr(os, "O_DIRECT", None)
    if flag is not None:
        with contextlib.suppress(OSError):  # not on every file system
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC | flag)
    return None


class Sink:
    """One tensor's place in a file; its bytes are added block by block, front to back."""

    def __init__(self, file: PlacedFile, offset: int, size: int, done: Callable[[int], None], *, checksum: bool = True) -> None:
        self._file, self._start, self._at, self._end, self._done = file, offset, offset, offset + size, done
        self._checksum, self._crc = checksum, 0
        self._buffer: Bytes | None = None
        self._base, self._kept = offset - offset % _BLOCK, offset  # where the buffer begins, and what is in it

    def add(self, data: memoryview) -> None:
        if self._checksum:
            self._crc = crc32(data, self._crc)
        if self._end - self._start < _BLOCK:
            self._file.write(self._at, data)
            self._at = self._kept = self._at + len(data)
            return
        if self._buffer is None:
            self._buffer = self._file.buffers.borrow()
        rest = np.frombuffer(data, np.uint8)
        while len(rest):
            place = self._buffer[self._at - self._base :][: len(rest)]
            place[:] = rest[: len(place)]  # numpy lets other threads run meanwhile
            rest, self._at = rest[len(place) :], self._at + len(place)
            if self._at - self._base == len(self._buffer):
                self._flush(self._buffer)

    def close(self) -> None:
        """Raises ValueError unless exactly the announced bytes were added."""
        if self._at != self._end:
            raise ValueError(f"{self._at - self._start} bytes were added where {self._end - self._start} were announced")
        if self._buffer is not None:
            self._flush(self._buffer)
            self._file.buffers.give_back(self._buffer)
            self._buffer = None
        self._done(self._crc)

    def _flush(self, buffer: Bytes) -> None:
        """Write what the buffer holds: the cache takes what is less than a block at either end, where a neighbour has the rest of it."""
        begin, end = self._kept - self._base, self._at - self._base
        first = min(begin + -begin % _BLOCK, end)
        last = max(end - end % _BLOCK, first)
        for write, start, stop in (
            (self._file.write, begin, first),
            (self._file.write_blocks, first, last),
            (self._file.write, last, end),
        ):
            if start < stop:
                write(self._base + start, buffer[start:stop].data)
        self._base, self._kept = self._base + last, self._at
