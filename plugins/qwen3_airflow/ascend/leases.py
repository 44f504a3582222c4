"""Leases of NPUs: which devices a container holds stands in its labels, so the truth is on the host.

Choosing and creating happen under a lock that all workers of a host share: a container named
``qwen3-ops-lease`` that is created and never started. The engine refuses a second of that
name; one that its owner left behind is removed after a minute.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from docker.errors import APIError

from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.runtimes.base import NpusBusy
from qwen3_airflow.runtimes.engine import CONFLICT, Engine
from qwen3_ops.errors import BadInput
from qwen3_ops.mindspeed.leased_ports import LEASED_PORTS

NPUS = "qwen3-ops.npus"
PORTS = "qwen3-ops.ports"
LOCK = "qwen3-ops-lease"

_HCCL_PORTS = 32  # one range, CANN 8.5's size
_STALE = 60.0  # seconds after which a lock is its owner's no more; choosing and creating take one
_PERIOD = 0.2
_HOLDING = ["created", "running", "paused", "restarting"]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """NPUs of one container, by davinci number, and the ports that go with them."""

    npus: tuple[int, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)

    def labels(self) -> dict[str, str]:
        if not self.npus:
            return {}
        return {NPUS: ",".join(map(str, self.npus)), PORTS: self._ports()}

    def environment(self) -> dict[str, str]:
        """For any program its usual variables, for the mindspeed engine one that outweighs the plan's ports."""
        if not self.ports:
            return {}
        return {**{name: str(port) for name, port in self.ports.items()}, LEASED_PORTS: self._ports()}

    def _ports(self) -> str:
        return ",".join(f"{name}={port}" for name, port in self.ports.items())


@contextmanager
def leased(engine: Engine, profile: HostProfile, count: int) -> Iterator[Lease]:
    """A lease of ``count`` NPUs, the host's to no one else; create the container with its labels inside the block.

    Raises:
        NpusBusy: fewer are free; the message says who holds the others.
        BadInput: the host has fewer.
    """
    if count == 0 or profile.npus == 0:
        yield Lease()
        return
    with _locked(engine, profile.image):
        yield choose(profile, count, holders(engine))


def choose(profile: HostProfile, count: int, held: Mapping[int, str]) -> Lease:
    """Whole cards, neighbours where there are such: 8 of 16 devices are 0-7 or 8-15 before any other eight. Raises as :func:`leased`."""
    if count > profile.npus:
        raise BadInput(
            f"the run wants {count} NPUs, the host has {profile.npus}",
            remedy="Lower nproc_per_node, or mend `npus` in the profile of the host's connection.",
        )
    dies = profile.dies_per_npu
    cards = [card for card in range(profile.npus // dies) if not any(card * dies + die in held for die in range(dies))]
    wanted = -(-count // dies)
    if wanted > len(cards):
        by_holder = "; ".join(
            f"{holder} holds {','.join(str(npu) for npu in sorted(held) if held[npu] == holder)}" for holder in sorted(set(held.values()))
        )
        raise NpusBusy(
            f"{count} of {profile.npus} NPUs are wanted, {len(cards) * dies} are free: {by_holder or 'none is held'}", wanted=count
        )
    aligned = (range(start, start + wanted) for start in range(0, profile.npus // dies, wanted))
    block = next((list(block) for block in aligned if set(block) <= set(cards)), cards[:wanted])
    npus = tuple(card * dies + die for card in block for die in range(dies))
    ports = {"MASTER_PORT": profile.master_port + npus[0], "HCCL_IF_BASE_PORT": profile.hccl_if_base_port + _HCCL_PORTS * npus[0]}
    return Lease(npus=npus, ports=ports)


def holders(engine: Engine) -> dict[int, str]:
    """davinci number -> the container that holds it: ours by label, others by the devices they were given."""
    held: dict[int, str] = {}
    for container in engine.call("containers", all=True, filters={"status": _HOLDING}):
        name = container["Names"][0].lstrip("/") if container["Names"] else container["Id"][:12]
        label = container["Labels"].get(NPUS)
        numbers = map(int, label.split(",")) if label else _devices(engine, container["Id"])
        held.update(dict.fromkeys(numbers, name))
    return held


def _devices(engine: Engine, container_id: str) -> Iterator[int]:
    found = engine.inspect(container_id)
    for device in found["HostConfig"].get("Devices") or [] if found is not None else []:
        if match := re.fullmatch(r"/dev/davinci(\d+)", device["PathOnHost"]):
            yield int(match[1])


@contextmanager
def _locked(engine: Engine, image: str) -> Iterator[None]:
    config = {"Image": image, "Entrypoint": ["never-started"], "Labels": {"qwen3-ops.lock": "1"}}
    while True:
        try:
            mine = engine.call("create_container_from_config", config, LOCK)["Id"]
            break
        except APIError as error:
            if error.status_code != CONFLICT:
                raise
        remove_stale_lock(engine)
        time.sleep(_PERIOD)
    try:
        yield
    finally:
        engine.remove(mine)  # by id: one that another worker made since is not ours


def remove_stale_lock(engine: Engine) -> None:
    """Break the lock of a worker that died with it."""
    lock = engine.inspect(LOCK)
    if lock is not None and _seconds(engine.call("info")["SystemTime"]) - _seconds(lock["Created"]) > _STALE:
        engine.remove(lock["Id"])


def _seconds(stamp: Any) -> float:
    """The engine's RFC 3339, with as many digits of a second as it needs; Python 3.10 takes six or none."""
    six = re.sub(r"\.(\d+)", lambda digits: f".{digits[1]:0<6.6}", stamp)
    return datetime.fromisoformat(six.replace("Z", "+00:00")).timestamp()
