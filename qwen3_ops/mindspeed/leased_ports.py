"""Ports that the host lent to this run's container, in the place of those that the plan named.

Two runs on one host must not meet on ``MASTER_PORT`` or in HCCL's range. Several nodes agree on the plan's ports instead:
what one host lends, another may have lent to someone else.
"""

from __future__ import annotations

from collections.abc import Mapping

from qwen3_ops.command import Command
from qwen3_ops.flags import get_flag, replace_flag

LEASED_PORTS = "QWEN3_OPS_LEASED_PORTS"
"""Environment variable of a container with a lease, as ``MASTER_PORT=6023,HCCL_IF_BASE_PORT=60256``."""


def with_leased_ports(command: Command, environment: Mapping[str, str]) -> Command:
    """``command`` of a run on one node with the leased ports; as it is where nothing was leased."""
    leased = dict(pair.split("=", 1) for pair in environment.get(LEASED_PORTS, "").split(",") if pair)
    if not leased or get_flag(command.argv, "--master_port") is None:
        return command
    argv = replace_flag(command.argv, "--master_port", leased["MASTER_PORT"])
    return command.model_copy(update={"argv": argv, "env": {**command.env, **leased}})
