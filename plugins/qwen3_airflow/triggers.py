"""What the triggerer does for a deferred job: look, tell the log, say when it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from qwen3_airflow.lines import Lines, tell
from qwen3_airflow.runtimes import PATIENCE, get_runtime
from qwen3_airflow.runtimes.base import CHUNK, Ended, Handle, NpusBusy, RuntimeUnavailable, read_json
from qwen3_ops.artifacts import write_atomically

if TYPE_CHECKING:
    from qwen3_airflow.runtimes.docker import DockerRuntime

FOLLOWED = "followed.json"
"""Up to where a triggerer has told the log, for the one that takes over after it."""

_LINES_AT_ONCE = 500  # told before other triggers get their turn
_PIECES_AT_ONCE = 4
_SETTLE_SECONDS = 10.0  # until a line that was told is in a file: a triggerer's parts pass it on first
_NPU_PERIOD = 10.0  # seconds between two looks for free NPUs


class _EngineTrigger(BaseTrigger):
    """Asks a Docker Engine, in a thread, and bears with its absences."""

    def __init__(self, *, ascend_conn_id: str) -> None:
        super().__init__()
        self.ascend_conn_id = ascend_conn_id
        self._runtime: DockerRuntime | None = None
        self._away_since: float | None = None

    async def _ask(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """A verb of the runtime. Raises RuntimeUnavailable at once when the engine is away."""
        if self._runtime is None:
            self._runtime = await _in_thread(get_runtime, "docker", ascend_conn_id=self.ascend_conn_id, patience=0.0)
        return await _in_thread(getattr(self._runtime, verb), *args, **kwargs)

    async def cleanup(self) -> None:
        """Close the connection: by ssh it is a thread here and a process there, and a triggerer lives for months."""
        if self._runtime is not None:
            await _in_thread(self._runtime.engine.close)

    def _gave_up(self, absence: RuntimeUnavailable) -> bool:
        """Whether the engine has been away for longer than our patience."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            self.log.warning("%s; asking again for up to %d s", absence, PATIENCE)
        return now - self._away_since > PATIENCE


class JobTrigger(_EngineTrigger):
    """Fires ``{"handle", "offset"}`` when the job has ended, ``{"error"}`` when its engine stays away.

    Args:
        handle: ``Handle.to_json()``.
        offset: bytes of ``stage.log`` that were told before.
        poll_interval: seconds between two looks.
        stop_grace: seconds that the job may take to save when a person ends the task.
    """

    def __init__(self, *, ascend_conn_id: str, handle: dict[str, Any], offset: int, poll_interval: float, stop_grace: float) -> None:
        super().__init__(ascend_conn_id=ascend_conn_id)
        self.handle, self.offset, self.poll_interval, self.stop_grace = handle, offset, poll_interval, stop_grace

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.JobTrigger", {
            "ascend_conn_id": self.ascend_conn_id,
            "handle": self.handle,
            "offset": self.offset,
            "poll_interval": self.poll_interval,
            "stop_grace": self.stop_grace,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        handle = Handle.from_json(self.handle)
        offset = max(self.offset, await _in_thread(_followed, handle))
        unsettled: deque[tuple[float, int]] = deque()
        while True:
            try:
                ended: Ended | None = await self._ask("poll", handle)
                self._away_since = None
            except RuntimeUnavailable as absence:
                ended = None
                if self._gave_up(absence):
                    yield TriggerEvent({"error": f"{absence}; the job may still run, the next try will look for it"})
                    return
            told = await self._tell(handle, offset)
            if ended is not None:
                yield TriggerEvent({"handle": self.handle, "offset": told})
                return
            if told != offset:
                unsettled.append((time.monotonic(), told))
                offset = told
            await self._keep_settled(handle, unsettled)
            await asyncio.sleep(self.poll_interval)

    async def on_kill(self) -> None:
        handle = Handle.from_json(self.handle)
        self.log.warning("Stopping %s, which has %.0f s to save its work", handle, self.stop_grace)
        await self._ask("stop", handle, grace=self.stop_grace)

    async def _tell(self, handle: Handle, offset: int) -> int:
        """Tell some of the log's whole lines; the rest is for the next look, or for the worker at the end."""
        for _ in range(_PIECES_AT_ONCE if self._runtime is not None else 0):
            piece: bytes = await self._ask("logs", handle, offset)
            whole = piece[: piece.rfind(b"\n") + 1]
            if not whole and len(piece) >= CHUNK:  # no end of a line in sight: told as it is, or nothing after it ever would be
                whole = piece
            cut = Lines()
            lines = cut.feed(whole) + cut.finish()
            for at in range(0, len(lines), _LINES_AT_ONCE):
                tell(self.log, lines[at : at + _LINES_AT_ONCE])
                await asyncio.sleep(0)
            offset += len(whole)
            if not whole:
                break
        return offset

    async def _keep_settled(self, handle: Handle, unsettled: deque[tuple[float, int]]) -> None:
        """Note how far the log was told for good; a triggerer that takes over repeats the last seconds, it never leaves out."""
        settled = None
        while unsettled and time.monotonic() - unsettled[0][0] >= _SETTLE_SECONDS:
            _, settled = unsettled.popleft()
        if settled is not None:
            record = json.dumps({"attempt": handle.attempt, "offset": settled})
            try:
                await _in_thread(write_atomically, handle.job_folder / FOLLOWED, record)
            except OSError as error:  # a full disk is the job's to report; here it only means that more lines are told again
                self.log.warning("How far the log was told can not be noted: %s", error)


class NpuTrigger(_EngineTrigger):
    """Fires when ``npus`` devices of the host are free."""

    def __init__(self, *, ascend_conn_id: str, npus: int) -> None:
        super().__init__(ascend_conn_id=ascend_conn_id)
        self.npus = npus

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.NpuTrigger", {"ascend_conn_id": self.ascend_conn_id, "npus": self.npus}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        told = ""
        while True:
            try:
                await self._ask("require_npus", self.npus)
            except NpusBusy as busy:
                self._away_since = None
                if str(busy) != told:
                    told = str(busy)
                    self.log.info("Waiting: %s", told)
            except RuntimeUnavailable as absence:
                if self._gave_up(absence):  # the worker tells it better
                    break
            else:
                break
            await asyncio.sleep(_NPU_PERIOD)
        yield TriggerEvent({"npus": self.npus})


def _followed(handle: Handle) -> int:
    record = read_json(handle.job_folder / FOLLOWED)
    return int(record["offset"]) if record is not None and record["attempt"] == handle.attempt else 0


async def _in_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
    # Not asgiref's sync_to_async: it drops the message of a cancellation, by which the triggerer knows that a person
    # ended the task and that on_kill is due.
    return await asyncio.to_thread(function, *args, **kwargs)
