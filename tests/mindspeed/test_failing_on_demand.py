"""Every way in which the rehearsal can fail, through the lines it prints and the way it ends, to the stage's end.

tests/e2e/test_rehearsal.py does some of them under the real torchrun.
"""

from __future__ import annotations

import os
import time

import pytest

from qwen3_ops.errors import ExitCode
from qwen3_ops.events import Events
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnoser
from qwen3_ops.mindspeed.diagnosis.signature import Fault
from qwen3_ops.mindspeed.diagnosis.table import BY_NAME, SIGNATURES
from qwen3_ops.mindspeed.judge import EngineFailed, judge
from qwen3_ops.mindspeed.log_lines import parse_line
from qwen3_ops.mindspeed.observation import Observation
from qwen3_ops.mindspeed.supervisor import Ended
from qwen3_ops.mindspeed.watchdog import not_a_number
from rehearsal.failing import FAIL, ONCE, Failure


class Exited(BaseException):
    def __init__(self, code):
        self.code = code


@pytest.fixture
def happen(monkeypatch, capsys):
    def leave(code):
        raise Exited(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(os, "kill", lambda pid, number: leave(-number))

    def start(name, rank=3):
        monkeypatch.setenv(FAIL, f"{name}@2:{rank}")
        code = 0
        try:
            Failure.wanted().happen(rank)
        except Exited as exited:
            code = exited.code
        return capsys.readouterr().out.splitlines(), code

    return start


@pytest.mark.parametrize("name", [row.name for row in SIGNATURES])
def test_each_failure_ends_with_its_class_remedy_and_decision(name, happen, request_of, capsys):
    lines, code = happen(name)
    seen, diagnoser, killed_for = Observation(), Diagnoser(), None
    for line in lines:
        for event in parse_line(line):
            seen.add(event)
            killed_for = killed_for or not_a_number(event, line)
        diagnoser.feed(line)
    codes = [1] if code < 0 else [code]  # torchrun's own, when a worker is killed
    if code < 0:
        diagnoser.feed(f"  exitcode  : {code} (pid: 77)")
    ended = Ended(seen=seen, diagnoser=diagnoser, exit_codes=codes, stopped_by=None, killed_for=killed_for, failed="engine")
    with pytest.raises(EngineFailed) as raised:
        judge(request_of(), ended, Events())
    row = BY_NAME[name]
    assert (raised.value.diagnosis.name, raised.value.diagnosis.fault) == (name, row.fault)
    assert raised.value.exit_code.retryable == (row.fault is Fault.INFRASTRUCTURE)
    assert row.remedy in capsys.readouterr().out


def test_a_rank_that_dies_without_a_word_is_retried(happen, request_of):
    lines, code = happen("unexplained")
    assert (lines, code) == ([], 1)
    ended = Ended(seen=Observation(), diagnoser=Diagnoser(), exit_codes=[1], stopped_by=None, killed_for=None, failed="engine")
    with pytest.raises(EngineFailed) as raised:
        judge(request_of(), ended, Events())
    assert raised.value.exit_code == ExitCode.UNEXPECTED


def test_a_hang_is_silent(happen, monkeypatch):
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    assert happen("no-output") == ([], 0)
    assert naps == [3600]


def test_one_failure_is_enough_where_that_is_asked_for(tmp_path, monkeypatch, happen):
    monkeypatch.setenv(ONCE, str(tmp_path / "failed"))
    happen("nan-loss")
    assert Failure.wanted() is None
    monkeypatch.delenv(ONCE)
    assert Failure.wanted() == Failure(name="nan-loss", iteration=2, rank=3)
