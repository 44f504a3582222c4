from __future__ import annotations

import os
import signal
import threading

import pytest

from qwen3_ops.errors import BadInput, Interrupted
from qwen3_ops.mindspeed.login_env import LOGIN_SHELL, login_environment
from qwen3_ops.procfs import in_session
from waiting import wait_for

BASHRC = """
case $- in *i*) ;; *) return;; esac   # as distributions write it
echo "conda greets"
export CANN="two
lines" PATH=/conda/bin:$PATH
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".bashrc").write_text(BASHRC)
    (tmp_path / ".profile").write_text(". ~/.bashrc\n")
    return {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "MINE": "kept"}


def test_what_a_person_gets_at_login_is_taken_over(home):
    found = login_environment(home)
    assert (found["CANN"], found["MINE"]) == ("two\nlines", "kept")
    assert found["PATH"].startswith("/conda/bin:")
    assert "PWD" not in found


def test_no_shell_is_run_where_none_is_named(home):
    assert login_environment({**home, LOGIN_SHELL: ""}) == {**home, LOGIN_SHELL: ""}


def test_a_shell_that_fails_or_hangs_is_told(home, tmp_path):
    (tmp_path / ".profile").write_text("echo broken conda; exit 1\n")
    with pytest.raises(BadInput, match=r"left no environment: (.|\n)*broken conda"):
        login_environment(home)
    (tmp_path / ".profile").write_text("sleep 60\n")
    with pytest.raises(BadInput, match="does not end"):
        login_environment(home, seconds=0.5)


def test_a_shell_that_is_not_there_is_told(home):
    with pytest.raises(BadInput, match=f"can not be started: .*/bin/none.*{LOGIN_SHELL}"):
        login_environment({**home, LOGIN_SHELL: "/bin/none"})


def test_a_stage_that_is_stopped_meanwhile_leaves_no_shell(home, tmp_path):
    (tmp_path / ".profile").write_text(f"echo $$ >{tmp_path}/pid; sleep 60\n")

    def stop(number, frame):
        raise Interrupted("stopped")

    def send():
        wait_for("the shell", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), seconds=30)
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, stop)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Interrupted):
            login_environment(home)
    finally:
        signal.signal(signal.SIGTERM, previous)
        sender.join()
    assert not in_session(int((tmp_path / "pid").read_text()))
