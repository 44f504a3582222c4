"""The failure table: every signature that is known.

Order matters only where one line fits two rows: the first is taken.
"""

from __future__ import annotations

from functools import cache

from qwen3_ops.mindspeed.diagnosis import arguments, checkpoints, data, devices
from qwen3_ops.mindspeed.diagnosis.needles import group_by_common_part
from qwen3_ops.mindspeed.diagnosis.signature import Signature

SIGNATURES: tuple[Signature, ...] = (*devices.SIGNATURES, *checkpoints.SIGNATURES, *data.SIGNATURES, *arguments.SIGNATURES)

BY_NAME = {signature.name: signature for signature in SIGNATURES}


def signature_of(line: str) -> Signature | None:
    """The first row that ``line`` fits."""
    held: set[int] = set()
    for part, needles in _groups():
        if part in line:
            for needle, rows in needles:
                if needle in line:
                    held.update(rows)
    return next((SIGNATURES[row] for row in sorted(held) if SIGNATURES[row].matches(line)), None) if held else None


@cache
def _groups() -> tuple[tuple[str, tuple[tuple[str, tuple[int, ...]], ...]], ...]:
    """Common part -> needle -> places in the table."""
    places = {
        needle: tuple(at for at, row in enumerate(SIGNATURES) if needle in row.needles) for row in SIGNATURES for needle in row.needles
    }
    return tuple((part, tuple((needle, tuple(places[needle])) for needle in needles)) for part, needles in group_by_common_part(places))
