"""A file of tensors: mapped whole, or read a few rows at a time."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from pathlib import Path

import numpy as np

from qwen3_ops.errors import BadInput, Infrastructure
from qwen3_ops.native.checkpoint.dtypes import ElementType
from qwen3_ops.native.checkpoint.tensor_spec import Bits, as_bytes

_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14: all pages in one call


class TensorFile:
    """An open file.

    Raises:
        OSError: the file can not be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def fill(self, bits: Bits, offset: int) -> None:
        """Read ``bits`` from ``offset`` bytes on. Into memory that is used over and over this costs less than half of what a map does.

        Raises:
            BadInput: the file ends before.
            Infrastructure: the disk fails; the system's own error does not name the file.
        """
        view = as_bytes(bits)
        while view:  # one call reads 2 GiB at most
            try:
                count = os.preadv(self._descriptor, [view], offset)
            except OSError as error:
                raise Infrastructure("the file can not be read", value=error, source=self.path, remedy="Look at its disk.") from error
            if not count:
                raise BadInput("the file became shorter while it was read", value=f"it ends before byte {offset}", source=self.path)
            view, offset = view[count:], offset + count

    def tensor(self, offset: int, *, dtype: ElementType, numel: int) -> Bits:
        """``numel`` elements from ``offset`` bytes, in a map of its own, so that its pages leave memory together with it.

        The map is private, a write never reaches the file.
        """
        if not numel:
            return np.empty(0, dtype.unsigned)
        skip = offset % mmap.ALLOCATIONGRANULARITY
        length = skip + numel * dtype.itemsize
        view = mmap.mmap(self._descriptor, length, access=mmap.ACCESS_COPY, offset=offset - skip)
        with contextlib.suppress(OSError):  # an older kernel: the pages come one by one then
            view.madvise(_POPULATE_READ)
        return np.frombuffer(view, dtype.unsigned, numel, skip)
