"""What became of each record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_EXAMPLES = 5


@dataclass
class Tally:
    """How many records, and the row numbers of the first few.

    Rows count from 0 through all input files in their order, unreadable ones included.
    """

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.count += 1
        if len(self.rows) < _EXAMPLES:
            self.rows.append(row)


def _tallies() -> defaultdict[str, Tally]:
    return defaultdict(Tally)


@dataclass
class Ledger:
    """The account of one run.

    Attributes:
        about: what the data was made with and from.
        sequences: of the data set; packing puts several records into one.
        tokens, trainable_tokens: of the records written, padding not counted; in pre-training every token is trained.
        dropped, notes: by reason; a noted record is written all the same.
        warnings: about the data set as a whole.
    """

    about: Mapping[str, Any]
    records: int = 0
    written: int = 0
    sequences: int = 0
    tokens: int = 0
    trainable_tokens: int = 0
    dropped: defaultdict[str, Tally] = field(default_factory=_tallies)
    notes: defaultdict[str, Tally] = field(default_factory=_tallies)
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    @property
    def metrics(self) -> dict[str, int]:
        return {
            "records": self.records, "written": self.written, "dropped": self.records - self.written,
            "sequences": self.sequences, "tokens": self.tokens, "trainable_tokens": self.trainable_tokens,
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.metrics,
            "dropped_by_reason": {reason: vars(tally) for reason, tally in self.dropped.items()},
            "notes": {text: vars(tally) for text, tally in self.notes.items()},
            "warnings": self.warnings,
            **self.about,
        }

    def table(self) -> str:
        lines = [f"{name.replace('_', ' '):<18}{value:>14,}" for name, value in self.metrics.items()]
        for title, tallies in (("dropped", self.dropped), ("noted", self.notes)):
            lines += [f"  {title}: {reason}: {tally.count:,} (rows {', '.join(map(str, tally.rows))})" for reason, tally in tallies.items()]
        return "\n".join(lines)
