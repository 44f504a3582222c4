"""Builds checkpoint files that try to run something, or to break the reader, when they are read.

Each sample is a pickle in assembler, put where ``torch.save`` puts a checkpoint's. ``{marker}`` is
a file that exists afterwards if the attack worked.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path


def text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def content(args: bytes) -> bytes:
    """``{"args": ARGS, "iteration": 1, "model": {}}``"""
    items = text("args") + args + text("iteration") + pickle.BININT1 + b"\x01" + text("model") + pickle.EMPTY_DICT
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


NAMESPACE = name("argparse", "Namespace")
MODEL_TYPE = name("megatron.core.enums", "ModelType")


def tensor(*, numel: int, offset: int, size: int) -> bytes:
    """A tensor of ``size`` elements from ``offset`` of a storage that has ``numel``."""

    def integer(value: int) -> bytes:
        return pickle.BININT + struct.pack("<i", value)

    storage = text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + integer(numel)
    parts = (
        pickle.MARK + storage + pickle.TUPLE + pickle.BINPERSID,
        integer(offset),
        integer(size) + pickle.TUPLE1,
        integer(1) + pickle.TUPLE1,
        pickle.NEWFALSE,
        call(name("collections", "OrderedDict")),
    )
    return call(name("torch._utils", "_rebuild_tensor_v2"), *parts)


def samples(marker: Path) -> dict[str, bytes]:
    """Name of the attack -> its pickle."""
    touch = f"touch {marker}"
    make = f"open({str(marker)!r}, 'w')"
    slots = pickle.NONE + pickle.EMPTY_DICT + text("injected") + text("x") + pickle.SETITEM + pickle.TUPLE2 + pickle.BUILD
    return {
        "os.system": content(call(name("os", "system"), text(touch))),
        "posix.system": content(call(name("posix", "system"), text(touch))),
        "subprocess": content(call(name("subprocess", "getoutput"), text(touch))),
        "eval": content(call(name("builtins", "eval"), text(make))),
        "exec of python 2": content(call(name("__builtin__", "exec"), text(make))),
        "getattr": content(call(name("builtins", "getattr"), NAMESPACE, text("__class__"))),
        "attribute of an admitted class": content(name("argparse", "Namespace.__init__.__globals__")),
        "module beside an admitted one": content(call(name("argparse", "_sys.modules"))),
        "unsafe torch.load": content(call(name("torch.serialization", "load"), text(str(marker)))),
        "numpy's file writer": content(call(name("numpy", "save"), text(str(marker)), pickle.EMPTY_LIST)),
        "INST": pickle.MARK + text(touch) + pickle.INST + b"os\nsystem\n" + pickle.STOP,
        "OBJ": pickle.MARK + name("os", "system") + text(touch) + pickle.OBJ + pickle.STOP,
        "STACK_GLOBAL": pickle.PROTO + b"\x04" + text("os") + text("system") + pickle.STACK_GLOBAL + text(touch) + pickle.TUPLE1
        + pickle.REDUCE + pickle.STOP,
        "changing the class Namespace": content(NAMESPACE + slots),
        "changing ModelType": content(MODEL_TYPE + slots),
        "changing the tensor's maker": content(name("torch._utils", "_rebuild_tensor_v2") + slots),
        "changing the class set": content(name("builtins", "set") + slots),
        "a set of what no set can hold": content(call(name("builtins", "set"), pickle.EMPTY_LIST + pickle.EMPTY_LIST + pickle.APPEND)),
        "attributes on something else": content(
            call(name("torch._tensor", "_rebuild_from_type_v2"), name("builtins", "set"), name("torch", "Tensor"), pickle.EMPTY_TUPLE, pickle.EMPTY_DICT)
        ),
        "a parameter of something else": content(call(name("torch._utils", "_rebuild_parameter"), text("x"))),
        "making a tensor of the class": content(call(name("torch", "Tensor"), text("x"))),
        "tensor beyond its storage": content(tensor(numel=1, offset=0, size=1000)),
        "tensor before its storage": content(tensor(numel=1, offset=-5, size=1)),
        "changing the class OrderedDict": content(name("collections", "OrderedDict") + slots),
        "changing a dtype": content(name("torch", "bfloat16") + slots),
        "changing a storage class": content(name("torch", "FloatStorage") + slots),
        "calling a storage class": content(call(name("torch", "FloatStorage"), text(touch))),
        "a dictionary that unpickles its keys": content(call(name("collections", "OrderedDict"), name("os", "system"))),
        "a memo of gigabytes": pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.LONG_BINPUT + b"\xff\xff\xff\x7f" + pickle.STOP,
        "a memo of gigabytes, in text": pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.PUT + b"2147483647\n" + pickle.STOP,
        "an array of gigabytes": pickle.PROTO + b"\x05" + pickle.BYTEARRAY8 + struct.pack("<Q", 1 << 36) + pickle.STOP,
        "a storage from elsewhere": content(pickle.MARK + text("module") + text("x") + pickle.TUPLE + pickle.BINPERSID),
        "an extension": pickle.PROTO + b"\x02" + pickle.EXT1 + b"\x01" + pickle.STOP,
        "not a dictionary": pickle.PROTO + b"\x02" + pickle.EMPTY_LIST + pickle.STOP,
        "stack underflow": pickle.PROTO + b"\x02" + pickle.REDUCE + pickle.STOP,
        "endless": pickle.PROTO + b"\x02" + pickle.MARK,
    }  # fmt: skip


def write_checkpoint_file(path: Path, data: bytes, *, compression: int = zipfile.ZIP_STORED) -> None:
    """A zip like ``torch.save``'s with ``data`` as its pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model_optim_rng/data.pkl", data)
        archive.writestr("model_optim_rng/byteorder", "little")
        archive.writestr("model_optim_rng/data/0", bytes(4))
        archive.writestr("model_optim_rng/version", "3\n")
