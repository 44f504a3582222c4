"""Output files whose every byte has its place before the first is written, so that threads may fill them in any order."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path


class PlacedFile:
    """A new file that is written at given offsets.

    Raises:
        OSError: it can not be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:  # one call writes 2 GiB at most
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def start_writeback(self, offset: int, size: int) -> None:
        """Ask the kernel to bring a written range to the disk now, so that `sync` finds little left to wait for."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Sink:
    """One tensor's place in a file; its bytes are added block by block, front to back."""

    def __init__(self, file: PlacedFile, offset: int, size: int, done: Callable[[int], None], *, checksum: bool = True) -> None:
        self._file, self._start, self._at, self._end, self._done = file, offset, offset, offset + size, done
        self._checksum, self._crc = checksum, 0

    def add(self, block: memoryview) -> None:
        self._file.write(self._at, block)
        if self._checksum:
            self._crc = zlib.crc32(block, self._crc)
        self._at += len(block)

    def close(self) -> None:
        """Raises ValueError unless exactly the announced bytes were added."""
        if self._at != self._end:
            raise ValueError(f"{self._at - self._start} bytes were added where {self._end - self._start} were announced")
        self._file.start_writeback(self._start, self._end - self._start)
        self._done(self._crc)
