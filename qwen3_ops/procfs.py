"""Processes as ``/proc`` shows them.

A pid alone names no process: the number is given out again. With its start time and the
machine's boot id it does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
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
    parent: int
    group: int
    session: int
    start_ticks: int


def identify(pid: int) -> Identity | None:
    stat = _read_stat(pid)
    return None if stat is None else Identity(pid=pid, start_ticks=stat.start_ticks, boot_id=boot_id())


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def with_variable(name: str, value: str) -> set[Identity]:
    """Living processes of this user that were started with the environment variable ``name=value``.

    One that gave itself another title may have lost it from sight: see ``in_session``.
    """
    wanted = f"{name}={value}".encode()

    def carries(pid: int) -> bool:
        with contextlib.suppress(*_GONE):
            return wanted in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        return False

    return {process for process in _living() if carries(process.pid)}


def in_session(leader: int) -> set[Identity]:
    """Living processes of the session that the process ``leader`` opened, whether or not it still lives."""
    return _with_stat(lambda stat: stat.session == leader)


def in_group(leader: int) -> set[Identity]:
    """Living processes of the process group that ``leader`` opened in this process's own session, whether or not it still lives."""
    session = os.getsid(0)
    return _with_stat(lambda stat: (stat.group, stat.session) == (leader, session))


def children(parent: int) -> set[Identity]:
    """Living processes that ``parent`` started itself."""
    return _with_stat(lambda stat: stat.parent == parent)


def is_session_leader(process: Identity) -> bool:
    stat = _read_stat(process.pid)
    return stat is not None and stat.session == process.pid


def _living() -> Iterator[Identity]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            process = identify(int(entry.name))
            if process is not None and process.is_alive():
                yield process


def _with_stat(fits: Callable[[_Stat], bool]) -> set[Identity]:
    return {process for process in _living() if (stat := _read_stat(process.pid)) is not None and fits(stat)}


def _read_stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except _GONE:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name in parentheses may hold anything
    return _Stat(state=fields[0], parent=int(fields[1]), group=int(fields[2]), session=int(fields[3]), start_ticks=int(fields[19]))
