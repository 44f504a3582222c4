"""The triggerer's side, without an engine."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from types import SimpleNamespace

import pytest

from qwen3_airflow import triggers
from qwen3_airflow.runtimes.base import Ended, Handle, NpusBusy, RuntimeUnavailable
from qwen3_airflow.triggers import FOLLOWED, JobTrigger, NpuTrigger


@pytest.fixture
def handle(tmp_path) -> Handle:
    return Handle(job_folder=tmp_path, id="c1", name="container c1", log_start=0, attempt="a1")


@pytest.fixture
def job_trigger(monkeypatch, handle):
    def make(runtime, **values) -> JobTrigger:
        monkeypatch.setattr(triggers, "get_runtime", lambda name, **kwargs: runtime)
        whole = {"ascend_conn_id": "c", "handle": handle.to_json(), "offset": 0, "poll_interval": 0.01, "stop_grace": 30.0}
        return JobTrigger(**{**whole, **values})

    return make


def first_event(trigger) -> dict:
    async def run() -> dict:
        async for event in trigger.run():
            return event.payload
        raise AssertionError("no event")

    return asyncio.run(run())


def runtime_with(log: bytes, *polls):
    """Polls are values or exceptions, the last one for ever."""
    left = list(polls)

    def poll(handle):
        value = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(value, Exception):
            raise value
        return value

    return SimpleNamespace(poll=poll, logs=lambda handle, offset: log[offset:])


def test_it_can_be_made_again_from_what_it_serializes(job_trigger):
    path, kwargs = job_trigger(None).serialize()
    assert path == f"{JobTrigger.__module__}.JobTrigger"
    assert JobTrigger(**kwargs).serialize() == (path, kwargs)


def test_it_tells_whole_lines_and_leaves_the_rest_to_the_worker(job_trigger, handle):
    event = first_event(job_trigger(runtime_with(b"one\ntwo\nthr", None, Ended(exit_code=0))))
    assert event == {"handle": handle.to_json(), "offset": len(b"one\ntwo\n")}


def test_an_engine_that_is_away_is_asked_again(job_trigger):
    runtime = runtime_with(b"", RuntimeUnavailable("away"), RuntimeUnavailable("away"), Ended(exit_code=0))
    assert first_event(job_trigger(runtime))["offset"] == 0


def test_an_engine_that_stays_away_ends_the_wait(job_trigger, monkeypatch):
    monkeypatch.setattr(triggers, "PATIENCE", 0.05)
    assert "the next try will look for it" in first_event(job_trigger(runtime_with(b"", RuntimeUnavailable("away"))))["error"]


def test_what_was_told_is_noted_only_after_it_settled(job_trigger, handle, monkeypatch):
    monkeypatch.setattr(triggers, "_SETTLE_SECONDS", 60.0)
    first_event(job_trigger(runtime_with(b"one\n", None, None, Ended(exit_code=0))))
    assert not (handle.job_folder / FOLLOWED).exists()
    monkeypatch.setattr(triggers, "_SETTLE_SECONDS", 0.0)
    first_event(job_trigger(runtime_with(b"one\n", None, None, Ended(exit_code=0))))
    assert '"offset": 4' in (handle.job_folder / FOLLOWED).read_text()


def test_a_cancellation_by_a_person_keeps_its_message_also_amid_a_call(job_trigger):
    """By this message the triggerer knows that on_kill is due."""

    def slow(handle):
        time.sleep(0.3)

    async def cancel() -> tuple:
        task = asyncio.ensure_future(anext(job_trigger(SimpleNamespace(poll=slow, logs=lambda *args: b"")).run()))
        await asyncio.sleep(0.1)
        task.cancel("user-action")
        try:
            await task
        except asyncio.CancelledError as error:
            return error.args
        raise AssertionError("it was not cancelled")

    assert asyncio.run(cancel()) == ("user-action",)


def test_a_line_without_an_end_does_not_hide_what_follows(job_trigger, monkeypatch):
    told = bytearray()
    monkeypatch.setattr(triggers, "tell", lambda log, lines: told.extend("\n".join(lines).encode()))
    log = b"." * 300_000 + b"\nafter it\n"
    piece = 1 << 18
    runtime = runtime_with(log, None, None, Ended(exit_code=0))
    runtime.logs = lambda handle, offset: log[offset : offset + piece]
    assert first_event(job_trigger(runtime))["offset"] == len(log)
    assert told.endswith(b"after it")


def test_no_file_is_read_in_the_loop_of_all_triggers(job_trigger, monkeypatch):
    readers = []
    monkeypatch.setattr(triggers, "_followed", lambda handle: readers.append(threading.current_thread()) or 0)
    first_event(job_trigger(runtime_with(b"", Ended(exit_code=0))))
    assert readers != [threading.main_thread()]


def test_a_full_disk_does_not_end_the_wait(job_trigger, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(triggers, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(triggers, "write_atomically", full)
    assert first_event(job_trigger(runtime_with(b"one\n", None, None, Ended(exit_code=0))))["offset"] == 4


def test_its_connection_to_the_engine_is_closed(job_trigger):
    """One by ssh has a thread and a process of sshd, and a triggerer lives for months."""
    closed = []
    runtime = runtime_with(b"", Ended(exit_code=0))
    runtime.engine = SimpleNamespace(close=lambda: closed.append(True))
    trigger = job_trigger(runtime)
    first_event(trigger)
    asyncio.run(trigger.cleanup())
    assert closed == [True]
    asyncio.run(job_trigger(None).cleanup())  # one that never came to ask


def test_the_patience_of_a_wait_for_npus_counts_from_the_last_answer(monkeypatch):
    answers = [RuntimeUnavailable("away"), NpusBusy("0 are free", wanted=8), RuntimeUnavailable("away"), None]

    def require_npus(count):
        time.sleep(0.1)
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(triggers, "get_runtime", lambda name, **kwargs: SimpleNamespace(require_npus=require_npus))
    monkeypatch.setattr(triggers, "_NPU_PERIOD", 0.01)
    monkeypatch.setattr(triggers, "PATIENCE", 0.15)
    first_event(NpuTrigger(ascend_conn_id="c", npus=8))
    assert answers == [], "an hour of waiting was taken for an hour of absence"


def test_it_waits_for_free_npus(monkeypatch):
    answers = [NpusBusy("0 are free", wanted=8), NpusBusy("0 are free", wanted=8), None]

    def require_npus(count):
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(triggers, "get_runtime", lambda name, **kwargs: SimpleNamespace(require_npus=require_npus))
    monkeypatch.setattr(triggers, "_NPU_PERIOD", 0.01)
    assert first_event(NpuTrigger(ascend_conn_id="c", npus=8)) == {"npus": 8}
    assert answers == []
