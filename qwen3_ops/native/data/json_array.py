"""A JSON array of objects, one object at a time: a file of any size in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from qwen3_ops.errors import BadInput

_CHUNK = 1 << 20  # characters
_SPACE = " \t\r\n"


def json_array(text: TextIO, path: Path) -> Iterator[Any]:
    """The array's elements.

    Raises:
        BadInput: the text is not one whole JSON array.
    """
    window = _Window(text)
    decoder = json.JSONDecoder()
    window.take("[")
    closed = window.take("]")
    while not closed:
        window.skip_space()
        try:
            element, window.start = decoder.raw_decode(window.text, window.start)
        except ValueError as error:
            if window.grow():
                continue
            raise BadInput("not a whole JSON array", value=error, source=path) from error
        yield element
        closed = window.take("]")
        if not closed and not window.take(","):
            raise BadInput("not a whole JSON array", value="neither , nor ] behind an element", source=path)
    window.skip_space()
    if window.start < len(window.text):
        raise BadInput("text behind the JSON array", value=window.text[window.start : window.start + 80], source=path)


class _Window:
    """The part of the file that is not parsed yet, from ``start`` on in ``text``."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.text, self.start = "", 0

    def grow(self) -> bool:
        """Read on; each time as much as is held, so that a long element costs linear time."""
        more = self._file.read(max(_CHUNK, len(self.text) - self.start))
        self.text, self.start = self.text[self.start :] + more, 0
        return bool(more)

    def skip_space(self) -> None:
        while True:
            while self.start < len(self.text) and self.text[self.start] in _SPACE:
                self.start += 1
            if self.start < len(self.text) or not self.grow():
                return

    def take(self, character: str) -> bool:
        """Step over ``character`` if it comes next."""
        self.skip_space()
        found = self.text[self.start : self.start + 1] == character
        self.start += found
        return found
