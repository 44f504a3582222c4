"""Which records share a packed sequence: a greedy knapsack, from the lengths alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


def knapsacks(lengths: Iterable[int], size: int) -> list[list[int]]:
    """Record numbers of each packed sequence of ``size`` tokens, in their order there.

    Each takes the longest record that still fits, the last one among equally long ones, until none
    does. The order is the original's, which leaves one token free in every sequence; a record of
    exactly ``size`` tokens, for which the original never ends, gets a sequence of its own.
    """
    by_length: dict[int, list[int]] = {}
    packs = []
    for record, length in enumerate(lengths):
        if length == size:
            packs.append([record])
        else:
            by_length.setdefault(length, []).append(record)
    waiting = sorted(by_length)
    while waiting:
        room, pack = size - 1, []
        while place := bisect_right(waiting, room):
            length = waiting[place - 1]
            pack.append(by_length[length].pop())
            room -= length
            if not by_length[length]:
                del waiting[place - 1]
        packs.append(pack)
    return packs
