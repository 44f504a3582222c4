"""The runtime ``docker`` against an engine in odd moods, which a real one has too rarely."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from docker.errors import APIError, NotFound
from requests import ConnectionError as CutOff
from requests import Response

from qwen3_airflow.ascend.recipes import cpu
from qwen3_airflow.runtimes import container, docker
from qwen3_airflow.runtimes.base import Ended, Job
from qwen3_airflow.runtimes.docker import DockerRuntime
from qwen3_airflow.runtimes.engine import Engine, EngineAddress


class FakeClient:
    """Knows one container by its name."""

    def __init__(self) -> None:
        self.found: dict | None = None
        self.created, self.started = 0, 0
        self.on_start = lambda: None

    def close(self) -> None:
        """Of a connection that there never was."""

    def inspect_image(self, image):
        return {"Config": {"Env": []}}

    def inspect_container(self, name):
        if self.found is None:
            raise NotFound("no such container", response=response(404))
        return self.found

    def create_host_config(self, **options):
        return options

    def create_container_config(self, **config):
        return config

    def create_container_from_config(self, config, name):
        if self.found is not None:
            raise APIError("the name is in use", response=response(409))
        self.created += 1
        self.found = standing("created", config["labels"])
        return {"Id": "c1"}

    def start(self, name):
        self.started += 1
        self.found["State"]["Status"] = "running"
        self.on_start()


def response(status: int) -> Response:
    made = Response()
    made.status_code = status
    return made


def standing(status: str, labels: dict, **state) -> dict:
    return {"Id": "c1", "Config": {"Labels": labels}, "State": {"Status": status, "OOMKilled": False, "ExitCode": 0, "Error": "", **state}}


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(folder=tmp_path / "run" / "train", argv=("true",), writes=(tmp_path,))


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def runtime(client, tmp_path) -> DockerRuntime:
    engine = Engine(lambda: client, address=EngineAddress(url="unix:///x"), patience=5)
    return DockerRuntime(engine, cpu().model_copy(update={"data_roots": (str(tmp_path),)}))


def test_a_name_that_its_last_holder_gives_back_is_waited_for(runtime, client, job, monkeypatch):
    """A removal takes a moment, in which the name is taken and the container is no one's."""
    client.found = standing("removing", {})
    monkeypatch.setattr(docker, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: setattr(client, "found", None)))
    assert runtime.submit(job).id == "c1"
    assert (client.created, client.started) == (1, 1)


def test_a_name_that_is_never_given_back_is_told(runtime, client, job, monkeypatch):
    client.found = standing("removing", {})
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(docker, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None))
    with pytest.raises(RuntimeError, match=r"qwen3-train-.*docker rm -f"):
        runtime.submit(job)


def test_a_start_whose_answer_was_lost_is_not_repeated_on_a_container_that_has_ended(runtime, client, job):
    def ends_while_the_engine_is_away():
        client.found["State"]["Status"] = "exited"
        raise CutOff("the engine was restarted")

    client.on_start = ends_while_the_engine_is_away
    runtime.submit(job)
    assert client.started == 1, "it would train twice"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_engine_whose_containerd_is_away_is_asked_again(runtime, client, job, status):
    """As in an upgrade of containerd; dockerd itself answers all the while."""
    answers = [APIError("connection closed: unavailable", response=response(status)), None]

    def start_or_not():
        if answer := answers.pop(0):
            client.found["State"]["Status"] = "created"
            raise answer

    client.on_start = start_or_not
    runtime.submit(job)
    assert (client.created, client.started) == (1, 2)


@pytest.mark.parametrize(("code", "told"), [(0, Ended(exit_code=0)), (2, Ended(exit_code=2, error="no such column"))])
def test_a_process_that_the_kernel_killed_inside_is_not_the_containers_end(runtime, client, job, code, told):
    """The engine's OOMKilled is set by any process of the container, a loader's helper included."""
    client.found = standing(
        "exited", {container.JOB: str(job.folder), container.ATTEMPT: "a1", container.LOG_START: "0"}, OOMKilled=True, ExitCode=code
    )
    job.folder.mkdir(parents=True)
    (job.folder / "attempt.json").write_text(json.dumps({"id": "a1", "exit_code": code}))
    (job.folder / "exit.json").write_text(json.dumps({"exit_code": code, "error": told.error}))
    assert runtime.poll(runtime.find(job)) == told


@pytest.mark.parametrize("code", [None, 137])
def test_a_container_that_the_kernel_killed_says_so(runtime, client, job, code):
    client.found = standing(
        "exited", {container.JOB: str(job.folder), container.ATTEMPT: "a1", container.LOG_START: "0"}, OOMKilled=True, ExitCode=137
    )
    job.folder.mkdir(parents=True)
    (job.folder / "attempt.json").write_text(json.dumps({"id": "a1", "exit_code": code}))
    ended = runtime.poll(runtime.find(job))
    assert (ended.exit_code, "ran out of memory" in ended.error) == (-9, True)
