"""What became of each record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

_EXAMPLES = 5
_EXCERPT = 160  # characters


class Tally(BaseModel):
    """How many records, and the first few of them.

    Attributes:
        rows: count from 0 through all input files in their order, unreadable records included.
        examples: how these records begin.
        asked_for: dropped because a flag says so, or because there is nothing in it: no loss.
    """

    count: int = 0
    rows: list[int] = []
    examples: list[str] = []
    asked_for: bool = False

    def add(self, row: int, record: object) -> None:
        self.count += 1
        if len(self.rows) < _EXAMPLES:
            self.rows.append(row)
            self.examples.append(_excerpt(record))

    def join(self, other: Tally, first_row: int) -> None:
        self.count += other.count
        room = _EXAMPLES - len(self.rows)
        self.rows += [first_row + row for row in other.rows[:room]]
        self.examples += other.examples[:room]


class Example(BaseModel):
    """One record as it is trained: its text in parts, the trained ones said to be so."""

    row: int
    parts: list[tuple[bool, str]]
    cut: bool = False

    def __str__(self) -> str:
        text = "".join(f"⟦{part}⟧" if trained else part for trained, part in self.parts)
        return text + (" … (cut here)" if self.cut else "")


class Ledger(BaseModel):
    """The account of a run, or of a part of one.

    Attributes:
        sequences: of the data set; packing puts several records into one.
        tokens, trainable_tokens: of the records written, padding not counted; in pre-training every token is trained.
        truncated: records cut to fit into ``--seq-length``.
        lengths: upper bound (a power of two) -> records written with at most that many tokens, and more than the bound before.
        dropped, notes: by reason; a noted record is written all the same.
        warnings: about the data set as a whole.
        columns: of each input file, as far as they were seen.
    """

    records: int = 0
    written: int = 0
    sequences: int = 0
    tokens: int = 0
    trainable_tokens: int = 0
    truncated: int = 0
    longest: int = 0
    lengths: dict[int, int] = {}
    dropped: dict[str, Tally] = {}
    notes: dict[str, Tally] = {}
    warnings: list[str] = []
    columns: dict[str, list[str]] = {}
    example: Example | None = None

    def drop(self, row: int, reason: str, record: object, *, asked_for: bool = False) -> None:
        self.dropped.setdefault(reason, Tally(asked_for=asked_for)).add(row, record)

    def note(self, row: int, text: str, record: object) -> None:
        self.notes.setdefault(text, Tally()).add(row, record)

    def write(self, lengths: list[int], *, trainable: int) -> None:
        """Records of these many tokens are written."""
        self.written += len(lengths)
        self.tokens += sum(lengths)
        self.trainable_tokens += trainable
        self.longest = max(self.longest, *lengths, 0)
        for length in lengths:
            bound = 1 << max(length - 1, 0).bit_length()
            self.lengths[bound] = self.lengths.get(bound, 0) + 1

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def see(self, file: str, columns: Iterable[str]) -> None:
        self.columns[file] = list(dict.fromkeys([*self.columns.get(file, ()), *columns]))

    def join(self, other: Ledger, *, first_row: int = 0) -> None:
        """Take over what happened to later records; ``first_row`` is added to the other's row numbers."""
        for name in ("records", "written", "sequences", "tokens", "trainable_tokens", "truncated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest)
        for bound, count in other.lengths.items():
            self.lengths[bound] = self.lengths.get(bound, 0) + count
        for mine, others in ((self.dropped, other.dropped), (self.notes, other.notes)):
            for text, tally in others.items():
                mine.setdefault(text, Tally(asked_for=tally.asked_for)).join(tally, first_row)
        for warning in other.warnings:
            self.warn(warning)
        for file, columns in other.columns.items():
            self.see(file, columns)
        if self.example is None and other.example is not None:
            self.example = other.example.model_copy(update={"row": first_row + other.example.row})

    @property
    def lost(self) -> int:
        """Records dropped without having been asked to."""
        return sum(tally.count for tally in self.dropped.values() if not tally.asked_for)

    @property
    def metrics(self) -> dict[str, int]:
        return {
            "records": self.records, "written": self.written, "dropped": self.records - self.written, "truncated": self.truncated,
            "sequences": self.sequences, "tokens": self.tokens, "trainable_tokens": self.trainable_tokens,
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """The content of ``ledger.json``."""
        return {
            **self.metrics,
            "longest": self.longest,
            "lengths": {str(bound): self.lengths[bound] for bound in sorted(self.lengths)},
            "dropped_by_reason": {reason: tally.model_dump() for reason, tally in self.dropped.items()},
            "notes": {text: tally.model_dump(exclude={"asked_for"}) for text, tally in self.notes.items()},
            "warnings": self.warnings,
            "columns": self.columns,
            "example": None if self.example is None else {
                "row": self.example.row,
                "text": str(self.example),
                "parts": [{"trained": trained, "text": text} for trained, text in self.example.parts],
            },
        }  # fmt: skip

    def table(self) -> str:
        """For the screen."""
        lines = [f"{name.replace('_', ' '):<18}{value:>14,}" for name, value in self.metrics.items()]
        for title, tallies in (("dropped", self.dropped), ("noted", self.notes)):
            for reason, tally in tallies.items():
                lines.append(f"  {title}: {reason}: {tally.count:,}{' (asked for)' if tally.asked_for else ''}")
                lines += [f"    row {row}: {text}" for row, text in zip(tally.rows, tally.examples, strict=True)]
        most = max(self.lengths.values(), default=1)
        for bound in sorted(self.lengths):
            count = self.lengths[bound]
            lines.append(f"  up to {bound:>9,} tokens {count:>12,} {'█' * max(1, round(30 * count / most))}")
        if self.example is not None:
            lines.append(f"  row {self.example.row} as it is trained (⟦trained⟧):\n{self.example}")
        return "\n".join(lines)


def _excerpt(record: object) -> str:
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False, default=str)
    shown = text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"
    return shown.encode("utf-8", "backslashreplace").decode()  # half characters exist in JSON, not in UTF-8
