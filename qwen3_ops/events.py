"""What a running stage tells: JSON lines for programs, short lines for people."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

EVENTS_VARIABLE = "QWEN3_OPS_EVENTS"
"""Environment variable naming the events.jsonl of a verb that is started by hand."""

_EVENT_PERIOD = 0.5  # seconds between two progress events of one bar
_LINE_PERIOD = 5.0  # seconds between two progress lines of one bar


class Events:
    """Sink for one stage's events.

    Each event is one JSON object a line with ``time`` (UTC, ISO 8601), ``event``
    (``log``, ``progress``, ``metric``, ``diagnosis``) and the event's own fields.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torn = _ends_torn(path)
            self._file = path.open("a", encoding="utf-8", buffering=1)
            if torn:
                self._file.write("\n")

    @classmethod
    def from_environment(cls) -> Events:
        """Of the processes that torchrun starts (``RANK``) only the first writes."""
        name = os.environ.get(EVENTS_VARIABLE)
        return cls(Path(name) if name and int(os.environ.get("RANK", "0")) == 0 else None)

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event to the file only."""
        if self._file is not None:
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            self._file.write(json.dumps({"time": now, "event": event, **fields}, ensure_ascii=False, default=str) + "\n")

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """A line for people (stdout, stderr from ``warning`` on) that programs see too."""
        stream = sys.stderr if level in ("warning", "error") else sys.stdout
        prefix = "" if level == "info" else f"{level}: "
        print(f"{prefix}{message}", file=stream, flush=True)
        self.emit("log", level=level, message=message, **fields)

    def warning(self, message: str, **fields: Any) -> None:
        self.log(message, level="warning", **fields)

    def metric(self, *, step: int | None = None, **values: float) -> None:
        self.emit("metric", step=step, **values)

    @contextmanager
    def progress(self, what: str, *, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
        """Progress of ``total`` units; ``done`` counts those a resumed stage need not repeat."""
        bar = Progress(self, what=what, total=total, unit=unit, done=done)
        yield bar
        bar.finish()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Progress:
    """Counts units and tells the rate and the time left, at a bounded rate of lines."""

    def __init__(self, events: Events, *, what: str, total: int, unit: str, done: int) -> None:
        self._events, self.what, self.total, self.unit = events, what, total, unit
        self.done = self._first = done
        self._started = self._event_at = self._line_at = time.monotonic()

    def advance(self, units: int = 1, **values: Any) -> None:
        self.done += units
        now = time.monotonic()
        if now - self._event_at >= _EVENT_PERIOD:
            self._event_at = now
            self._events.emit("progress", **self._state(now), **values)
        if now - self._line_at >= _LINE_PERIOD:
            self._line_at = now
            self._print(now, values)

    def finish(self, **values: Any) -> None:
        now = time.monotonic()
        self._events.emit("progress", **self._state(now), **values)
        if now - self._started >= _LINE_PERIOD:
            self._print(now, values)

    def _state(self, now: float) -> dict[str, Any]:
        elapsed = now - self._started
        rate = (self.done - self._first) / elapsed if elapsed > 0 else 0.0
        eta = (self.total - self.done) / rate if rate > 0 else None
        return {
            "what": self.what, "done": self.done, "total": self.total, "unit": self.unit,
            "per_second": round(rate, 3), "eta_seconds": None if eta is None else round(max(eta, 0.0), 1),
        }  # fmt: skip

    def _print(self, now: float, values: dict[str, Any]) -> None:
        state = self._state(now)
        percent = 100 * self.done / self.total if self.total else 100.0
        eta = "" if state["eta_seconds"] is None else f", {format_seconds(state['eta_seconds'])} left"
        more = "".join(f", {name} {value:.4g}" if isinstance(value, float) else f", {name} {value}" for name, value in values.items())
        print(f"[{percent:3.0f}%] {self.what}: {self.done}/{self.total} {self.unit}{eta}{more}", flush=True)


def format_seconds(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``; ``3700`` -> ``1 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def _ends_torn(path: Path) -> bool:
    """Whether an earlier start was killed in the middle of a line, or found the disk full."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file; lines that were not written to their end are left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(json.JSONDecodeError):
                if line.endswith("\n"):
                    yield json.loads(line)
