from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from qwen3_ops.command import Command
from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events, read_events
from qwen3_ops.mindspeed import supervisor as supervisor_module
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnosis
from qwen3_ops.mindspeed.supervisor import SAVE_GRACE, Limits, Supervisor
from qwen3_ops.procfs import identify, with_variable
from stand_ins import LINE, python


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(supervisor_module, "_PERIOD", 0.05)
    monkeypatch.setattr(supervisor_module, "_LEFT", 0.3)


@pytest.fixture
def run(tmp_path):
    def start(*commands, silence=30.0, save_grace=20.0, environment=None, **settings):
        supervisor = Supervisor(
            events=Events(tmp_path / "events.jsonl"), folder=tmp_path, limits=Limits(silence=silence, save_grace=save_grace), **settings
        )
        names = ["engine"] if len(commands) == 1 else [f"node{number}" for number in range(len(commands))]
        return supervisor.run(dict(zip(names, commands, strict=True)), environment or dict(os.environ))

    return start


def mark_of(tmp_path, name="engine"):
    return with_variable("QWEN3_OPS_ENGINE_PROCESS", str(tmp_path / f"{name}.log"))


def test_lines_of_both_streams_become_a_raw_log_events_and_an_observation(run, tmp_path, capsys):
    script = f"""
import sys
print({LINE.format(1, 3, "5.5")!r}, flush=True)
print({LINE.format(2, 3, "4.5")!r}, file=sys.stderr, flush=True)
sys.stdout.buffer.write(b"\\xff raw \\x00\\n 10%|#  | 1/10\\r 20%|## | 2/10\\r{LINE.format(3, 3, "3.5")}\\nno end of line"); sys.stdout.flush()
"""
    ended = run(python(script))
    assert ended.is_clean and ended.exit_codes == [0]
    assert (ended.seen.first.lm_loss, ended.seen.last.lm_loss, ended.seen.last.iteration) == (5.5, 3.5, 3)
    assert ended.seen.seconds == pytest.approx(0.3)
    raw = (tmp_path / "engine.log").read_bytes()
    assert raw.endswith(b"no end of line") and b"\xff raw \x00\n" in raw and b"2/10\r" in raw
    events = list(read_events(tmp_path / "events.jsonl"))
    assert [(event["step"], event["lm_loss"]) for event in events if event["event"] == "metric"] == [(1, 5.5), (2, 4.5), (3, 3.5)]
    progress = [event for event in events if event["event"] == "progress"]
    assert [(event["done"], event["total"], event["eta_seconds"]) for event in progress] == [(1, 3, 0.2), (2, 3, 0.1), (3, 3, 0.0)]
    shown = capsys.readouterr().out
    assert "lm loss: 4.5" in shown and "no end of line" in shown and "1/10" not in shown


def test_arguments_pass_through_no_shell(run, tmp_path):
    nasty = "$(touch x); `id` \"'\n*"
    run(python("import sys; print(repr(sys.argv[1]))", nasty))
    assert (tmp_path / "engine.log").read_text().strip() == repr(nasty)


def test_neither_a_terminal_nor_who_stops_session_leaders_reaches_the_command(run, tmp_path):
    run(python("import os; print(os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid())"))
    assert (tmp_path / "engine.log").read_text() == "True False\n"


def test_the_program_is_looked_up_in_the_commands_own_path(run, tmp_path):
    program = tmp_path / "bin" / "torchrun"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nprint('mine')\n")
    program.chmod(0o755)
    command = Command(env={}, cwd="/", argv=["torchrun"])
    run(command, environment={**os.environ, "PATH": str(program.parent)})
    assert (tmp_path / "engine.log").read_text() == "mine\n"
    with pytest.raises(BadInput, match="a program is not found: torchrun"):
        run(command, environment={"PATH": "/nowhere"})
    with pytest.raises(BadInput, match="can not be started"):
        run(Command(env={}, cwd="/nowhere", argv=[sys.executable]))


def test_silence_ends_a_run(run, tmp_path):
    ended = run(python("import time; print('hello', flush=True); time.sleep(60)"), silence=0.5)
    assert ended.killed_for.name == "no-output"
    assert ended.exit_codes == [-9]
    assert not mark_of(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        LINE.format(5, 9, "5.0").replace("nan iterations:   0", "nan iterations:   1"),
        LINE.format(5, 9, "nan"),
        LINE.format(5, 9, "5.0").replace(" lm loss: 5.0 |", "").replace("grad norm: 1.0", "grad norm: nan"),
    ],
)
def test_a_loss_that_is_no_number_ends_a_run(run, line):
    ended = run(python(f"import time; print({line!r}, flush=True); time.sleep(60)"))
    assert (ended.killed_for.name, ended.killed_for.retried) == ("nan-iterations", False)


def test_a_skipped_iteration_has_no_loss_and_is_no_alarm(run):
    line = LINE.format(5, 9, "5.0").replace(" lm loss: 5.0 |", "").replace("skipped iterations:   0", "skipped iterations:   1")
    assert run(python(f"print({line!r})")).is_clean


def test_a_contradiction_ends_a_run(run):
    against = Diagnosis(name="x", cause="", remedy="", fault=None)
    script = "import time; print('using world size: 1, data-parallel size: 1, context-parallel size: 1 tensor-model-parallel size: 1, pipeline-model-parallel size: 1', flush=True); time.sleep(60)"
    assert run(python(script), contradiction=lambda seen: against if seen.world else None).killed_for is against


