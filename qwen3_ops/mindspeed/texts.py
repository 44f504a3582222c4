"""The text that ``inference.py`` logs to stderr, block by block."""

from __future__ import annotations

import re
from typing import NamedTuple

_PREFIX = re.compile(r"^(?:\[\w+\]:)?(?:INFO|WARNING|ERROR):[\w.]*:")
_TITLE = re.compile(r"^=+ ([A-Z][\w ]+) =+$")
_TITLES = {
    "Greedy Search": "greedy",
    "Do Sample": "do_sample",
    "Beam Search": "beam_search",
    "Beam Search with sampling": "beam_search_with_sampling",
}
_ELAPSED = re.compile(r"^Elapsed: (\d{1,9}(?:\.\d{1,9})?)s$")
_MOST = 1 << 20  # characters of one answer that are kept


class Text(NamedTuple):
    task: str
    prompt: str
    text: str


class TextReader:
    """Collects what a model wrote: ``You:`` and the prompt, ``MindSpeed-LLM:`` and the answer, until the next log record."""

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self.seconds: float | None = None
        self._task = "greedy"
        self._lines: list[str] | None = None  # of the open block
        self._size = 0

    def feed(self, line: str) -> None:
        prefix = _PREFIX.match(line)
        bare = line[prefix.end() :] if prefix else line
        title = _TITLE.match(bare.strip()) if "= " in bare else None
        if prefix or title:
            self._close()
        if title and title[1] in _TITLES:
            self._task = _TITLES[title[1]]
        elif bare == "You:":
            self._close()
            self._lines, self._size = [], 0
        elif "Elapsed: " in bare and (elapsed := _ELAPSED.match(bare.strip())):
            self._close()
            self.seconds = float(elapsed[1])
        elif self._lines is not None and self._size < _MOST:
            self._lines.append(bare)
            self._size += len(bare)

    def end(self) -> list[Text]:
        self._close()
        return self.texts

    def _close(self) -> None:
        lines, self._lines = self._lines, None
        if lines is None or "MindSpeed-LLM:" not in lines:
            return
        at = lines.index("MindSpeed-LLM:")
        prompt, text = "\n".join(lines[:at]), "\n".join(lines[at + 1 :])
        rule = text.find("\n====================")  # printed without a prefix where logging has another format
        self.texts.append(Text(self._task, prompt.strip("\n"), (text if rule < 0 else text[:rule]).removesuffix("\n")))
