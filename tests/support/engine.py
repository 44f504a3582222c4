"""A Docker Engine for tests: how it is found, and an image that needs no registry."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import docker
from waiting import wait_for

RESTART_VARIABLE = "QWEN3_OPS_TEST_ENGINE"
"""Command that starts the engine, set where it is a private one that tests may kill; ``PIDFILE`` holds its pid file."""

PIDFILE_VARIABLE = "QWEN3_OPS_TEST_ENGINE_PIDFILE"
SKELETON = "qwen3-ops-test-skeleton:1"


def engine_url() -> str | None:
    """DOCKER_HOST or the default socket; None where neither answers."""
    url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        docker.APIClient(base_url=url, version="auto", timeout=30).ping()
    except docker.errors.DockerException:
        return None
    return url


@dataclass(frozen=True)
class TestEngine:
    """The engine, as the tests see it."""

    __test__ = False

    url: str

    @property
    def client(self) -> docker.APIClient:
        return docker.APIClient(base_url=self.url, version="auto", timeout=60)

    @property
    def may_be_killed(self) -> bool:
        return RESTART_VARIABLE in os.environ

    def kill(self) -> None:
        """SIGKILL to dockerd."""
        pid = int(Path(os.environ[PIDFILE_VARIABLE]).read_text())
        os.kill(pid, signal.SIGKILL)
        wait_for("the end of dockerd", lambda: not _runs(pid), seconds=20)

    def start(self) -> None:
        """Start a private engine; nothing to do when it answers."""
        if self.may_be_killed:
            subprocess.run(shlex.split(os.environ[RESTART_VARIABLE]), check=True, stdout=subprocess.DEVNULL)

    def containers(self, folder: Path, *, all: bool = True) -> list[dict]:
        """Containers of jobs below a folder."""
        found = self.client.containers(all=all, filters={"label": "qwen3-ops.job"})
        return [container for container in found if container["Labels"]["qwen3-ops.job"].startswith(str(folder))]

    def remove_all(self, folder: Path) -> None:
        for container in self.containers(folder):
            self.client.remove_container(container["Id"], force=True)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def import_skeleton(client: docker.APIClient) -> None:
    """An image of empty folders: the system and Python come in by read-only mounts (`system_mounts`)."""
    if any(SKELETON in (image["RepoTags"] or []) for image in client.images()):
        return
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("usr", "etc", "root", "tmp", "proc", "sys", "dev", "run", "var/tmp", "opt", "sbin"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
            tar.addfile(folder)
        for name in ("bin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache"):
            if Path("/etc", name).exists():
                tar.add(f"/etc/{name}", f"etc/{name}")
    client.import_image_from_data(
        archive.getvalue(), repository="qwen3-ops-test-skeleton", tag="1", changes=["ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin"]
    )


def system_mounts() -> list[str]:
    """What a skeleton container needs of this machine: the system, this Python and its packages."""
    wanted = {"/usr", sys.prefix, sys.base_prefix}
    return sorted(path for path in wanted if not any(path != other and path.startswith(other + "/") for other in wanted))


def package_dir() -> str:
    """The folder with our sources, for the profile's read-only mount."""
    import qwen3_ops

    return str(Path(qwen3_ops.__file__).parents[1])
