"""Reading the pickle inside a ``model_optim_rng.pt`` without trusting it.

A pickle is a program: it names callables and calls them. Here a name is never imported; the
few names that Megatron's files hold are mapped to stand-ins of our own that can only make
plain data, and any other name refuses the file. A pickle can also try to change what it was
given (the BUILD instruction), so that every stand-in is immutable to it. Tensors come out as
descriptions (`StoredTensor`), no weight is touched. numpy arrays (``rng_state``) come out as
`OPAQUE`: nothing here needs them, and numpy trusts the state that a pickle gives it.

Neither megatron nor torch needs to be installed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from math import prod
from typing import Any, NamedTuple

from qwen3_ops.native.checkpoint.dtypes import STORAGE_CLASSES, ElementType


class ModelType(Enum):
    """Stands for ``megatron.core.enums.ModelType``."""

    encoder_or_decoder = 1
    encoder_and_decoder = 2
    retro_encoder = 3
    retro_decoder = 4


class StoredTensor(NamedTuple):
    """A tensor as the pickle describes it: ``offset`` and ``stride`` in elements of its storage."""

    storage: str
    dtype: ElementType
    storage_numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def is_storage(self) -> bool:
        """Whether it is all of its storage, row by row."""
        strides = tuple(prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))
        return self.offset == 0 and self.stride == strides and prod(self.shape) == self.storage_numel


class Opaque:
    """Something that a file may hold and that nothing here reads."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """The state is dropped."""


OPAQUE = Opaque()


class _Storage(NamedTuple):
    key: str
    dtype: ElementType
    numel: int


class _StorageClass(NamedTuple):
    dtype: ElementType


class _Callable:
    """A callable that a pickle may call and can not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a pickle may not change a callable")


class _Arguments(Namespace):
    """``argparse.Namespace`` while it is read; BUILD on the class itself fails for want of ``self``."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise pickle.UnpicklingError("the state of args is not a dictionary")
        self.__dict__.update(state)


def _rebuild_tensor(storage: object, offset: object, shape: object, stride: object, *_: object) -> StoredTensor:
    """``torch._utils._rebuild_tensor_v2``; what follows (requires_grad, hooks) does not matter here."""
    if not isinstance(storage, _Storage) or not isinstance(offset, int):
        raise pickle.UnpicklingError("a tensor without a storage")
    sizes, strides = _sizes(shape), _sizes(stride)
    end = offset + 1 + sum((size - 1) * step for size, step in zip(sizes, strides, strict=True))
    if offset < 0 or (0 not in sizes and end > storage.numel):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    return StoredTensor(storage.key, storage.dtype, storage.numel, offset, sizes, strides)


def _rebuild_with_attributes(rebuild: object, _kind: object, arguments: object, _attributes: object) -> StoredTensor:
    """``torch._tensor._rebuild_from_type_v2``: fp32 masters of bf16 weights, whose place in the layout Megatron notes in attributes."""
    if rebuild is not _REBUILD_TENSOR or not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("a tensor with attributes that is built in an unknown way")
    return _rebuild_tensor(*arguments)


def _rebuild_parameter(data: object, *_: object) -> StoredTensor:
    """``torch._utils._rebuild_parameter`` and ``_rebuild_parameter_with_state``."""
    if not isinstance(data, StoredTensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return data


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(size) is int and size >= 0 for size in value):
        raise pickle.UnpicklingError("a tensor's shape is not a tuple of sizes")
    return value


def _opaque(*_: object) -> Opaque:
    return OPAQUE


_REBUILD_TENSOR = _Callable(_rebuild_tensor)

_ADMITTED: dict[tuple[str, str], object] = {
    ("argparse", "Namespace"): _Arguments,
    ("collections", "OrderedDict"): OrderedDict,
    ("megatron.core.enums", "ModelType"): _Callable(ModelType),
    ("torch._utils", "_rebuild_tensor_v2"): _REBUILD_TENSOR,
    ("torch._tensor", "_rebuild_from_type_v2"): _Callable(_rebuild_with_attributes),
    ("torch._utils", "_rebuild_parameter"): _Callable(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Callable(_rebuild_parameter),
    ("torch", "Tensor"): OPAQUE,
    ("torch.nn.parameter", "Parameter"): OPAQUE,
    **{("torch", name): _StorageClass(dtype) for name, dtype in STORAGE_CLASSES.items()},
    **{("torch", dtype.name): dtype for dtype in STORAGE_CLASSES.values()},
    # --noop-layers of a training run
    ("builtins", "set"): _Callable(set),
    ("__builtin__", "set"): _Callable(set),
    # rng_state: numpy arrays, by numpy 1's names and by numpy 2's
    ("numpy.core.multiarray", "_reconstruct"): _Callable(_opaque),
    ("numpy._core.multiarray", "_reconstruct"): _Callable(_opaque),
    ("numpy", "ndarray"): OPAQUE,
    ("numpy", "dtype"): _Callable(_opaque),
    ("_codecs", "encode"): _Callable(_opaque),
}


_SCALARS = (type(None), bool, int, float, complex, str, bytes)
_SEQUENCES = (list, tuple, set, frozenset)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not something that a checkpoint holds") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """``("storage", class, key, location, number of elements)``, as torch writes it."""
        match pid:
            case ("storage", _StorageClass(dtype=dtype), str(key), str(), int(numel)) if numel >= 0:
                return _Storage(key, dtype, numel)
        raise pickle.UnpicklingError("a storage is described in an unknown way")


def _check_memo(data: bytes) -> None:
    """A place in the memo beyond the number of instructions: a few bytes that make Python take gigabytes of memory."""
    for instruction, place, _ in pickletools.genops(data):
        if instruction.name in ("PUT", "LONG_BINPUT") and place is not None and place > len(data):
            raise pickle.UnpicklingError(f"memo {place} in a pickle of {len(data)} bytes")


def unpickle(data: bytes) -> dict[str, Any]:
    """The top-level dictionary of a checkpoint's ``data.pkl``; ``args`` is a plain Namespace.

    Raises:
        pickle.UnpicklingError: not a checkpoint's pickle, or one that names anything else.
    """
    try:
        _check_memo(data)
        content = _Unpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle fails in as many ways as there are instructions
        raise pickle.UnpicklingError(f"damaged: {type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"the content is a {type(content).__name__}, not a dictionary")
    if isinstance(content.get("args"), _Arguments):
        fields = vars(content["args"]).items()
        content["args"] = Namespace(**{name: value for name, value in fields if _is_plain(value)})
    return content


def _is_plain(value: object) -> bool:
    """Whether it can be written into the next checkpoint's args: no stand-in of ours is in it, however deep."""
    seen: set[int] = set()
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, (ElementType, ModelType)) or type(item) in _SCALARS or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            left += [*item.keys(), *item.values()]
        elif type(item) in _SEQUENCES:
            left += item  # type: ignore[arg-type]
        else:
            return False
    return True
