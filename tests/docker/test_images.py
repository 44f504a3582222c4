"""docker/'s images are built and started, of a base that is made of this machine: see `base_image`."""

from __future__ import annotations

import json

import pytest

import docker
from base_image import BASE, PYTHON, ROOT, TORCH, import_base
from engine import TestEngine
from qwen3_ops import __version__

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def build(engine: TestEngine):
    """Builds an image and returns its name; everything is removed in the end."""
    client, built = docker.APIClient(base_url=engine.url, version="auto", timeout=300), [BASE]
    import_base(client)

    def build(name: str, **arguments: str) -> str:
        tag = f"qwen3-ops-test-{name}:1"
        steps = client.build(
            path=str(ROOT), dockerfile=f"docker/Dockerfile.{name}", tag=tag, buildargs={"BASE": BASE, **arguments},
            network_mode="none", rm=True, forcerm=True, decode=True,
        )  # fmt: skip
        said = list(steps)
        assert not any("error" in step for step in said), "".join(step.get("stream") or step.get("error", "") for step in said)[-3000:]
        built.append(tag)
        return tag

    yield build
    for tag in reversed(built):
        client.remove_image(tag, force=True)


def run(engine: TestEngine, image: str, *command: str, entrypoint: list[str] | None = None) -> str:
    client = engine.client
    made = client.create_container(image, list(command), entrypoint=entrypoint, host_config=client.create_host_config(network_mode="none"))
    try:
        client.start(made["Id"])
        status = client.wait(made["Id"])["StatusCode"]
        said = client.logs(made["Id"]).decode()
    finally:
        client.remove_container(made["Id"], force=True)
    assert status == 0, said
    return said.strip()


def test_the_stages_image_adds_to_its_base_and_replaces_nothing(build, engine):
    image = build("ascend", PYTHON=PYTHON)
    assert run(engine, image, "qwen3-ops", "--version") == __version__
    look = "import importlib.metadata as m, qwen3_ops.attempt; print(m.version('torch'))"
    assert run(engine, image, PYTHON, "-c", look) == TORCH
    assert engine.client.inspect_image(image)["Config"]["Entrypoint"] is None, "the runtime gives the whole command"


def test_the_cpu_image_is_the_command_and_not_root(build, engine):
    image = build("cpu")
    assert run(engine, image, "--version") == __version__
    assert "convert-ckpt" in run(engine, image)
    who = "import os, json; print(json.dumps([os.getuid(), os.getcwd()]))"
    assert json.loads(run(engine, image, "-c", who, entrypoint=[PYTHON])) == [1000, "/home/qwen3"]


def test_airflows_image_has_dags_and_plugin_and_is_not_root(build, engine):
    image = build("airflow")
    assert run(engine, image, "qwen3-ops", "--version") == __version__
    look = """
import importlib.metadata as m, json, os
points = [point.value for point in m.entry_points(group="airflow.plugins")]
print(json.dumps({"dags": sorted(os.listdir("/opt/airflow/dags")), "plugins": points, "user": os.getuid()}))
"""
    found = json.loads(run(engine, image, PYTHON, "-c", look))
    assert found["dags"] == sorted(path.name for path in (ROOT / "dags").glob("*.py"))
    assert found["plugins"] == ["qwen3_airflow.plugin:Qwen3Plugin"]
    assert found["user"] == 50000
