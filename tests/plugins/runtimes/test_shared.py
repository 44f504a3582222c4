"""Stages in one container, against an engine in odd moods."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from docker.errors import APIError
from requests import Response

from qwen3_airflow.ascend.recipes import cpu
from qwen3_airflow.runtimes import container, shared
from qwen3_airflow.runtimes.base import Job
from qwen3_airflow.runtimes.container import Bind
from qwen3_airflow.runtimes.shared import SharedContainerRuntime


def refusal(status: int) -> APIError:
    made = Response()
    made.status_code = status
    return APIError("exec", response=made)


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """On an engine that answers ``exec_start`` with ``status``, after the stage ``began`` or not."""

    def make(*, status: int, began: bool) -> SharedContainerRuntime:
        mount = {"Source": str(tmp_path), "Destination": str(tmp_path)}

        def call(verb, *args, **kwargs):
            if verb == "exec_create":
                return {"Id": "e1"}
            if verb == "top":
                return {"Processes": []}
            assert verb == "exec_start"
            if began:
                folder = tmp_path / "run" / "train"
                claim = json.loads((folder / container.EXEC).read_text())
                (folder / "attempt.json").write_text(json.dumps({"id": claim["attempt"], "log_start": 0}))
            raise refusal(status)

        engine = SimpleNamespace(call=call, inspect=lambda name: {"State": {"Running": True}, "Mounts": [mount]})
        monkeypatch.setattr(shared, "_START_SECONDS", 0.5)
        return SharedContainerRuntime(engine, cpu().model_copy(update={"container": "shared", "data_roots": (str(tmp_path),)}))

    return make


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(folder=tmp_path / "run" / "train", argv=("true",), writes=(tmp_path,))


def test_a_start_that_was_repeated_after_a_lost_answer_is_followed(runtime, job):
    assert runtime(status=409, began=True).submit(job).log_start == 0


def test_an_exec_that_the_engine_forgot_when_it_restarted_was_not_started(runtime, job):
    with pytest.raises(RuntimeError, match="did not start in qwen3-shared"):
        runtime(status=404, began=False).submit(job)


def test_any_other_answer_is_told_as_it_is(runtime, job):
    with pytest.raises(APIError, match="500"):
        runtime(status=500, began=False).submit(job)


def test_a_claim_that_its_owner_drops_while_it_is_looked_at_is_none(runtime, job, monkeypatch):
    """As when the teardown looks for stages that still run, and one has just ended."""
    job.folder.mkdir(parents=True)
    path = job.folder / container.EXEC
    path.write_text(json.dumps({"container": "c", "attempt": "a1", "stopping": False}))
    read = shared.read_json

    def read_and_drop(wanted):
        content = read(wanted)
        path.unlink(missing_ok=True)
        return content

    monkeypatch.setattr(shared, "read_json", read_and_drop)
    assert runtime(status=409, began=False).find(job) is None


@pytest.mark.parametrize(
    ("source", "destination", "seen"),
    [
        ("/no/apps", "/no/apps", True),
        ("/no/apps/model", "/no/apps/model", True),
        ("/no/app", "/no/app", False),
        ("/no/apps", "/no/other", False),
        ("/no/other", "/no/apps", False),
        ("", "/no/apps", False),
    ],
)
def test_a_folder_is_seen_where_it_is_mounted_or_one_above_it(source, destination, seen):
    bind = Bind(source="/no/apps/model", target="/no/apps/model", read_only=True)
    assert shared._shows({"Source": source, "Destination": destination}, bind) is seen


def test_a_link_is_seen_where_it_was_mounted_from_its_end(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    bind = Bind(source=str(tmp_path / "disk"), target=str(tmp_path / "link"), read_only=True)
    for source in ("link", "disk"):
        assert shared._shows({"Source": str(tmp_path / source), "Destination": bind.target}, bind)
    assert shared._shows({"Source": str(tmp_path), "Destination": str(tmp_path)}, bind)
