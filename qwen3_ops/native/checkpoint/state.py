"""A model's tensors by name, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint.dtypes import ElementType
from qwen3_ops.native.checkpoint.sharding import Runs
from qwen3_ops.native.checkpoint.tensor_spec import Bits, TensorSpec
from qwen3_ops.native.checkpoint.whole import Whole

if TYPE_CHECKING:
    from torch import Tensor


class LazyState(Mapping[str, "Tensor"]):
    """Whole tensors under mcore names with global layer numbers; only the one asked for is in memory."""

    def __init__(self, names: Iterable[str], load: Callable[[str], Tensor]) -> None:
        self._names = dict.fromkeys(names)
        self._load = load

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._load(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Part(NamedTuple):
    """A stored tensor that a whole one is made of.

    Attributes:
        ref: ``file:key``, the file relative to the folder.
        spec: of the stored tensor.
        runs: what it is of the whole one.
        slot: place in a grouped tensor, which has several experts' parts, transposed; None elsewhere.
    """

    ref: str
    spec: TensorSpec
    runs: Runs
    slot: int | None = None


class Source(Protocol):
    """Where whole tensors come from."""

    def names(self) -> list[str]:
        """Global names, in a checkpoint's order."""

    def make(self, name: str) -> Whole:
        """Called from several threads."""

    def parts(self, name: str) -> list[Part]:
        """The stored tensors that the original side of ``make(name)`` is made of."""


def refuse_not_finite(
    name: str, dtype: ElementType, first: int, rows: Bits, *, source: object, remedy: str = "Use an older checkpoint."
) -> None:
    """Raises BadInput when ``rows`` of the tensor, which begin with row ``first``, hold NaN or infinity.

    Read as unsigned integers these are the largest numbers; as signed ones, the largest of those without a sign.
    """
    sign = 1 << (8 * dtype.itemsize - 1)
    if not rows.size or (int(rows.max()) < dtype.infinity + sign and int(rows.view(dtype.signed).max()) < dtype.infinity):
        return
    magnitudes = rows & (sign - 1)
    for what, found in (("NaN", magnitudes > dtype.infinity), ("infinity", magnitudes == dtype.infinity)):
        count = int(np.count_nonzero(found))
        if count:
            value = f"{name}, {count} in rows {first} to {first + len(rows) - 1}"
            raise BadInput(f"weights hold {what}", value=value, source=source, remedy=remedy)


def check_names(found: Iterable[str], expected: Iterable[str], *, source: object) -> None:
    """Raises BadInput naming what is missing and what is unknown."""
    have, want = set(found), dict.fromkeys(expected)
    missing, unknown = [name for name in want if name not in have], sorted(have - want.keys())
    for what, names in (("missing", missing), ("unknown", unknown)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise BadInput(
                f"tensors are {what}", value=", ".join(names[:3]) + more, source=source, remedy="Is it the right model, and complete?"
            )


def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...], *, source: object) -> None:
    if found != expected:
        raise BadInput("a tensor has the wrong shape", value=f"{name} is {list(found)}, not {list(expected)}", source=source)
