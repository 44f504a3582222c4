from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen3_airflow.runtimes.base import Ended, Job
from qwen3_airflow.runtimes.local import JOB_VARIABLE, LocalRuntime
from qwen3_airflow.runtimes.stopper import stop_all
from qwen3_ops.procfs import Identity, identify, with_variable

ROOT = Path(__file__).resolve().parents[3]

SUBMIT_AND_WAIT = """
import sys, time
from pathlib import Path
from qwen3_airflow.runtimes.base import Job
from qwen3_airflow.runtimes.local import LocalRuntime
LocalRuntime().submit(Job(folder=Path(sys.argv[1]), argv=tuple(sys.argv[2:])))
print("submitted", flush=True)
time.sleep(600)
"""


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def wait_until(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def pid_of(folder: Path) -> int:
    return json.loads((folder / "process.json").read_text())["identity"]["pid"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run" / "train_lora"
    yield folder
    stop_all(JOB_VARIABLE, str(folder), grace=0)


@pytest.fixture
def lost_worker(folder):
    """Starts argv from a process that is then killed with SIGKILL, as a worker may be."""

    def start(argv: tuple[str, ...]) -> None:
        worker = subprocess.Popen(
            [sys.executable, "-c", SUBMIT_AND_WAIT, str(folder), *argv],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])},
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"submitted\n"
        worker.kill()
        worker.wait()
        worker.stdout.close()

    return start


def test_output_and_status_of_a_process(folder):
    runtime = LocalRuntime()
    handle = runtime.submit(Job(folder=folder, argv=python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")))
    assert wait_until(lambda: runtime.poll(handle)) == Ended(exit_code=3)
    assert runtime.logs(handle, 0) == b"out\nerr\n"
    assert runtime.logs(handle, 4) == b"err\n"
    assert runtime.find(Job(folder=folder, argv=())) is None


def test_what_the_stage_says_about_its_end_counts(folder):
    runtime = LocalRuntime()
    code = "open('exit.json', 'w').write('{\"exit_code\": 2, \"error\": \"no such column\"}'); raise SystemExit(1)"
    handle = runtime.submit(Job(folder=folder, argv=python(code)))
    assert wait_until(lambda: runtime.poll(handle)) == Ended(exit_code=2, error="no such column")


def test_a_second_attempt_appends_to_the_log_and_forgets_the_first_end(folder):
    runtime = LocalRuntime()
    folder.mkdir(parents=True)
    (folder / "exit.json").write_text('{"exit_code": 75, "error": "disk full"}')
    (folder / "stage.log").write_text("first\n")
    handle = runtime.submit(Job(folder=folder, argv=python("print('second')")))
    assert wait_until(lambda: runtime.poll(handle)) == Ended(exit_code=0)
    assert runtime.logs(handle, handle.log_start) == b"second\n"
    assert (folder / "stage.log").read_text() == "first\nsecond\n"


def test_airflows_settings_and_secrets_stay_with_airflow(folder, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "hidden")
    monkeypatch.setenv("__AIRFLOW_SUPERVISOR_FD", "7")
    monkeypatch.setenv("HTTPS_PROXY", "kept")
    runtime = LocalRuntime()
    handle = runtime.submit(Job(folder=folder, argv=python("import os; print(sorted(os.environ))")))
    wait_until(lambda: runtime.poll(handle))
    log = runtime.logs(handle, 0).decode()
    assert "AIRFLOW_" not in log
    assert "HTTPS_PROXY" in log


def test_a_process_outlives_its_worker_and_is_found_again(folder, lost_worker):
    lost_worker(python("import time, pathlib; print('one'); time.sleep(1.5); print('two'); "
                       "pathlib.Path('exit.json').write_text('{\"exit_code\": 0, \"error\": null}')"))  # fmt: skip
    runtime = LocalRuntime()
    handle = runtime.find(Job(folder=folder, argv=()))
    assert handle is not None
    assert runtime.poll(handle) is None
    assert wait_until(lambda: runtime.poll(handle)) == Ended(exit_code=0)
    assert runtime.logs(handle, handle.log_start) == b"one\ntwo\n"


def test_a_process_is_found_when_its_worker_died_before_noting_it(folder, lost_worker):
    lost_worker(python("import time; time.sleep(600)"))
    pid = pid_of(folder)
    (folder / "process.json").unlink()
    handle = LocalRuntime().find(Job(folder=folder, argv=()))
    assert handle is not None
    assert handle.id == f"process {pid}"


def test_a_process_that_died_without_a_word_has_an_unknown_end(folder, lost_worker):
    lost_worker(python("import time; time.sleep(600)"))
    runtime = LocalRuntime()
    handle = runtime.find(Job(folder=folder, argv=()))
    os.kill(pid_of(folder), signal.SIGKILL)
    assert wait_until(lambda: runtime.poll(handle)) == Ended(exit_code=None)


def test_another_process_with_the_same_pid_is_not_taken_for_ours(folder):
    me = identify(os.getpid())
    folder.mkdir(parents=True)
    for other in (
        Identity(pid=me.pid, start_ticks=me.start_ticks - 1, boot_id=me.boot_id),
        Identity(pid=me.pid, start_ticks=me.start_ticks, boot_id="another boot"),
    ):
        assert not other.is_alive()
        record = {"identity": vars(other), "log_start": 0, "stopping": False}
        (folder / "process.json").write_text(json.dumps(record))
        assert LocalRuntime().find(Job(folder=folder, argv=())) is None
    assert me.is_alive()


SAVES_ON_SIGTERM = """
import signal, sys, time
def save(number, frame):
    time.sleep(0.5); print("saved", flush=True); sys.exit(130)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(600)
"""


def test_stop_lets_a_process_save(folder):
    runtime = LocalRuntime()
    job = Job(folder=folder, argv=python(SAVES_ON_SIGTERM))
    handle = runtime.submit(job)
    wait_until(lambda: runtime.logs(handle, 0))
    runtime.stop(handle, grace=20)
    assert LocalRuntime().find(job).stopping
    assert wait_until(lambda: runtime.poll(handle)) == Ended(exit_code=130)
    assert runtime.logs(handle, 0) == b"ready\nsaved\n"


def test_stop_is_by_force_after_the_grace_also_for_helpers(folder):
    stubborn = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    helper = f"{stubborn} time.sleep(600)"
    runtime = LocalRuntime()
    handle = runtime.submit(
        Job(folder=folder, argv=python(f"{stubborn} subprocess.Popen([sys.executable, '-c', {helper!r}]); print('ready'); time.sleep(600)"))
    )
    wait_until(lambda: runtime.logs(handle, 0))
    assert len(list(with_variable(JOB_VARIABLE, str(folder)))) == 2
    runtime.stop(handle, grace=1)
    assert wait_until(lambda: runtime.poll(handle)) == Ended(exit_code=-signal.SIGKILL)
    wait_until(lambda: not list(with_variable(JOB_VARIABLE, str(folder))))


def test_the_grace_is_kept_when_the_worker_is_killed_meanwhile(folder):
    code = SUBMIT_AND_WAIT.replace("LocalRuntime().submit(", "runtime = LocalRuntime(); handle = runtime.submit(").replace(
        'print("submitted"', 'time.sleep(1); runtime.stop(handle, grace=2); print("submitted"'
    )
    ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), *python(ignores)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])},
    )
    with worker:
        worker.stdout.readline()
        worker.kill()
    runtime = LocalRuntime()
    handle = runtime.find(Job(folder=folder, argv=()))
    assert handle.stopping
    assert wait_until(lambda: runtime.poll(handle)) == Ended(exit_code=None)
