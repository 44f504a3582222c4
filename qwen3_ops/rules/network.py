"""Hosts and ports of torchrun and HCCL."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.rules.registry import rule

_HCCL_BASE = 60000
_HCCL_PORTS = 32  # 16 up to CANN 8.0, 32 since 8.5
_DEVICE_PORT = 16666
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")


@rule("master_port", "hccl_if_base_port", "engine", about="devices")
def ports_are_apart(run: RunConfig) -> Iterator[Finding]:
    base = run.hccl_if_base_port or _HCCL_BASE
    if run.engine == "native":
        return
    if base <= run.master_port < base + _HCCL_PORTS or run.master_port == _DEVICE_PORT:
        yield Finding(
            rule="master_port must lie outside HCCL's ports",
            fields=("master_port", "hccl_if_base_port"),
            values=f"master_port = {run.master_port}, HCCL takes {base} to {base + _HCCL_PORTS - 1} and {_DEVICE_PORT}",
            consequence="a rank can not bind its port (EJ0003, EI0019), minutes after the start",
            remedy="choose another port, such as 6015",
        )


@rule("master_port", "hccl_if_base_port", "hosts", "runtime", "engine", about="devices")
def ports_are_free(run: RunConfig) -> Iterator[Finding]:
    """Of this machine, where it is the one that runs the stages."""
    if run.engine == "native" or run.runtime != "local" or run.hosts:
        return
    for field, port in (("master_port", run.master_port), ("hccl_if_base_port", run.hccl_if_base_port)):
        if port is not None and _taken(port):
            yield Finding(
                rule=f"{field} should be free",
                fields=(field,),
                values=f"{field} = {port}, which a process of this host listens on",
                consequence="torchrun ends with 'Address already in use'",
                remedy="wait for the job that has it, or choose another port",
                severity="warn",  # it may be free again when the training starts
            )


@rule("hccl_if_base_port", "runtime", "engine", about="devices")
def ports_are_not_given_away(run: RunConfig) -> Iterator[Finding]:
    base = run.hccl_if_base_port or _HCCL_BASE
    if run.engine == "native" or run.runtime != "local" or not _EPHEMERAL.is_file():
        return
    low, high = (int(number) for number in _EPHEMERAL.read_text().split())
    reserved = _RESERVED.read_text().strip() if _RESERVED.is_file() else ""
    if any(low <= port <= high and not _covers(reserved, port) for port in range(base, base + _HCCL_PORTS)):
        yield Finding(
            rule="HCCL's ports should be reserved",
            fields=("hccl_if_base_port",),
            values=f"HCCL takes {base} to {base + _HCCL_PORTS - 1}; the system gives {low} to {high} to any outgoing connection",
            consequence="now and then a rank can not bind its port",
            remedy=f"sysctl -w net.ipv4.ip_local_reserved_ports={base}-{base + _HCCL_PORTS - 1}, or choose a base port outside",
            severity="warn",
        )


@rule("hosts", "nnodes", "engine", about="devices")
def hosts_are_the_nodes(run: RunConfig) -> Iterator[Finding]:
    if run.engine == "native":
        return
    local = [host for host in run.hosts if host in ("localhost", "::1") or host.startswith("127.")]
    invalid = [host for host in run.hosts if not _is_host(host)]
    problems = {
        f"several nodes need one address each, {len(run.hosts)} given": run.nnodes > 1 and len(run.hosts) != run.nnodes,
        f"one node, but {len(run.hosts)} hosts": run.nnodes == 1 and len(run.hosts) > 1,
        "the same host twice": len(set(run.hosts)) < len(run.hosts),
        f"{', '.join(local)} means another machine on every node": bool(local) and run.nnodes > 1,
        f"{', '.join(invalid)}: neither an address nor a host name": bool(invalid),
    }
    for text in [text for text, found in problems.items() if found]:
        yield Finding(
            rule="hosts must name every node once, the master first, as the others reach it",
            fields=("hosts", "nnodes"),
            values=f"hosts = {', '.join(run.hosts) or 'none'}, nnodes = {run.nnodes}: {text}",
            consequence="the nodes wait for each other until a timeout",
            remedy="give the addresses of all nodes in the order of their ranks",
        )


@rule("socket_ifname", "nnodes", "no_shared_storage", "engine", about="devices")
def nodes_can_talk(run: RunConfig) -> Iterator[Finding]:
    if run.engine == "native" or run.nnodes == 1:
        return
    if run.socket_ifname is None:
        yield Finding(
            rule="socket_ifname should name the network interface between the nodes",
            fields=("socket_ifname",),
            values=f"nnodes = {run.nnodes}, socket_ifname = none",
            consequence="HCCL and gloo take the first interface they find, such as a container's bridge (EI0006)",
            remedy="set it to the interface of the hosts' addresses, such as eth0",
            severity="warn",
        )
    if run.no_shared_storage:
        yield Finding(
            rule="without shared storage every node needs its own inputs, and leaves its own part of the checkpoint",
            fields=("no_shared_storage",),
            values=f"nnodes = {run.nnodes}, no_shared_storage = true",
            consequence="the tracker is on the first node alone: the others would start from random weights, with a warning only",
            remedy="copy model, data and converted weights to every node, and gather the parts before the next stage; or share output_root",
            severity="warn",
        )


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def _covers(ranges: str, port: int) -> bool:
    bounds = [part.partition("-") for part in ranges.split(",") if part]
    return any(int(low) <= port <= int(high or low) for low, _, high in bounds)


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return bool(_NAME.fullmatch(text)) and not re.fullmatch(r"[\d.]+", text)
    return True
