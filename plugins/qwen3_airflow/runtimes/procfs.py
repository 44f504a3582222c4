"""Processes as ``/proc`` shows them.

A pid alone names no process: the number is given out again. With its start time and the
machine's boot id it does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One process, for all time: ``start_ticks`` counts clock ticks since the boot ``boot_id``."""

    pid: int
    start_ticks: int
    boot_id: str

    def is_alive(self) -> bool:
        """Whether this very process still runs; one that only waits to be reaped does not."""
        if self.boot_id != boot_id():
            return False
        stat = _read_stat(self.pid)
        return stat is not None and stat.start_ticks == self.start_ticks and stat.state not in "ZX"


@dataclass(frozen=True, kw_only=True)
class _Stat:
    state: str
    session: int
    start_ticks: int


def identify(pid: int) -> Identity | None:
    stat = _read_stat(pid)
    return None if stat is None else Identity(pid=pid, start_ticks=stat.start_ticks, boot_id=boot_id())


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def with_variable(name: str, value: str) -> Iterator[Identity]:
    """Living processes of this user that were started with the environment variable ``name=value``."""
    wanted = f"{name}={value}".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(*_GONE):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found = identify(int(entry.name))
                if found is not None and found.is_alive():
                    yield found


def is_session_leader(process: Identity) -> bool:
    stat = _read_stat(process.pid)
    return stat is not None and stat.session == process.pid


def _read_stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except _GONE:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name in parentheses may hold anything
    return _Stat(state=fields[0], session=int(fields[3]), start_ticks=int(fields[19]))