def test_one_nodes_failure_stops_the_others(run, tmp_path):
    started = time.monotonic()
    ended = run(python("import time; time.sleep(60)"), python("import sys; print('NPU out of memory'); sys.exit(3)"))
    assert time.monotonic() - started < 20
    assert (ended.failed, ended.exit_codes) == ("node1", [-9, 3])
    assert (ended.diagnoser.conclude().name, ended.diagnoser.conclude().source) == ("npu-out-of-memory", "node1")
    assert not mark_of(tmp_path, "node0")


def test_a_failure_of_another_host_ends_a_run(run):
    failure = Diagnosis(name="other-node", cause="", remedy="", fault=None)
    assert run(python("import time; time.sleep(60)"), look_around=lambda: failure).killed_for is failure


def test_nothing_outlives_the_command(run, tmp_path):
    """A daemon in a session of its own that holds the output open."""
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)"
    started = time.monotonic()
    assert run(python(script)).exit_codes == [0]
    assert time.monotonic() - started < 20
    assert not mark_of(tmp_path)


def test_what_an_earlier_start_left_is_ended_first(run, tmp_path):
    import subprocess

    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={**os.environ, "QWEN3_OPS_ENGINE_PROCESS": str(tmp_path / "engine.log")},
    )
    while not mark_of(tmp_path):
        time.sleep(0.05)
    run(python("pass"))
    assert left.wait(timeout=10) == -signal.SIGKILL


WORKERS = """
import signal, subprocess, sys, time
WORKER = '''
import signal, sys, time
def save(number, frame):
    time.sleep(0.5)
    print("  successfully saved checkpoint from iteration      7 to /out", flush=True)
    print("exiting program after receiving SIGTERM.", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, save)
print("training ...", flush=True)
time.sleep(60)
'''
def killed(number, frame):
    print("torchrun was told", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, killed)
workers = [subprocess.Popen([sys.executable, "-c", WORKER], start_new_session=True) for _ in range(2)]
sys.exit(max(worker.wait() for worker in workers))
"""


def send_when(text, log, number, *, times=1, pause=0.2):
    def send():
        deadline = time.monotonic() + 20
        while not (log.exists() and text in log.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(pause)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_goes_to_the_workers_themselves_and_waits_for_their_save(run, tmp_path, number):
    sender = send_when(b"training ...\ntraining ...", tmp_path / "engine.log", number)
    saved = []
    ended = run(python(WORKERS), when_saved=saved.append)
    sender.join()
    assert (ended.stopped_by, ended.exit_codes, ended.killed_for) == (number.name, [0], None)
    assert ended.seen.saved == saved == [7, 7]
    assert "stopped by SIGTERM" in ended.seen.signs
    assert "torchrun was told" not in (tmp_path / "engine.log").read_text()


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('training ...', flush=True); time.sleep(60)"


def test_the_wait_for_a_save_has_an_end(run, tmp_path):
    sender = send_when(b"training", tmp_path / "engine.log", signal.SIGTERM)
    ended = run(python(STUBBORN), save_grace=0.5)
    sender.join()
    assert (ended.stopped_by, ended.exit_codes) == ("SIGTERM", [-9])


def test_a_second_signal_ends_it_at_once(run, tmp_path):
    sender = send_when(b"training", tmp_path / "engine.log", signal.SIGTERM, times=2)
    ended = run(python(STUBBORN), save_grace=60)
    sender.join()
    assert ended.exit_codes == [-9]


def test_an_exit_status_that_comes_after_the_end_of_the_output_is_waited_for(run):
    ended = run(Command(env={}, cwd="/", argv=["/bin/sh", "-c", "echo done; exec >&- 2>&-; sleep 2; exit 0"]))
    assert ended.exit_codes == [0]


def test_what_has_lost_its_mark_ends_with_its_group(run, tmp_path):
    started = time.monotonic()
    assert run(Command(env={}, cwd="/", argv=["/bin/sh", "-c", "env -i sleep 60 & echo $!"])).exit_codes == [0]
    assert time.monotonic() - started < 20
    left = identify(int((tmp_path / "engine.log").read_text()))
    assert left is None or not left.is_alive()


def test_a_process_that_hides_is_not_waited_for(run, tmp_path, capsys):
    started = time.monotonic()
    assert run(Command(env={}, cwd="/", argv=["/bin/sh", "-c", "env -i setsid sh -c 'echo $$; sleep 60' & sleep 0.5"])).exit_codes == [0]
    assert time.monotonic() - started < 20
    os.kill(-int((tmp_path / "engine.log").read_text()), signal.SIGKILL)
    assert "holds its output open" in capsys.readouterr().err


def test_a_bar_that_is_redrawn_is_no_silence(run):
    script = r"import time; [(print(f'\r {n}%|##', end='', flush=True), time.sleep(0.2)) for n in range(10)]"
    assert run(python(script), silence=1.0).is_clean


def test_what_another_host_prints_is_no_silence(run):
    assert run(python("import time; time.sleep(2)"), silence=1.0, heard_elsewhere=lambda: True).is_clean


def test_a_full_disk_leaves_no_node_running(run, tmp_path):
    (tmp_path / "node0.log").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        run(python("import time; print('x', flush=True); time.sleep(60)"), python("import time; time.sleep(60)"))
    assert not mark_of(tmp_path, "node0") and not mark_of(tmp_path, "node1")


@pytest.mark.parametrize("text", ["nan", "-1", "soon"])
def test_the_time_to_save_is_a_number(monkeypatch, text):
    monkeypatch.setenv(SAVE_GRACE, text)
    with pytest.raises(BadInput, match=SAVE_GRACE):
        Limits(silence=1.0)
