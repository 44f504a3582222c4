"""Whoever is killed, whenever: one run of the container, its true end, its whole log, nothing left behind.

The table in docs/reliability.md has a row for each test here.
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import pytest

from airflow_parts import Task
from qwen3_airflow import triggers
from qwen3_airflow.ascend.hook import AscendHook
from qwen3_airflow.ascend.operators import AscendContainerOperator
from waiting import wait_for

LINES = 40
STAGE = f"""
import pathlib, sys, time
with open("starts", "a") as file:
    file.write("started\\n")
for line in range({LINES}):
    print(f"line {{line}} of {LINES}")
    if line == 5:
        pathlib.Path("midway").touch()
    while line == 5 and not pathlib.Path("go").exists():
        time.sleep(0.02)
pathlib.Path("over").touch()
sys.exit(int(sys.argv[1]))
"""

MODES = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "synchronous"])


@pytest.fixture
def connection(monkeypatch, engine, profile):
    extra = {"recipe": "cpu", "profile": profile.model_dump(exclude_defaults=True, mode="json")}
    found = SimpleNamespace(host=engine.url, port=None, extra_dejson=extra)
    monkeypatch.setattr(AscendHook, "get_connection", classmethod(lambda cls, conn_id: found))


class Run:
    """One task, its scheduler, and what is to hold at its end."""

    def __init__(self, root, engine, *, deferrable: bool, code: int = 0) -> None:
        self.engine, self.deferrable, self.root = engine, deferrable, root
        command = [sys.executable, "-u", "-c", STAGE, str(code)]

        def make_operator():
            return AscendContainerOperator(
                task_id="stage", command=command, folder=str(root / "jobs"), poll_interval=0.05, deferrable=deferrable
            )

        (root / "jobs").mkdir()
        self.task = Task(folder=root / "airflow" / "r1", make_operator=make_operator)

    @property
    def folder(self):
        (folder,) = (self.root / "jobs").glob("*/stage")
        return folder

    def midway(self) -> None:
        wait_for("the middle of the stage", lambda: list((self.root / "jobs").glob("*/stage/midway")), seconds=60)

    def go_on(self) -> None:
        (self.folder / "go").touch()

    def over(self) -> None:
        wait_for("the end of the stage", lambda: (self.folder / "over").exists(), seconds=60)
        wait_for("the end of its container", lambda: self.engine.containers(self.root, all=False) == [], seconds=60)

    def deferred(self, **kwargs) -> dict:
        outcome = self.task.worker(**kwargs).wait()
        assert outcome["state"] == "deferred", outcome
        return outcome

    def finish(self) -> dict:
        """Tries until the task is not to be tried again."""
        while True:
            outcome = self.task.worker().wait()
            if outcome["state"] == "deferred":
                outcome = self.resume(self.task.triggerer(outcome).wait())
            if outcome["state"] != "up_for_retry":
                return outcome

    def resume(self, event: dict) -> dict:
        return self.task.worker(resume=event).wait()

    def must_have_run(self, *, starts: int = 1, code: int = 0) -> None:
        assert (self.folder / "starts").read_text().count("started") == starts
        assert json.loads((self.folder / "attempt.json").read_text())["exit_code"] == code
        assert self.engine.containers(self.root) == []
        told = self.task.told() + self.task.told("trigger.log")
        for line in range(LINES):
            assert f"line {line} of {LINES}\n" in told


@pytest.fixture
def run(root, engine, connection):
    made = []
    yield lambda **kwargs: made.append(Run(root, engine, **kwargs)) or made[-1]
    for part in (part for run in made for part in run.task.parts if not part.ended()):
        part.kill()
    engine.start()


@MODES
@pytest.mark.parametrize("point", ["before create", "between create and start", "after start"])
def test_the_worker_dies_at_submit(run, deferrable, point):
    run = run(deferrable=deferrable)
    assert run.task.worker(die=point).wait() == {"state": "killed"}
    run.go_on()
    assert run.finish()["state"] == "success"
    run.must_have_run()


def test_the_worker_dies_mid_run_synchronous(run):
    run = run(deferrable=False)
    worker = run.task.worker()
    run.midway()
    worker.kill()
    run.go_on()
    assert run.finish()["state"] == "success"
    run.must_have_run()
    assert "line 0 of" in run.task.told().rsplit("Following", 1)[-1], "the next try tells the log from its start"


def test_the_worker_is_not_there_mid_run_deferrable(run):
    run = run(deferrable=True)
    deferred = run.deferred()
    run.midway()
    assert run.task.parts[-1].ended(), "no worker waits"
    run.go_on()
    assert run.resume(run.task.triggerer(deferred).wait())["state"] == "success"
    run.must_have_run()


@MODES
@pytest.mark.parametrize("code", [0, 2])
def test_the_worker_dies_at_exit(run, deferrable, code):
    run = run(deferrable=deferrable, code=code)
    if deferrable:
        deferred = run.deferred()
        run.midway()
        run.go_on()
        event = run.task.triggerer(deferred).wait()
        assert run.task.worker(resume=event, die="before remove").wait() == {"state": "killed"}
    else:
        worker = run.task.worker(die="before remove")
        run.midway()
        run.go_on()
        assert worker.wait() == {"state": "killed"}
    outcome = run.finish()
    assert outcome["state"] == ("success" if code == 0 else "failed")
    run.must_have_run(code=code)


@pytest.mark.parametrize("moment", ["submit", "mid-run", "exit"])
def test_the_triggerer_dies(run, monkeypatch, moment):
    monkeypatch.setattr(triggers, "_SETTLE_SECONDS", 0.0)  # what is told here is in a file at once
    run = run(deferrable=True)
    deferred = run.deferred()
    run.midway()
    first = run.task.triggerer(deferred)
    if moment == "submit":
        first.kill()
    else:
        wait_for("the first lines", lambda: "line 5 of" in run.task.told("trigger.log"), seconds=30)
        wait_for("the note of them", lambda: (run.folder / triggers.FOLLOWED).exists(), seconds=30)
    if moment == "mid-run":
        first.kill()
    run.go_on()
    if moment == "exit":
        run.over()
        first.kill()
    assert run.resume(run.task.triggerer(deferred).wait())["state"] == "success"
    run.must_have_run()
    if moment == "mid-run":
        assert run.task.told("trigger.log").count("line 3 of") == 1, "the next triggerer goes on where the first was"


@MODES
@pytest.mark.parametrize("moment", ["submit", "mid-run", "exit"])
def test_dockerd_dies(run, engine, deferrable, moment):
    if not engine.may_be_killed:
        pytest.skip("this Docker Engine is not the tests' own: it is not killed")
    run = run(deferrable=deferrable)
    if moment == "submit":
        engine.kill()
        worker = run.task.worker()
        time.sleep(1)
        engine.start()
        run.midway()
    else:
        worker = run.task.worker()
        run.midway()
    watcher = run.task.triggerer(worker.wait()) if deferrable else worker
    if moment == "mid-run":
        engine.kill()
        time.sleep(1)
        assert not watcher.ended()
        engine.start()
        run.go_on()
    elif moment == "exit":
        engine.kill()
        run.go_on()
        wait_for("the end of the stage", lambda: (run.folder / "over").exists(), seconds=60)
        time.sleep(1)
        engine.start()
    else:
        run.go_on()
    outcome = run.resume(watcher.wait()) if deferrable else watcher.wait()
    assert outcome["state"] == "success", outcome
    run.must_have_run()


@MODES
@pytest.mark.parametrize("moment", ["submit", "mid-run", "exit"])
def test_the_container_is_killed(run, engine, deferrable, moment):
    run = run(deferrable=deferrable)
    worker = run.task.worker()
    wait_for("the container", lambda: engine.containers(run.root, all=False), seconds=60)
    if moment != "submit":
        run.midway()
    if moment == "exit":
        run.go_on()
        run.over()
    else:
        (container,) = engine.containers(run.root, all=False)
        engine.client.kill(container["Id"])
    outcome = worker.wait()
    if deferrable:
        outcome = run.resume(run.task.triggerer(outcome).wait())
    if moment == "exit":
        assert outcome["state"] == "success"
        run.must_have_run()
        return
    assert outcome["state"] == "up_for_retry"
    assert "SIGKILL" in outcome["error"] or "did not come to run" in outcome["error"]
    starts = (run.folder / "starts").read_text().count("started") if (run.folder / "starts").exists() else 0
    run.go_on()
    assert run.finish()["state"] == "success"
    run.must_have_run(starts=starts + 1)


def test_a_deferred_task_that_takes_too_long_is_stopped(run, engine):
    run = run(deferrable=True)
    run.deferred()
    run.midway()
    outcome = run.task.worker(resume={"method": "__fail__", "event": None, "error": "Trigger timeout"}).wait()
    assert outcome["error"].startswith("TaskDeferralTimeout")
    wait_for("the end of the container", lambda: engine.containers(run.root) == [], seconds=60)


def test_a_folder_outside_of_the_profile_fails_the_task_for_good(run, connection, other_folder):
    run = run(deferrable=False)
    make = run.task.make_operator

    def outside():
        operator = make()
        operator.reads = [str(other_folder)]
        return operator

    run.task.make_operator = outside
    outcome = run.task.worker().wait()
    assert outcome["state"] == "failed"
    assert "lets no run read" in outcome["error"]
