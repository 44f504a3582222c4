"""Failing on demand, in every way of the failure table.

``QWEN3_REHEARSAL_FAIL=NAME@ITERATION[:RANK]``: the signature's example is printed as the real tool would print it, then
the rank ends as it would end. ``NAME`` is a row of ``qwen3-ops diagnose --known`` or one of those below.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from typing import Literal

from rehearsal.world import say

FAIL = "QWEN3_REHEARSAL_FAIL"
ONCE = "QWEN3_REHEARSAL_FAIL_ONCE"
"""Environment variable naming a file: it is made at the first failure, and while it is there nothing fails."""

Ending = Literal["exit 1", "exit 0", "killed", "hang", "go on"]

_ENDINGS: dict[str, Ending] = {
    "checkpoint-missing": "go on",
    "checkpoint-missing-exit": "exit 0",
    "checkpoint-damaged": "exit 0",
    "optimizer-missing": "exit 0",
    "rng-missing": "exit 0",
    "nan-iterations": "go on",
    "host-out-of-memory": "killed",
    "no-output": "hang",
}
_SILENT = ("host-out-of-memory", "no-output", "unexplained")
_ANY_EXCEPTION = re.compile(r"\w+(Error|Exception)\b")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """``rank``: who fails, counted from the end where negative; the computing rank is -1."""

    name: str
    iteration: int
    rank: int

    @classmethod
    def wanted(cls) -> Failure | None:
        text = os.environ.get(FAIL)
        if not text or os.path.exists(os.environ.get(ONCE, "")):  # noqa: PTH110 - an empty name is no file
            return None
        name, _, place = text.partition("@")
        iteration, _, rank = place.partition(":")
        return cls(name=name, iteration=int(iteration or 0), rank=int(rank or 0))

    @property
    def ending(self) -> Ending:
        return _ENDINGS.get(self.name, "exit 1")

    def befall(self, rank: int, *, size: int) -> None:
        """What becomes of one rank when the failure happens; those that end with status 0 end together."""
        if rank == self.rank % size:
            self.happen(rank)
        elif self.ending == "exit 0":
            os._exit(0)

    def happen(self, rank: int) -> None:
        """Print and end; returns only where the real tool goes on."""
        if once := os.environ.get(ONCE):
            with open(once, "a", encoding="utf-8"):  # noqa: PTH123
                pass
        if self.name not in _SILENT:
            self._print(rank)
        if self.ending == "hang":
            time.sleep(3600)
        elif self.ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.ending != "go on":
            sys.stdout.flush()
            os._exit(int(self.ending[-1]))

    def _print(self, rank: int) -> None:
        from qwen3_ops.mindspeed.diagnosis.table import BY_NAME

        example = re.sub(r"\[rank\d+\]", f"[rank{rank}]", BY_NAME[self.name].example)
        if _ANY_EXCEPTION.search(example):
            say(f"[rank{rank}]: Traceback (most recent call last):", f'[rank{rank}]:   File "posttrain_gpt.py", line 1, in <module>')
        say(example)
        if self.ending == "exit 1":
            where = f"(PID:{os.getpid()}, Device:{rank}, RankID:{rank})"
            say(f"[ERROR] {time.strftime('%Y-%m-%d-%H:%M:%S')} {where} ERR99999 UNKNOWN applicaiton exception")
