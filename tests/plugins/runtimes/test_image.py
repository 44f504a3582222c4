"""The image of the host's profile: found, pulled, or refused with what to do."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from docker.errors import APIError, ImageNotFound
from requests import Response

from qwen3_airflow.ascend.recipes import cpu
from qwen3_airflow.runtimes.engine import EngineAddress
from qwen3_airflow.runtimes.image import image_environment, image_findings, require_image
from qwen3_ops.errors import Infrastructure
from qwen3_ops.findings import PlanRefused

FOUND = {"Config": {"Env": ["PATH=/usr/bin", "A=b=c"]}, "Architecture": "arm64"}


class FakeEngine:
    """Has the image, or gets it by a pull, or not at all."""

    address = EngineAddress(url="tcp://ascend-1:2376")

    def __init__(self, *, present: bool, pull=None) -> None:
        self.present, self.answer, self.pulled = present, pull, []

    def call(self, verb: str, *args) -> dict:
        if verb == "version":
            return {"Arch": "arm64"}
        if verb == "inspect_image" and self.present:
            return FOUND
        if verb == "inspect_image":
            raise ImageNotFound("no such image", response=response(404))
        raise AssertionError(verb)

    def pull(self, image: str) -> str:
        self.pulled.append(image)
        if isinstance(self.answer, Exception):
            raise self.answer
        self.present = "error" not in self.answer
        return "\r\n".join([json.dumps({"status": "Pulling"}), json.dumps(self.answer)])


def response(status: int) -> Response:
    made = Response()
    made.status_code = status
    return made


def refusal(status: int, said: str) -> APIError:
    return APIError("failed", response=response(status), explanation=said)


def test_an_image_that_is_there_is_not_pulled():
    engine = FakeEngine(present=True)
    assert image_environment(engine, cpu()) == {"PATH": "/usr/bin", "A": "b=c"}
    assert image_findings(engine, cpu()) == []
    assert engine.pulled == []


@pytest.mark.parametrize("config", [{"Env": None}, {}])
def test_an_image_may_set_no_variables(config, monkeypatch):
    """Engines from API 1.50 on leave out what is empty."""
    monkeypatch.setitem(FOUND, "Config", config)
    assert image_environment(FakeEngine(present=True), cpu()) == {}


def test_one_that_a_registry_has_is_pulled():
    engine = FakeEngine(present=False, pull={"status": "Downloaded"})
    assert require_image(engine, cpu()) == FOUND
    assert engine.pulled == ["qwen3-ops:cpu"]


@pytest.mark.parametrize(
    "pull",
    [
        refusal(404, "manifest for qwen3-ops:cpu not found: manifest unknown"),
        refusal(500, "unauthorized: authentication required"),
        {"error": "pull access denied for qwen3-ops"},
    ],
    ids=["unknown", "unauthorized", "told in the progress"],
)
def test_one_that_no_registry_gives_is_a_finding_with_what_to_do(pull):
    with pytest.raises(PlanRefused) as refused:
        image_findings(FakeEngine(present=False, pull=pull), cpu())
    (finding,) = refused.value.findings
    said = pull["error"] if isinstance(pull, dict) else pull.explanation
    for words in ("qwen3-ops:cpu", "tcp://ascend-1:2376", said):
        assert words in finding.values
    assert finding.rule == "the image of the host's profile must be there"
    for words in ("docker pull", "docker load", "docker_conn_id"):
        assert words in finding.remedy


@pytest.mark.parametrize("pull", [refusal(500, "dial tcp 10.0.0.1:443: connect: connection refused"), {"error": "unexpected EOF"}])
def test_a_registry_that_does_not_answer_may_do_so_later(pull):
    with pytest.raises(Infrastructure, match=r"registry does not answer: qwen3-ops:cpu: .*docker load"):
        require_image(FakeEngine(present=False, pull=pull), cpu())


def test_an_image_for_another_processor_is_a_warning():
    engine = FakeEngine(present=True)
    engine.call = lambda verb, *args: {"Arch": "amd64"} if verb == "version" else FOUND
    (finding,) = image_findings(engine, cpu())
    assert (finding.severity, finding.values) == ("warn", "qwen3-ops:cpu is for arm64, the host is amd64")


def test_only_absence_is_an_answer():
    engine = SimpleNamespace(call=lambda verb, *args: (_ for _ in ()).throw(refusal(500, "storage is broken")), address=None)
    with pytest.raises(APIError, match="storage is broken"):
        require_image(engine, cpu())
