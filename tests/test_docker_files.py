"""What docker/ promises: linted images, loopback ports, the socket only where containers are started, no secret in a file."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[1] / "docker"
SOCKET = "/var/run/docker.sock"


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.mark.parametrize("name", sorted(path.name for path in DOCKER.glob("Dockerfile.*")))
def test_dockerfiles_are_linted(name):
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("hadolint is not installed: make venv")
    done = subprocess.run([tool, "--no-color", str(DOCKER / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_ports_are_bound_to_loopback(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert "127.0.0.1:50000:3000" in ports, "TensorBoard, as in the runbook"


def test_only_what_starts_containers_has_the_socket(compose):
    have = {name for name, service in compose["services"].items() if any(SOCKET in volume for volume in service.get("volumes", []))}
    assert have == {"scheduler", "triggerer"}


def test_secrets_come_from_the_environment(compose):
    for service in compose["services"].values():
        for name, value in (service.get("environment") or {}).items():
            if re.search("SECRET|PASSWORD$|FERNET|SQL_ALCHEMY_CONN", name):
                assert "${" in value, name
    example = (DOCKER / ".env.example").read_text()
    assert re.findall(r"^(\w*(?:PASSWORD|SECRET|KEY))=(.+)$", example, re.MULTILINE) == []


def test_every_variable_that_must_be_set_is_in_the_example():
    wanted = set(re.findall(r"\$\{(\w+):\?", (DOCKER / "compose.yaml").read_text()))
    offered = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert wanted <= offered


def test_the_same_paths_hold_on_the_host_and_in_containers(compose):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            if "DATA_ROOT" in volume:
                source, target = re.fullmatch(r"\$\{(DATA_ROOT)[^}]*\}:\$\{(DATA_ROOT)\}(?::ro)?", volume).groups()
                assert source == target, name
    assert compose["services"]["tensorboard"]["volumes"] == ["${DATA_ROOT}:${DATA_ROOT}:ro"]
