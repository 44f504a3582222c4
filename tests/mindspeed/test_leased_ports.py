from __future__ import annotations

import pytest

from qwen3_airflow.ascend.leases import Lease
from qwen3_ops.command import Command
from qwen3_ops.mindspeed.leased_ports import LEASED_PORTS, with_leased_ports

LAUNCH = Command(
    env={"HCCL_IF_BASE_PORT": "60000", "CUDA_DEVICE_MAX_CONNECTIONS": "1"},
    cwd="/llm",
    argv=["torchrun", "--nproc_per_node", "8", "--master_port", "6015", "posttrain_gpt.py", "--seed", "42"],
)


def test_what_the_host_lent_outweighs_the_plan():
    lease = Lease(npus=(8, 9), ports={"MASTER_PORT": 6023, "HCCL_IF_BASE_PORT": 60256})
    command = with_leased_ports(LAUNCH, lease.environment())
    assert command.argv == ["torchrun", "--nproc_per_node", "8", "--master_port", "6023", "posttrain_gpt.py", "--seed", "42"]
    assert command.env == {"HCCL_IF_BASE_PORT": "60256", "CUDA_DEVICE_MAX_CONNECTIONS": "1", "MASTER_PORT": "6023"}


@pytest.mark.parametrize("environment", [{}, {LEASED_PORTS: ""}, {"MASTER_PORT": "7000"}])
def test_without_a_lease_the_plan_holds(environment):
    assert with_leased_ports(LAUNCH, environment) == LAUNCH


def test_a_command_without_devices_has_no_port():
    command = Command(env={}, cwd="/llm", argv=["python", "convert_ckpt.py", "--load-dir", "/x"])
    assert with_leased_ports(command, {LEASED_PORTS: "MASTER_PORT=6023"}) == command
