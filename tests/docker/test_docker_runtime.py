"""The verbs of the runtime `docker` on a real engine."""

from __future__ import annotations

import json
import signal
import time

import pytest

from qwen3_airflow.runtimes.base import Ended
from qwen3_airflow.runtimes.docker_stopper import stop as stop_container
from qwen3_ops.errors import BadInput
from waiting import wait_for


def end_of(runtime, handle, *, seconds: float = 60) -> Ended:
    return wait_for("the end of the container", lambda: runtime.poll(handle), seconds=seconds)


def test_output_and_status_of_a_container(make_runtime, profile, job, engine, root):
    runtime = make_runtime(profile)
    handle = runtime.submit(job("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert end_of(runtime, handle) == Ended(exit_code=3)
    assert runtime.logs(handle, 0) == b"out\nerr\n"
    assert runtime.logs(handle, 4) == b"err\n"
    runtime.remove(handle)
    runtime.remove(handle)
    assert engine.containers(root) == []


def test_what_the_stage_says_about_its_end_counts(make_runtime, profile, job):
    runtime = make_runtime(profile)
    code = """open('exit.json', 'w').write('{"exit_code": 2, "error": "no such column"}'); raise SystemExit(2)"""
    handle = runtime.submit(job(code))
    assert end_of(runtime, handle) == Ended(exit_code=2, error="no such column")


def test_an_end_that_no_one_saw_waits_for_the_next(make_runtime, profile, job):
    work = job("print('done')")
    first = make_runtime(profile).submit(work)
    end_of(make_runtime(profile), first)
    other = make_runtime(profile)
    handle = other.find(work)
    assert handle == first
    assert other.poll(handle) == Ended(exit_code=0)


def test_an_end_is_known_when_the_container_is_gone(make_runtime, profile, job, engine):
    runtime = make_runtime(profile)
    handle = runtime.submit(job("raise SystemExit(3)"))
    end_of(runtime, handle)
    engine.client.remove_container(handle.id)
    assert runtime.poll(handle) == Ended(exit_code=3)


def test_a_container_that_vanished_while_it_ran_has_an_unknown_end(make_runtime, profile, job, engine):
    runtime = make_runtime(profile)
    handle = runtime.submit(job("import time; print('ready'); time.sleep(600)"))
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    engine.client.remove_container(handle.id, force=True)
    assert runtime.poll(handle) == Ended(exit_code=None)


def test_a_second_submission_joins_the_first(make_runtime, profile, job, engine, root):
    work = job("import time; print('once'); time.sleep(600)")
    first, second = make_runtime(profile).submit(work), make_runtime(profile).submit(work)
    assert first == second
    assert len(engine.containers(root)) == 1


def test_a_container_that_was_created_but_not_started_is_started_by_who_finds_it(make_runtime, profile, job, monkeypatch):
    runtime, work = make_runtime(profile), job("print('started')")
    monkeypatch.setattr(runtime, "find", lambda job: pytest.fail("the worker dies here"))
    with pytest.raises(pytest.fail.Exception):
        runtime.submit(work)
    other = make_runtime(profile)
    handle = other.find(work)
    assert end_of(other, handle) == Ended(exit_code=0)


def test_attempts_follow_each_other_in_the_log(make_runtime, profile, job):
    runtime = make_runtime(profile)
    first = runtime.submit(job("print('first'); raise SystemExit(75)"))
    assert end_of(runtime, first) == Ended(exit_code=75)
    runtime.remove(first)
    second = runtime.submit(job("print('second')"))
    assert end_of(runtime, second) == Ended(exit_code=0)
    assert runtime.logs(second, second.log_start) == b"second\n"
    assert runtime.logs(second, 0) == b"first\nsecond\n"


SAVES_ON_SIGTERM = """
import signal, sys, time
def save(number, frame):
    time.sleep(0.5); print("saved", flush=True); sys.exit(130)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(600)
"""


def test_stop_lets_a_stage_save_and_then_removes_its_container(make_runtime, profile, job, engine, root):
    runtime, work = make_runtime(profile), job(SAVES_ON_SIGTERM)
    handle = runtime.submit(work)
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    runtime.stop(handle, grace=20)
    assert make_runtime(profile).find(work).stopping
    assert end_of(runtime, handle) == Ended(exit_code=130)
    assert runtime.logs(handle, 0) == b"ready\nsaved\n"
    wait_for("the stopper to remove it, though no one follows", lambda: engine.containers(root) == [], seconds=90)
    assert (work.folder / "stopper.log").read_bytes() == b""


def test_stop_is_by_force_after_the_grace(make_runtime, profile, job, engine, root):
    runtime = make_runtime(profile)
    handle = runtime.submit(
        job("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)")
    )
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    started = time.monotonic()
    stop_container(runtime.engine, handle.id, grace=1, linger=0)
    assert time.monotonic() - started < 15
    assert runtime.poll(handle) == Ended(exit_code=None)
    assert engine.containers(root) == []


def test_a_killed_container_says_so(make_runtime, profile, job, engine):
    runtime = make_runtime(profile)
    handle = runtime.submit(job("import time; print('ready', flush=True); time.sleep(600)"))
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    engine.client.kill(handle.id)
    assert end_of(runtime, handle) == Ended(exit_code=-signal.SIGKILL)


def test_a_container_without_our_package_says_what_it_printed(make_runtime, profile, job):
    runtime = make_runtime(profile.model_copy(update={"python": "/usr/bin/true"}))
    assert end_of(runtime, runtime.submit(job("print(1)"))).error.startswith("the container did not come to run the stage")
    runtime = make_runtime(profile.model_copy(update={"environment": {"PYTHONHOME": "/nowhere"}}))
    handle = runtime.submit(job("print(1)", name="other"))
    ended = end_of(runtime, handle)
    assert ended.exit_code != 0
    assert "/nowhere" in ended.error


def test_variables_of_sourced_scripts_reach_the_stage_and_its_arguments_pass_through_no_shell(make_runtime, profile, job, root):
    script = root / "set_env.sh"
    script.write_text("export ASCEND_HOME_PATH='/usr/local/Ascend with a space'\necho noise\n")
    runtime = make_runtime(profile.model_copy(update={"env_scripts": (str(script),)}))
    work = job("import os, sys; print(os.environ['ASCEND_HOME_PATH'], sys.argv[1:])")
    hostile = ["$(touch pwned)", "; touch pwned", "a b", "`id`", "--", "--source"]
    handle = runtime.submit(type(work)(**{**vars(work), "argv": (*work.argv, *hostile)}))
    assert end_of(runtime, handle) == Ended(exit_code=0)
    assert runtime.logs(handle, 0).decode() == f"/usr/local/Ascend with a space {hostile}\n"
    assert not list(root.rglob("pwned"))


def test_inside_there_is_no_network_and_only_the_job_folders_are_seen(make_runtime, profile, job, root, other_folder):
    (root / "weights").mkdir()
    (root / "weights" / "config.json").write_text("{}")
    (other_folder / "secret").write_text("s")
    code = f"""
import json, os, pathlib
facts = {{"interfaces": sorted(os.listdir("/sys/class/net")), "other": os.path.exists({str(other_folder)!r}), "airflow": [n for n in os.environ if "AIRFLOW" in n]}}
try:
    pathlib.Path({str(root)!r}, "weights", "x").write_text("x")
except OSError as error:
    facts["weights"] = error.strerror
print(json.dumps(facts))
"""
    runtime = make_runtime(profile)
    handle = runtime.submit(job(code, reads=(root / "weights",)))
    assert end_of(runtime, handle) == Ended(exit_code=0)
    facts = json.loads(runtime.logs(handle, 0))
    assert facts == {"interfaces": ["lo"], "other": False, "airflow": [], "weights": "Read-only file system"}


@pytest.mark.parametrize("how", ["elsewhere", "by a link", "with a colon"])
def test_a_run_can_not_name_folders_outside_of_the_profile(make_runtime, profile, job, engine, root, other_folder, how):
    path = other_folder
    if how == "by a link":
        path = root / "link"
        path.symlink_to(other_folder)
    if how == "with a colon":
        path = root / f"data:{other_folder}"
    with pytest.raises(BadInput, match="lets no run" if how != "with a colon" else "no such folder"):
        make_runtime(profile).submit(job("print(1)", reads=(path,)))
    assert engine.containers(root) == []


def test_links_of_a_model_folder_lead_somewhere(make_runtime, profile, job, root):
    blobs, snapshot = root / "hub" / "blobs", root / "hub" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "1234").write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    runtime = make_runtime(profile)
    work = job(f"print(open({str(snapshot / 'model.safetensors')!r}).read())", reads=(snapshot,))
    writes = root / "out"
    writes.mkdir()
    handle = runtime.submit(type(work)(**{**vars(work), "folder": writes / "s", "writes": (writes,)}))
    assert end_of(runtime, handle) == Ended(exit_code=0)
    assert runtime.logs(handle, 0) == b"weights\n"
