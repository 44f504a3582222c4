"""The image of a host's containers: on the host, or pulled to it, or named with what to do."""

from __future__ import annotations

import json
from typing import Any

from docker.errors import APIError, ImageNotFound

from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.runtimes.engine import Engine
from qwen3_ops.errors import Infrastructure
from qwen3_ops.findings import Finding, PlanRefused

_REFUSED = (400, 401, 403, 404)
_REFUSALS = ("unauthorized", "denied", "no basic auth", "not found", "manifest unknown", "invalid reference")
_REMEDY = (
    "On that host: `docker pull` it, `docker load` it, or build it (`make image`); for a registry that wants a login, name a Docker "
    "connection in the host's connection (docker_conn_id); or name another image there"
)


def image_environment(engine: Engine, profile: HostProfile) -> dict[str, str]:
    """Variables that the profile's image sets. Raises as :func:`require_image`."""
    found = require_image(engine, profile)
    return dict(pair.split("=", 1) for pair in found["Config"].get("Env") or [])


def image_findings(engine: Engine, profile: HostProfile) -> list[Finding]:
    """What is wrong with an image that is there. Raises as :func:`require_image`."""
    image, host = require_image(engine, profile)["Architecture"], engine.call("version")["Arch"]
    if image == host:
        return []
    return [
        Finding(
            rule="the host's image must be made for its processor",
            fields=("runtime",),
            values=f"{profile.image} is for {image}, the host is {host}",
            consequence="its programs do not start, or are emulated and slow",
            remedy=f"name an image for {host} in the host's connection",
            severity="warn",
        )
    ]


def require_image(engine: Engine, profile: HostProfile) -> dict[str, Any]:
    """What the engine knows of the profile's image; one that is not on the host is pulled.

    Raises:
        PlanRefused: its registry has it not, or does not give it to us.
        Infrastructure: its registry does not answer; another try may.
    """
    found = _inspect(engine, profile.image)
    if found is None:
        said, refused = _pull(engine, profile.image)
        found = _inspect(engine, profile.image)
        if found is None and refused:
            raise PlanRefused([_missing(engine, profile.image, said)], who="The host")
        if found is None:
            raise Infrastructure(
                "the image is not on the host, and its registry does not answer",
                value=f"{profile.image}: {said}",
                source=f"the Docker Engine at {engine.address.url}",
                remedy=f"{_REMEDY}.",
            )
    return found


def _missing(engine: Engine, image: str, said: str) -> Finding:
    return Finding(
        rule="the image of the host's profile must be there",
        fields=("runtime",),
        values=f"{image} is not on the Docker Engine at {engine.address.url}, and can not be pulled: {said}",
        consequence="no stage's container can be made",
        remedy=_REMEDY[0].lower() + _REMEDY[1:],
    )


def _inspect(engine: Engine, image: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = engine.call("inspect_image", image)
    except ImageNotFound:
        return None
    return found


def _pull(engine: Engine, image: str) -> tuple[str, bool]:
    """What went wrong, and whether it was a refusal; the engine tells some of it as its answer, some within its progress."""
    try:
        progress = engine.pull(image)
    except APIError as error:
        said = str(error.explanation)
        return said, error.status_code in _REFUSED or _is_refusal(said)
    lines = [json.loads(line) for line in progress.splitlines() if line.strip()]
    said = "; ".join(str(line["error"]) for line in lines if "error" in line)
    return said, _is_refusal(said)


def _is_refusal(said: str) -> bool:
    return any(word in said.lower() for word in _REFUSALS)
