"""How ``pandas.read_csv`` gives a column of text back, for the real tool reads its questions by it; pandas itself is not needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isfinite

_MISSING = {
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
}
_TRUTH = {"true": "True", "TRUE": "True", "True": "True", "false": "False", "FALSE": "False", "False": "False"}
_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
_NUMBER = re.compile(r"\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|inf|infinity)\s*", re.IGNORECASE)


def as_pandas_writes(column: Sequence[str]) -> list[str]:
    """The cells after reading and writing: missing ones as ``nan``, a column of nothing but numbers or truth values in Python's way."""
    there = [text for text in column if text not in _MISSING]
    write = _writer(there, complete=len(there) == len(column))
    return ["nan" if text in _MISSING else write(text) for text in column]


def _writer(cells: Sequence[str], *, complete: bool) -> Callable[[str], str]:
    if all(text in _TRUTH for text in cells):
        return _TRUTH.__getitem__
    if all(map(_WHOLE.fullmatch, cells)):
        return (lambda text: str(int(text))) if complete else (lambda text: str(float(int(text))))  # whole numbers have no nan
    if all(_NUMBER.fullmatch(text) and ("i" in text.lower() or isfinite(float(text))) for text in cells):  # 1e400 stays text
        return lambda text: str(float(text))
    return str
