"""The registry login of a connection: it reaches the registry through the engine, and no log."""

from __future__ import annotations

import base64
import logging
from types import SimpleNamespace

import pytest
from airflow.providers.docker.hooks.docker import DockerHook

from qwen3_airflow.ascend.hook import AscendHook
from qwen3_airflow.runtimes import get_runtime
from qwen3_airflow.runtimes.image import image_environment
from qwen3_ops.errors import Infrastructure
from qwen3_ops.findings import PlanRefused
from registry import Registry

LOGIN, PASSWORD = "site", "pass/word of a registry"


@pytest.fixture
def registry(engine):
    registry = Registry(login=LOGIN, password=PASSWORD)
    yield registry
    registry.close()
    if any(registry.image in (image["RepoTags"] or []) for image in engine.client.images()):
        engine.client.remove_image(registry.image)


@pytest.fixture
def runtime(monkeypatch, engine, profile, registry):
    """The runtime of the host's connection, whose Docker connection has some password."""

    def runtime(password: str, *, docker_conn_id: str | None = "registry"):
        profiled = {**profile.model_dump(exclude_defaults=True, mode="json"), "image": registry.image}
        ascend = SimpleNamespace(
            host=engine.url, port=None, extra_dejson={"recipe": "cpu", "profile": profiled, "docker_conn_id": docker_conn_id}
        )
        host, port = registry.address.split(":")
        docker = SimpleNamespace(host=host, port=int(port), login=LOGIN, password=password, extra_dejson={})
        monkeypatch.setattr(AscendHook, "get_connection", classmethod(lambda cls, conn_id: ascend))
        monkeypatch.setattr(DockerHook, "get_connection", classmethod(lambda cls, conn_id: docker))
        return get_runtime("docker", ascend_conn_id="ascend_default", patience=10)

    return runtime


def told_nothing(text: str, password: str) -> bool:
    secrets = (password, base64.b64encode(f"{LOGIN}:{password}".encode()).decode())
    return not any(secret in text for secret in secrets)


def test_the_image_is_pulled_with_the_login_and_no_log_has_it(runtime, registry, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    host = runtime(PASSWORD)
    assert image_environment(host.engine, host.profile)["MADE_BY"] == "stand-in"
    assert ("/v2/site/ascend/manifests/1", f"{LOGIN}:{PASSWORD}") in registry.asked
    said = capfd.readouterr()
    assert told_nothing(caplog.text + said.out + said.err, PASSWORD)


def test_a_wrong_password_is_a_finding_without_it(runtime, registry, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(PlanRefused, match=r"can not be pulled: .*401 Unauthorized") as refused:
        runtime("a wrong password").examine()
    said = capfd.readouterr()
    assert told_nothing(caplog.text + said.out + said.err + str(refused.value), "a wrong password")
    assert [who for _, who in registry.asked if who == f"{LOGIN}:a wrong password"]


def test_without_a_login_the_finding_says_what_to_name(runtime):
    with pytest.raises(PlanRefused, match=r"docker_conn_id"):
        runtime(PASSWORD, docker_conn_id=None).examine()


def test_a_registry_that_is_away_is_none_of_the_containers_that_run(runtime, registry, job):
    """Whoever follows one asks the engine, not the registry."""
    registry.close()
    host = runtime(PASSWORD)
    assert host.find(job("")) is None
    with pytest.raises(Infrastructure, match="its registry does not answer"):
        host.examine()
