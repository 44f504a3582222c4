"""Bytes of a growing log as whole lines."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any


class Lines:
    """Cuts pieces of UTF-8 into lines; of a line redrawn with carriage returns the last state counts."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, piece: bytes) -> list[str]:
        """The lines that ``piece`` completes."""
        *whole, rest = (self._rest + self._decoder.decode(piece)).split("\n")
        self._rest = rest[rest.rstrip("\r").rfind("\r") + 1 :]  # states that were drawn over are not kept
        return [_last_state(line) for line in whole]

    def finish(self) -> list[str]:
        """What came after the last line feed."""
        rest, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        return [_last_state(rest)] if rest else []


def _last_state(line: str) -> str:
    return line.rstrip("\r").rsplit("\r", 1)[-1]


def tell(log: Any, lines: list[str]) -> None:
    """A job's lines as the task's own, its warnings and errors as warnings."""
    for line in lines:
        say: Callable[..., None] = log.warning if line.startswith(("warning: ", "error: ")) else log.info
        say(line)
