"""What a known failure looks like, what causes it and what cures it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from qwen3_ops.errors import ExitCode


class Fault(Enum):
    """Whose fault it is; that alone decides about a retry (docs/adr/0007)."""

    BAD_INPUT = "bad input"
    INFRASTRUCTURE = "infrastructure"
    DATA = "data"
    CODE = "code"

    @property
    def exit_code(self) -> ExitCode:
        """Software that does not fit the device fails the next time too, so ``code`` is not retried."""
        return {
            Fault.BAD_INPUT: ExitCode.BAD_INPUT,
            Fault.INFRASTRUCTURE: ExitCode.INFRASTRUCTURE,
            Fault.DATA: ExitCode.QUALITY_GATE,
            Fault.CODE: ExitCode.BAD_INPUT,
        }[self]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One row of the failure table.

    Attributes:
        name: short, for events and for ``QWEN3_REHEARSAL_FAIL``.
        needles: every matching line holds one of these texts.
        pattern: what the line must match besides; None: a needle is enough.
        when: what must be true of the line besides.
        wraps: the line only says that something below failed: any other signature explains more.
        waits: the line says that a rank waited in vain for another one, whose own error comes before it where it has one.
        example: the line or lines as they are printed.
    """

    name: str
    needles: tuple[str, ...]
    cause: str
    remedy: str
    fault: Fault
    example: str
    pattern: re.Pattern[str] | None = None
    when: Callable[[str], bool] | None = None
    wraps: bool = False
    waits: bool = False

    def matches(self, line: str) -> bool:
        """Whether a line that holds a needle is one of this row's."""
        return (self.pattern is None or self.pattern.search(line) is not None) and (self.when is None or self.when(line))
