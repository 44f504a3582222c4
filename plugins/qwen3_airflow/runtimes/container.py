"""From a job and a host profile to what the Docker Engine is asked to create.

Paths travel in structures, never in ``a:b:c`` strings, and the command is a list: no value
of a run can turn into a mount, a device or an option.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import LogConfig, Mount

from qwen3_airflow.ascend.leases import Lease
from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.runtimes.base import Job
from qwen3_ops.errors import BadInput

PREFIX = "qwen3-ops."
"""Of every label; ``qwen3-ops.job`` holds the job's folder and marks a container as ours."""

NPU_QUEUE = "/tmp/qwen3-ops-npus.lock"  # noqa: S108 - in the container
"""In a shared container: stages that want its NPUs follow each other."""

EXEC = "exec.json"
"""In a shared container: which attempt of a job was begun; made once, so only one is."""

JOB, ATTEMPT, LOG_START = PREFIX + "job", PREFIX + "attempt", PREFIX + "log_start"


def container_name(job: Job) -> str:
    """One name for every attempt of a job: the engine itself refuses a second container."""
    digest = hashlib.sha256(str(job.folder).encode()).hexdigest()[:12]
    return f"qwen3-{re.sub(r'[^A-Za-z0-9_.-]+', '-', job.folder.name)[:40]}-{digest}"


def labels(job: Job, lease: Lease, *, attempt: str, log_start: int) -> dict[str, str]:
    wanted = {PREFIX + name: value for name, value in job.labels.items()}
    return {**wanted, **lease.labels(), JOB: str(job.folder), ATTEMPT: attempt, LOG_START: str(log_start)}


def attempt_command(job: Job, profile: HostProfile, attempt: str) -> list[str]:
    """Arguments of the image's Python: ``qwen3_ops.attempt`` around the job's own argv."""
    sourced = [token for script in profile.env_scripts for token in ("--source", script)]
    shared = profile.container == "shared"
    queue = ["--queue", NPU_QUEUE] if shared and job.npus else []
    claim = ["--claim", str(job.folder / EXEC)] if shared else []
    return ["-m", "qwen3_ops.attempt", *sourced, *queue, *claim, str(job.folder), attempt, "--", *job.argv]


def environment(job: Job, profile: HostProfile, lease: Lease, *, image: Mapping[str, str]) -> dict[str, str]:
    """The container's own variables; ``image``: those that its image sets."""
    variables = {"PYTHONUNBUFFERED": "1", **lease.environment()}
    if network_mode(job, profile) == "none":  # the ranks of one host meet on its loopback
        variables.update(HCCL_SOCKET_IFNAME="lo", GLOO_SOCKET_IFNAME="lo")
    variables.update(profile.environment)
    if profile.package_dir is not None:
        inherited = variables.get("PYTHONPATH") or image.get("PYTHONPATH")
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [profile.package_dir, inherited]))
    if lease.npus and profile.device_mode == "ascend-docker-runtime":
        variables["ASCEND_VISIBLE_DEVICES"] = ",".join(map(str, lease.npus))
    return variables


def network_mode(job: Job, profile: HostProfile) -> str:
    return profile.network_mode or ("host" if job.multi_node else "none")


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A folder or file of the host at the same place in the container, or at ``target``."""

    source: str
    target: str
    read_only: bool


def binds(job: Job, profile: HostProfile) -> list[Bind]:
    """The host's drivers, the package, and the job's folders, which must lie below the profile's roots.

    Raises:
        BadInput: a folder that the profile does not allow, or that is not there.
    """
    fixed = [*profile.driver_mounts, *([profile.package_dir] if profile.package_dir else [])]
    found = {path: Bind(source=path, target=path, read_only=True) for path in fixed}
    for path in (read for given in job.reads for read in (given, *_behind_links(given))):
        found[_target(path)] = _bind(path, allowed=profile.may_read(os.path.realpath(path)), read_only=True)
    for path in job.writes:
        found[_target(path)] = _bind(path, allowed=profile.may_write(os.path.realpath(path)), read_only=False)
    return list(found.values())


def host_options(job: Job, profile: HostProfile, lease: Lease) -> dict[str, Any]:
    """Arguments of ``APIClient.create_host_config``."""
    explicit = [f"/dev/davinci{npu}" for npu in lease.npus] if profile.device_mode == "explicit" else []
    devices = [*explicit, *profile.control_devices] if explicit else []
    privileged = profile.privileged and bool(lease.npus)
    return {
        "mounts": [Mount(target=bind.target, source=bind.source, type="bind", read_only=bind.read_only) for bind in binds(job, profile)],
        "devices": [{"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"} for path in devices],
        "runtime": "ascend" if lease.npus and profile.device_mode == "ascend-docker-runtime" else None,
        "privileged": privileged,
        "security_opt": None if privileged else ["no-new-privileges"],
        "network_mode": network_mode(job, profile),
        "ipc_mode": profile.ipc_mode,
        "shm_size": profile.shm_size,
        "init": True,  # hands signals on and reaps what the trainer's helpers leave
        "log_config": LogConfig(type="json-file", config={"max-size": "1m", "max-file": "1"}),  # stage.log is the log
    }


def _target(path: Path) -> str:
    return posixpath.normpath(str(path))


def _bind(path: Path, *, allowed: bool, read_only: bool) -> Bind:
    if not path.is_absolute() or not path.exists():
        raise BadInput("no such folder or file for the container", value=path, remedy="The worker and the host must see the same paths.")
    if not allowed:
        raise BadInput(
            f"the host's profile lets no run {'read' if read_only else 'write'} here",
            value=path if os.path.realpath(path) == str(path) else f"{path}, which is {os.path.realpath(path)}",
            remedy="Use a folder below its data_roots, or have the administrator add one.",
        )
    return Bind(source=os.path.realpath(path), target=_target(path), read_only=read_only)


def _behind_links(folder: Path) -> set[Path]:
    """Folders that links in ``folder`` lead to, as in a Hugging Face cache where ``snapshots`` point to ``blobs``."""
    if not folder.is_dir():
        return set()
    inside = os.path.realpath(folder)
    targets = {Path(os.path.realpath(entry)) for entry in folder.iterdir() if entry.is_symlink()}
    return {target.parent for target in targets if target.exists() and not str(target).startswith(inside + "/")}
