"""The machine before a run: devices, versions, disk, ports. Findings as the plan's.

Runs where the stages will run, in the container; a finding there is a fault that a run would
meet after hours of conversion.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.errors import BadInput
from qwen3_ops.findings import Finding
from qwen3_ops.mindspeed.login_env import login_environment
from qwen3_ops.npu_smi import NpuInfo, parse_info
from qwen3_ops.plan import Plan
from qwen3_ops.verbs import VERBS

RUNBOOK: Mapping[str, str] = {
    "driver": "25.0.rc1",
    "python": "3.10",
    "cann": "8.1.rc1",
    "torch": "2.6.0",
    "torch_npu": "2.6.0",  # the wheel of release v7.0.0 bears torch's number
    "mindspeed": "0.8.0",  # 2.0.0_core_r0.8.0
    "megatron-core": "0.8.0",
}
"""Runbook section 1: the versions that were run together."""

_CANN = Path("/usr/local/Ascend/ascend-toolkit/latest")
_HCCL_PORTS = 16
_LEAST_DISK = 50 << 30  # bytes; the plan forecasts a run's own need
_ASK_PYTHON = """
import json, platform
from importlib import metadata
found = {"python": platform.python_version()}
for name in ("torch", "torch_npu", "mindspeed", "megatron-core"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was found; made by :func:`look`, by hand in tests. Without need of NPUs only the disk is looked at."""

    npus: NpuInfo | None
    npu_error: str | None
    visible: tuple[int, ...]
    versions: Mapping[str, str]
    free_disk: int
    taken_ports: tuple[int, ...]


def look(run: RunConfig, *, needs_npus: bool) -> Machine:
    """The machine that this process runs on, as a stage on MindSpeed-LLM finds it.

    Raises:
        BadInput: the login shell that such a stage starts from does not work.
    """
    free_disk = shutil.disk_usage(run.output_root).free
    if not needs_npus:
        return Machine(npus=None, npu_error=None, visible=(), versions={}, free_disk=free_disk, taken_ports=())
    npus, error = _npu_info()
    return Machine(
        npus=npus,
        npu_error=error,
        visible=tuple(sorted(int(path.name[7:]) for path in Path("/dev").glob("davinci[0-9]*") if path.name[7:].isdigit())),
        versions={**_package_versions(), **_ascend_versions(npus)},
        free_disk=free_disk,
        taken_ports=tuple(port for port in ports(run) if not _is_free(port)),
    )


def describe(run: RunConfig, machine: Machine, *, needs_npus: bool) -> list[str]:
    """What was looked at, a line each."""
    disk = f"{machine.free_disk / (1 << 30):.1f} GiB free below {run.output_root}"
    if not needs_npus:
        return [disk, "no stage of this run needs an NPU: devices, versions and ports were not looked at"]
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return [f"devices: {_numbers(machine.visible)}", f"versions: {versions or 'none'}", disk, f"ports: {_numbers(ports(run))}"]


def needs_npus(plan: Plan) -> bool:
    """Whether a stage is to run on NPUs by MindSpeed-LLM; the native engine needs neither devices nor ports."""
    return any(stage.engine == "mindspeed" and VERBS[stage.verb].on_devices and not stage.reused for stage in plan.stages)


def examine(run: RunConfig, machine: Machine, *, needs_npus: bool) -> list[Finding]:
    """Everything wrong with ``machine`` for ``run``."""
    checks: Iterable[Iterator[Finding]] = (
        _devices(run, machine) if needs_npus else iter(()),
        _versions(machine) if needs_npus else iter(()),
        _disk(run, machine),
        _taken_ports(machine),
    )
    return [finding for check in checks for finding in check]


def _devices(run: RunConfig, machine: Machine) -> Iterator[Finding]:
    fields = ("nproc_per_node",)
    if len(machine.visible) < run.nproc_per_node:
        yield Finding(
            rule="nproc_per_node devices must be there",
            fields=fields,
            values=f"nproc_per_node = {run.nproc_per_node}, /dev/davinci*: {_numbers(machine.visible)}",
            consequence="training can not start",
            remedy="check the host profile's npus and the driver",
        )
    if machine.npus is None:
        yield Finding(
            rule="npu-smi must answer",
            fields=fields,
            values=machine.npu_error or "no answer",
            consequence="health and use of the devices are unknown",
            remedy="mount the driver and npu-smi as runbook section 2 does; a device that another container holds answers no one else",
            severity="warn" if "not installed" in (machine.npu_error or "") else "refuse",
        )
        return
    for chip in machine.npus.chips:
        if chip.device not in machine.visible:
            continue
        place = f"NPU {chip.npu} chip {chip.chip} (davinci{chip.device})"
        if chip.health != "OK":
            yield Finding(
                rule="devices must be healthy",
                fields=fields,
                values=f"{place}: {chip.health}",
                consequence="training fails or gives wrong numbers",
                remedy=f"npu-smi info -t health -i {chip.npu} -c {chip.chip} names the error code; reset or leave out the card",
                severity="warn" if chip.health == "Warning" else "refuse",
            )
        elif not chip.is_free:
            used = f"{chip.hbm_used} of {chip.hbm_total} MB of HBM"
            yield Finding(
                rule="devices must be free",
                fields=fields,
                values=f"{place}: {used}, processes {_numbers(chip.processes)}",
                consequence="training runs out of memory, or two runs disturb each other",
                remedy="end the process, or let the lease choose other devices",
            )


def _versions(machine: Machine) -> Iterator[Finding]:
    torch, torch_npu = (machine.versions.get(name) for name in ("torch", "torch_npu"))
    if torch is not None and torch_npu is not None and _minor(torch) != _minor(torch_npu):
        yield _version_finding(
            "torch_npu must be made for this torch", f"torch {torch}, torch_npu {torch_npu}", "importing torch_npu fails", "refuse"
        )
    for name, wanted in RUNBOOK.items():
        found = machine.versions.get(name)
        if found is None:
            severity = "refuse" if name in ("torch", "torch_npu", "cann") else "warn"
            yield _version_finding(f"{name} must be installed", f"{name}: not found", "the stage can not run", severity)
        elif not found.lower().startswith(wanted):
            yield _version_finding(
                f"{name} differs from the runbook's", f"{name} {found}, runbook {wanted}", "a combination that no one here has run", "warn"
            )


def _version_finding(rule: str, values: str, consequence: str, severity: str) -> Finding:
    return Finding.model_validate(
        {
            "rule": rule,
            "fields": ("engine",),
            "values": values,
            "consequence": consequence,
            "remedy": "use an image of the runbook's section 1",
            "severity": severity,
        }
    )


def _disk(run: RunConfig, machine: Machine) -> Iterator[Finding]:
    if machine.free_disk < _LEAST_DISK:
        yield Finding(
            rule="output_root should have room",
            fields=("output_root",),
            values=f"{machine.free_disk / (1 << 30):.1f} GiB free below {run.output_root}",
            consequence="a stage may stop when its checkpoint does not fit",
            remedy="free space, or choose another folder",
            severity="warn",
        )


def _taken_ports(machine: Machine) -> Iterator[Finding]:
    if machine.taken_ports:
        yield Finding(
            rule="the ports of torchrun and HCCL must be free",
            fields=("master_port", "hccl_if_base_port"),
            values=f"taken: {_numbers(machine.taken_ports)}",
            consequence="ranks can not meet: EJ0003, or Address already in use",
            remedy="choose other ports, or wait for the job that holds them",
        )


def ports(run: RunConfig) -> tuple[int, ...]:
    """MASTER_PORT and HCCL's range as the lease or the run chose them."""
    master = int(os.environ.get("MASTER_PORT", run.master_port))
    base = os.environ.get("HCCL_IF_BASE_PORT", run.hccl_if_base_port)
    return (master, *(range(int(base), int(base) + _HCCL_PORTS) if base is not None else ()))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _npu_info() -> tuple[NpuInfo | None, str | None]:
    tool = shutil.which("npu-smi") or shutil.which("npu-smi", path="/usr/local/sbin:/usr/local/bin")
    if tool is None:
        return None, "npu-smi is not installed"
    try:
        done = subprocess.run([tool, "info"], capture_output=True, text=True, errors="replace", timeout=60, check=False)
        return parse_info(done.stdout or done.stderr), None
    except (BadInput, OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)


def _package_versions() -> dict[str, str]:
    """Of the Python that MindSpeed-LLM runs with, which need not be this one; none where it does not answer."""
    environment = login_environment()
    python = shutil.which("python", path=environment.get("PATH")) or shutil.which("python3", path=environment.get("PATH"))
    if python is None:
        return {}
    try:
        done = subprocess.run([python, "-c", _ASK_PYTHON], env=environment, capture_output=True, text=True, timeout=60, check=True)
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])  # what the environment loads may print before
    except (subprocess.SubprocessError, ValueError, IndexError, OSError):
        return {}
    return found


def _ascend_versions(npus: NpuInfo | None) -> dict[str, str]:
    found = {} if npus is None else {"driver": npus.version}
    for info in sorted(_CANN.glob("*/ascend_toolkit_install.info")):
        if match := re.search(r"^version=(\S+)", info.read_text(encoding="utf-8"), re.MULTILINE):
            found["cann"] = match[1]
    return found


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, values)) or "none"
