"""Stand-ins for what torch's pickles name, so that torch need not be imported to write one.

A pickle of protocol 2 names a class or a function by two lines of text, its module and its name; `renamed`
exchanges our modules for the real ones.
"""

from __future__ import annotations

from qwen3_ops.native.checkpoint import dtypes
from qwen3_ops.native.checkpoint.unpickle import ModelType


class BFloat16Storage: ...


class HalfStorage: ...


class FloatStorage: ...


def _rebuild_tensor_v2() -> None: ...


STORAGES = {dtypes.bfloat16: BFloat16Storage, dtypes.float16: HalfStorage, dtypes.float32: FloatStorage}

_REAL = {
    **{(storage.__module__, storage.__name__): "torch" for storage in STORAGES.values()},
    **{(dtypes.__name__, dtype.name): "torch" for dtype in dtypes.STORAGE_CLASSES.values()},
    (__name__, _rebuild_tensor_v2.__name__): "torch._utils",
    (ModelType.__module__, ModelType.__name__): "megatron.core.enums",
}


def renamed(pickled: bytes) -> bytes:
    """The pickle with real names."""
    for (module, name), real in _REAL.items():
        pickled = pickled.replace(f"c{module}\n{name}\n".encode(), f"c{real}\n{name}\n".encode())
    return pickled
