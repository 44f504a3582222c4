"""What is trained of a turn, and what is kept of one that is too long."""

from __future__ import annotations

IGNORE_INDEX = -100
"""The label of a token that is not trained."""


def fit_turn(source: int, target: int, limit: int) -> tuple[int, int]:
    """Lengths of prompt and answer that fit into ``limit`` tokens.

    A short answer is kept and the prompt cut, a short prompt is kept and the answer cut, otherwise
    both are cut in proportion.
    """
    if target * 2 < limit:
        room = limit
    elif source * 2 < limit:
        room = limit - source
    else:
        room = int(limit * (target / (source + target)))
    target = min(target, room)
    return min(source, max(limit - target, 0)), target
