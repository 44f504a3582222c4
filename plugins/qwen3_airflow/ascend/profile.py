"""HostProfile: what a container on one host gets, the runbook's section 2 as data.

A profile is the administrator's: it comes from a connection or a recipe, never from a run's
parameters. A run only names folders, and only below the roots that the profile allows.
"""

from __future__ import annotations

import os
import posixpath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _host_path(path: str) -> str:
    bare = path.rstrip("/")
    if not bare.startswith("/") or "\0" in bare or posixpath.normpath(bare) != bare:
        raise ValueError(f"an absolute path without '..' is wanted, and not the root: {path!r}")
    return bare


HostPath = Annotated[str, AfterValidator(_host_path)]
"""Absolute path on the host; the container sees it at the same place."""


class HostProfile(BaseModel):
    """A host and the containers on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(min_length=1, description="Image of the stages' containers.")
    container: Literal["per_stage", "shared"] = Field("per_stage", description="A container for each stage, or one for all of a run.")
    container_name: str | None = Field(None, description="With `shared`: a container that stands already, by name.")

    npus: int = Field(0, ge=0, le=64, description="Devices davinci0 to davinci(N-1); 0 for a host without NPUs.")
    dies_per_npu: Literal[1, 2] = Field(1, description="2 on A3, where a card is two devices, leased together.")
    device_mode: Literal["explicit", "ascend-docker-runtime"] = Field(
        "explicit", description="Hand in the device nodes, or let the Ascend Docker Runtime do it by ASCEND_VISIBLE_DEVICES."
    )
    control_devices: tuple[HostPath, ...] = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
    privileged: bool = Field(False, description="Every device of the host; the leases then only bind us.")

    driver_mounts: tuple[HostPath, ...] = Field((), description="Driver, firmware and tools of the host; read-only.")
    data_roots: tuple[HostPath, ...] = Field((), description="Runs may read and write below these.")
    read_only_roots: tuple[HostPath, ...] = Field((), description="Runs may only read below these.")
    package_dir: HostPath | None = Field(
        None, description="Folder of the host with qwen3-ops (pip install --target), mounted read-only; empty: it is in the image."
    )
    python: str = Field("python3", min_length=1, description="Python of the image that runs qwen3-ops.")
    env_scripts: tuple[HostPath, ...] = Field((), description="Scripts of the image that set CANN's variables, sourced before a stage.")

    environment: dict[str, str] = Field(default_factory=dict, description="Variables of every container.")
    user: str | None = Field(None, description="User in the container; empty: the image's.")
    ipc_mode: Literal["host", "private", "shareable"] = "host"
    shm_size: str | None = Field(None, pattern=r"^\d+[bkmg]?$", description="With an ipc of its own: size of /dev/shm, as 64g.")
    network_mode: Literal["none", "host", "bridge"] | None = Field(
        None, description="Empty: none, and host for runs on several nodes, which HCCL needs."
    )
    ports: dict[int, int] = Field(
        default_factory=dict,
        description="Port in a shared container -> port of the host, on its loopback; a lease adds the number of its first device.",
    )

    master_port: int = Field(6015, ge=1024, le=65000, description="First port for torchrun; a lease adds the number of its first device.")
    hccl_if_base_port: int = Field(
        60000, ge=1024, le=63000, description="First port of HCCL; a lease adds 32 for each device before its first."
    )

    @model_validator(mode="after")
    def _consistent(self) -> HostProfile:
        if self.npus % self.dies_per_npu:
            raise ValueError(f"npus = {self.npus} is not a multiple of dies_per_npu = {self.dies_per_npu}")
        if self.container_name is not None and self.container != "shared":
            raise ValueError("container_name goes with container = shared")
        if self.shm_size is not None and self.ipc_mode == "host":
            raise ValueError("shm_size has no effect with ipc_mode = host")
        return self

    def may_read(self, real: str) -> bool:
        """Whether runs may read ``real``, a path without symbolic links."""
        return _below(real, (*self.data_roots, *self.read_only_roots))

    def may_write(self, real: str) -> bool:
        return _below(real, self.data_roots)


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(os.path.commonpath((path, root)) == root for root in map(os.path.realpath, roots))
