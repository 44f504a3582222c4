"""A model's tensors by name, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from qwen3_ops.errors import BadInput


class LazyState(Mapping[str, Tensor]):
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


def refuse_nan(state: Mapping[str, Tensor], *, source: object) -> LazyState:
    """The same state; asking for a tensor that holds NaN raises BadInput."""

    def load(name: str) -> Tensor:
        tensor = state[name]
        if torch.isnan(tensor).any():
            count = int(torch.isnan(tensor).sum())
            raise BadInput(
                "weights hold NaN", value=f"{name}, {count} of {tensor.numel()}", source=source, remedy="Use an older checkpoint."
            )
        return tensor

    return LazyState(state, load)


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
