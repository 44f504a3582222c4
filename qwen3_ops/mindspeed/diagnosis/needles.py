"""Looking for many texts in a line that mostly holds none: texts with a part in common are looked for only where that part is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

_LENGTHS = range(4, 13)  # characters of a common part; shorter ones are in most lines


def group_by_common_part(needles: Collection[str]) -> list[tuple[str, list[str]]]:
    """Every needle once, below a text that is a part of it; few groups rather than the fewest."""
    left, groups = set(needles), []
    shared = {part: holders for part, holders in _holders(needles).items() if len(holders) > 1}
    while shared:
        part, holders = max(shared.items(), key=lambda item: (len(item[1]), len(item[0]), item[0]))
        groups.append((part, sorted(holders)))
        left -= holders
        shared = {part: rest for part, others in shared.items() if len(rest := others - holders) > 1}
    return groups + [(needle, [needle]) for needle in sorted(left)]


def _holders(needles: Collection[str]) -> dict[str, set[str]]:
    """Part -> the needles that hold it."""
    holders: dict[str, set[str]] = defaultdict(set)
    for needle in needles:
        for length in _LENGTHS:
            for start in range(len(needle) - length + 1):
                holders[needle[start : start + length]].add(needle)
    return holders
