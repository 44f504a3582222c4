"""What a container starts, here without one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from qwen3_ops import attempt as attempts


@pytest.fixture
def attempt(tmp_path):
    """Runs a command as a container would; its status, the log, the record."""

    def run(*argv: str, scripts: tuple[str, ...] = ()) -> tuple[int, str, dict]:
        sourced = [token for script in scripts for token in ("--source", script)]
        done = subprocess.run([sys.executable, "-m", "qwen3_ops.attempt", *sourced, str(tmp_path), "a1", "--", *argv], check=False)
        return done.returncode, (tmp_path / "stage.log").read_text(), json.loads((tmp_path / "attempt.json").read_text())

    return run


def test_a_script_that_is_not_there_is_told_in_the_log(attempt):
    code, log, record = attempt("true", scripts=("/no/ascend-toolkit/set_env.sh",))
    assert "/no/ascend-toolkit/set_env.sh" in log
    assert "error: " in log
    assert (code, record["exit_code"]) == (126, 126)


def test_a_script_that_fails_without_a_word_is_named(attempt, tmp_path):
    script = tmp_path / "set_env.sh"
    script.write_text("echo noise\nfalse\n")
    assert attempt("true", scripts=(str(script),))[1].startswith(f"noise\n{script}: status 1\nerror: ")


def test_a_script_that_goes_well_is_not_in_the_log(attempt, tmp_path):
    script = tmp_path / "set_env.sh"
    script.write_text("export SHOWN=yes\necho noise\n")
    code, log, record = attempt("sh", "-c", "echo $SHOWN; exit 3", scripts=(str(script),))
    assert (code, log, record["exit_code"]) == (3, "yes\n", 3)


def test_the_log_is_whole_when_the_record_tells_of_the_end(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(attempts._Record, "write", lambda self, **ended: seen.append((tmp_path / "stage.log").read_text()))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    attempts.run(tmp_path, attempts._Record(tmp_path, "a1"), ["/no/program"])
    assert "/no/program can not be started" in seen[-1]


def test_a_signal_just_after_the_start_is_handed_on_once(tmp_path, monkeypatch):
    handlers, sent = {}, []
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(subprocess.Popen, "send_signal", lambda self, number: sent.append(number))
    monkeypatch.setattr(
        attempts._Record, "write", lambda self, child=None, **ended: child and handlers[signal.SIGTERM](signal.SIGTERM, None)
    )
    attempts.run(tmp_path, attempts._Record(tmp_path, "a1"), ["true"])
    assert sent == [signal.SIGTERM]
