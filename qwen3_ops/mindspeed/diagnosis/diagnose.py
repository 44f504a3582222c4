"""From the lines of all ranks and nodes to the one error that came first."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from dataclasses import dataclass, field

from qwen3_ops.errors import ExitCode
from qwen3_ops.mindspeed.diagnosis.signature import Fault, Signature
from qwen3_ops.mindspeed.diagnosis.table import BY_NAME, signature_of

_LONGEST = 8192  # characters of a line that are looked at
_BEFORE = 5  # lines kept before the error
_RANK = re.compile(r"\[rank\s?(\d{1,6})\]|RankID: ?(\d{1,6})|\[default(\d{1,6})\]:|^\s*rank\s+: (\d{1,6}) \(", re.IGNORECASE)
_TIME = re.compile(r"(?<!\d)(\d{4}-\d\d-\d\d)[ T_-](\d\d:\d\d:\d\d)((?:[.,]\d{3})?)")
_RAISED = re.compile(
    r"^(?:\[\w+\]:)?\s*((?:[A-Za-z_][\w]*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Timeout|Failure)\b|KeyboardInterrupt)(?:: (.*))?$"
)
_TRACEBACK = "Traceback (most recent call last):"
_NOT_CAUSES = ("ChildFailedError", "SignalException", "KeyboardInterrupt", "SystemExit")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A line that matches a signature.

    Attributes:
        printed_at: the line's own time, ``YYYY-MM-DD hh:mm:ss``; None where neither it nor a line just before has one.
        order: of the lines of all sources, as they arrived.
    """

    signature: Signature
    line: str
    source: str
    rank: int | None
    printed_at: str | None
    order: int
    before: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why a run failed.

    Attributes:
        name: of the signature; ``unclassified`` for an exception that the table does not know.
        fault: None where it is not known; such a run is retried.
        code: exit status where another host decided it.
        lines: the error as it was printed, with what came before.
    """

    name: str
    cause: str
    remedy: str
    fault: Fault | None
    source: str = ""
    rank: int | None = None
    printed_at: str | None = None
    lines: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    code: ExitCode | None = None

    @property
    def exit_code(self) -> ExitCode:
        if self.code is not None:
            return self.code
        return ExitCode.UNEXPECTED if self.fault is None else self.fault.exit_code

    @property
    def retried(self) -> bool:
        return self.exit_code.retryable

    @classmethod
    def of(cls, name: str, *, lines: tuple[str, ...] = (), source: str = "") -> Diagnosis:
        """A row of the table that something else than a line told."""
        row = BY_NAME[name]
        return cls(name=row.name, cause=row.cause, remedy=row.remedy, fault=row.fault, lines=lines, source=source)


@dataclass(frozen=True, kw_only=True)
class Raised:
    """An exception that the table does not know."""

    line: str
    source: str
    rank: int | None
    order: int
    before: tuple[str, ...]

    def unclassified(self) -> Diagnosis:
        return Diagnosis(
            name="unclassified",
            cause=f"an exception that the failure table does not know: {self.line.strip()[:300]}",
            remedy="Read the traceback in the engine's log.",
            fault=None,
            source=self.source,
            rank=self.rank,
            lines=(*self.before, self.line),
        )


@dataclass(kw_only=True)
class Diagnoser:
    """Looks at every line of a run once; of each signature and rank the first line is kept."""

    evidence: list[Evidence] = field(default_factory=list)
    _order: int = 0
    _seen: set[tuple[str, str, int | None]] = field(default_factory=set)
    _recent: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=_BEFORE)))
    _in_traceback: set[str] = field(default_factory=set)
    _raised: Raised | None = None

    def feed(self, line: str, *, source: str = "") -> None:
        line = line[:_LONGEST]
        self._order += 1
        recent = self._recent[source]
        row = signature_of(line)
        if row is not None:
            self._keep(row, line, source=source, before=tuple(recent))
        elif _TRACEBACK in line:
            self._in_traceback.add(source)
        elif source in self._in_traceback:
            self._follow_traceback(line, source=source, before=tuple(recent))
        recent.append(line)

    def conclude(self) -> Diagnosis | None:
        """The earliest error that explains more than that something else failed; None where nothing was wrong."""
        ordered = _earliest_first(self.evidence)
        first = next((item for item in ordered if not item.signature.wraps), None) or next(iter(ordered), None)
        raised = self._raised
        if first is None or (first.signature.wraps and raised is not None and raised.order < first.order):
            return None if raised is None else raised.unclassified()
        row = first.signature
        return Diagnosis(
            name=row.name,
            cause=row.cause,
            remedy=row.remedy,
            fault=row.fault,
            source=first.source,
            rank=first.rank,
            printed_at=first.printed_at,
            lines=(*first.before, first.line),
            also=tuple(dict.fromkeys(item.signature.name for item in ordered if item.signature.name != row.name)),
        )

    def _keep(self, row: Signature, line: str, *, source: str, before: tuple[str, ...]) -> None:
        rank = rank_of(line)
        if (row.name, source, rank) in self._seen:
            return
        self._seen.add((row.name, source, rank))
        printed_at = next((stamp for text in (line, *reversed(before)) if (stamp := _time_of(text))), None)
        self.evidence.append(
            Evidence(signature=row, line=line, source=source, rank=rank, printed_at=printed_at, order=self._order, before=before)
        )

    def _follow_traceback(self, line: str, *, source: str, before: tuple[str, ...]) -> None:
        """The first exception that ends a traceback and that no signature knows."""
        if raised := _RAISED.match(line):
            self._in_traceback.discard(source)
            if self._raised is None and raised[1].rpartition(".")[2] not in _NOT_CAUSES:
                self._raised = Raised(line=line, source=source, rank=rank_of(line), order=self._order, before=before)


def rank_of(line: str) -> int | None:
    """The global rank that a line names itself; None where it names none."""
    match = _RANK.search(line)
    return None if match is None else int(next(group for group in match.groups() if group is not None))


def _time_of(line: str) -> str | None:
    """``YYYY-MM-DD hh:mm:ss[.mmm]``, of whatever clock the line was printed by."""
    match = _TIME.search(line) if ":" in line else None
    return None if match is None else f"{match[1]} {match[2]}{match[3].replace(',', '.')}"


def _earliest_first(evidence: list[Evidence]) -> list[Evidence]:
    """As the lines arrived; logs that are read one after the other by the times in their lines.

    Where such logs name no times, a rank that waited in vain comes after one with an error of its own.
    """
    if len({item.source for item in evidence}) <= 1:
        return sorted(evidence, key=lambda item: item.order)
    if all(item.printed_at is not None for item in evidence):
        return sorted(evidence, key=lambda item: (item.printed_at or "", item.order))
    return sorted(evidence, key=lambda item: (item.signature.waits, item.order))
